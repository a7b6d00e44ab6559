"""What Sphinx is taught for the book."""
