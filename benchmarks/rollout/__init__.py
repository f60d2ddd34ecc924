"""Simulate thousands of releases through the judge and the decisions that serve real ones."""
