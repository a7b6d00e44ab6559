"""The commands for images of one's own: `texad fit`, `predict`, `check`, `calibrate`, `export`."""
