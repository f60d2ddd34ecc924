"""Measure our server beside others that serve the same model, and beside the bare model."""
