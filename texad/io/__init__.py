"""Bytes on disk: whole files, images, downloads; knows nothing of the method."""
