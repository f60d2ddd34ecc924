"""Features: what was known, when? Labels joined with point-in-time features, as a snapshot."""

from penstock.features.step import run

__all__ = ["run"]
