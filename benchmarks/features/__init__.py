"""Measure point-in-time joins and online look-ups beside Feast's own and beside the floor."""
