"""From pixels to a decision: the method."""
