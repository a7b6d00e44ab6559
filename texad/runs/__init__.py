"""The run folder and its schema."""
