"""Train: can the same bits be made again?"""

from penstock.train.step import run

__all__ = ["run"]
