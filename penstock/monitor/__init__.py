"""Monitor: is what serves still right?"""

from penstock.monitor.step import run

__all__ = ["run"]
