"""Equivalence: does each step still compute the same thing, for every slice?"""

from penstock.equivalence.step import run

__all__ = ["run"]
