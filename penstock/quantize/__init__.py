"""Quantize: an int8 graph with explicit Q/DQ, its ranges chosen on training data only."""

from penstock.quantize.step import run

__all__ = ["run"]
