"""Metrics of scores and decisions, and a test of drift."""
