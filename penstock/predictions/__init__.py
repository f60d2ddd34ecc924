"""Predictions: read what servers logged, join what came of it, forget what must be forgotten."""
