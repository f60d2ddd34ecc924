"""Data checks: is this data fit to train on?"""

from penstock.datachecks.step import run

__all__ = ["run"]
