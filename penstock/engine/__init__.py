"""Engine: the int8 graph built for what runs it, with what it costs there."""

from penstock.engine.step import run

__all__ = ["run"]
