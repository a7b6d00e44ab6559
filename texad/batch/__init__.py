"""Run the notebooks for many categories."""
