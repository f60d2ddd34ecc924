"""Gate: is it no worse, everywhere it matters?"""

from penstock.gate.step import run

__all__ = ["run"]
