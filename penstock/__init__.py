"""Carries a model from features to live traffic through gates, and back when it must."""
