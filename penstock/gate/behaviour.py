"""Behavioural tests: does the model do as it must on rows changed on purpose, and on plain cases?

Three kinds, after Ribeiro and others (2020), *Beyond Accuracy: Behavioral Testing of NLP Models
with CheckList*, ACL: invariance, direction, minimum functionality.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.gate.tried import Answer, Tried, Unusable, tried
from penstock.stats.intervals import wilson
from penstock.verdict import Check, Outcome
from penstock.workload import Behaviour, Direction, Invariance, MinimumFunctionality, Workload

ALPHA = 0.05
"""The interval of the share of rows that behave is two-sided at 1 - ALPHA."""

WORST = 5
"""Rows of each behaviour that are kept as examples, the worst first."""

KINDS = {
    Invariance: "invariance",
    Direction: "direction",
    MinimumFunctionality: "minimum functionality",
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """How one behaviour came out; the gate's ``behaviours.json`` holds these."""

    name: str
    kind: str
    asked: float
    """Share of rows that must behave."""

    outcome: str
    reason: str
    n: int = 0
    share: float | None = None
    """Of ``n`` rows that do, with the bounds of its interval; None where none could be judged."""

    low: float | None = None
    high: float | None = None
    examples: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @property
    def check(self) -> Check:
        """Its line in the verdict."""
        return Check(
            name=f"{self.kind}: {self.name}",
            outcome=Outcome(self.outcome),
            reason=self.reason,
            value=self.share,
            limit=self.asked,
        )


def judge_behaviours(declared: Workload, rows: pa.Table, answer: Answer) -> list[Found]:
    """Return how each declared behaviour came out, in their order.

    Args:
        rows: Of the holdout, which the functions change or choose from.
        answer: The graph that serves, with its transform.

    A function that does not exist, raises, or returns rows that do not fit is an error of its own
    check: no evidence, and the others are still judged.
    """
    return [_judged(behaviour, declared, rows, answer) for behaviour in declared.behaviours]


def _judged(behaviour: Behaviour, declared: Workload, rows: pa.Table, answer: Answer) -> Found:
    made = partial(Found, name=behaviour.name, kind=KINDS[type(behaviour)], asked=behaviour.share)
    try:
        found = tried(behaviour, declared, rows, answer)
    except Unusable as e:
        return made(outcome=Outcome.ERROR, reason=str(e))
    n, behaved = len(found.row_n), int(found.behaved_n.sum())
    low, high = wilson(behaved, n, alpha=ALPHA)
    outcome = judge_share(behaviour, behaved, n, min_support=declared.min_support)
    few = outcome is Outcome.INCONCLUSIVE and n < declared.min_support
    change, ignored = _mean_change(behaviour, found)
    if ignored and not few:
        outcome = Outcome.FAIL
    return made(
        outcome=outcome,
        reason=f"{behaved} of {n} rows, {behaved / n:.4f} [{low:.4f}, {high:.4f}], "
        + ("all are asked" if behaviour.share == 1 else f"at least {behaviour.share:g}")
        + (f"; judged from {declared.min_support} rows on" if few else "")
        + change,
        n=n,
        share=behaved / n,
        low=low,
        high=high,
        examples=tuple(_examples(found)),
    )


def _mean_change(behaviour: Behaviour, found: Tried) -> tuple[str, bool]:
    """Return what to say of the mean change that a direction asks for, and whether it is too small.

    A model that ignores what was changed moves no row the wrong way: only that it moves shows that
    it looks.
    """
    if not isinstance(behaviour, Direction) or (moved := found.mean_change) is None:
        return "", False
    said = f"; {'up' if behaviour.rises else 'down'} by {moved + 0.0:.4f} on average, "
    said += f"at least {behaviour.least_mean:g}"
    ignored = not moved >= behaviour.least_mean
    return said + (": the model hardly looks at what was changed" if ignored else ""), ignored


def judge_share(behaviour: Behaviour, behaved: int, n: int, *, min_support: int) -> Outcome:
    """Return how a behaviour comes out when so many of n rows behave.

    Where every row is asked for, no interval ever reaches 1: one row that does not behave is
    evidence enough against it, and ``min_support`` rows that all do are enough for it. Of plain
    cases a handful is the point.
    """
    every = behaviour.share == 1
    low, high = wilson(behaved, n, alpha=ALPHA)
    if every and behaved < n:
        return Outcome.FAIL
    if n < min_support and not (every and isinstance(behaviour, MinimumFunctionality)):
        return Outcome.INCONCLUSIVE
    if every or low >= behaviour.share:
        return Outcome.PASS
    return Outcome.FAIL if high < behaviour.share else Outcome.INCONCLUSIVE


def _examples(found: Tried) -> list[dict[str, Any]]:
    """Return the worst rows, those that do not behave first."""
    badness_n = np.nan_to_num(found.badness_n, nan=np.inf)
    before_n = found.before_n
    return [
        {
            "row": int(found.row_n[i]),
            "class": int(found.class_n[i]),
            "before": None if before_n is None else _number(float(before_n[i])),
            "after": _number(float(found.after_n[i])),
            "decided": int(found.decided_n[i]),
            "behaved": bool(found.behaved_n[i]),
        }
        for i in np.lexsort((-badness_n, found.behaved_n))[:WORST]
    ]


def _number(value: float) -> float | None:
    """Return a probability, None where it is not a number."""
    return round(value, 6) if np.isfinite(value) else None
