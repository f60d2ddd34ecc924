"""Retrain: is it worth training again, now?"""

from penstock.retrain.step import require_no_diagnosis, run, trigger_of

__all__ = ["require_no_diagnosis", "run", "trigger_of"]
