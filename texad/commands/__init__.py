"""What the commands for a detector of one's own do."""
