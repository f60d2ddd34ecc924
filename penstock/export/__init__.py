"""Export: is the graph the model?"""

from penstock.export.step import run

__all__ = ["run"]
