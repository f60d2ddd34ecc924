"""One step of the ladder: what it was held against, on which inputs, and how it was judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.stats import comparison
from penstock.stats.comparison import Comparison
from penstock.stats.slices import ALL
from penstock.verdict import Check, Outcome, worst
from penstock.workload import Limits, Network, Rung

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Masks = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One step on one slice."""

    found: Comparison

    limits: Limits | None
    """None where only finite outputs are asked for."""

    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst of its checks."""
        return worst(tuple(check.outcome for check in self.checks))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the comparison's numbers, the limits, the outcome."""
        limits = None if self.limits is None else asdict(self.limits)
        return {**asdict(self.found), "limits": limits, "outcome": str(self.outcome)}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step against the one before."""

    name: str
    against: str
    parts: tuple[Part, ...]
    """All rows first, then each slice that has any."""

    beyond: tuple[Part, ...] = ()
    """Inputs out of distribution, a part for each kind."""

    empty: tuple[Check, ...] = ()
    """Slices without a row: no evidence, and said so."""

    @property
    def checks(self) -> tuple[Check, ...]:
        """All checks of the step."""
        return (*(c for part in (*self.parts, *self.beyond) for c in part.checks), *self.empty)

    @property
    def failing(self) -> Part | None:
        """The first part that fails; all rows before slices, these before what lies beyond."""
        parts = (*self.parts, *self.beyond)
        return next((part for part in parts if part.outcome is Outcome.FAIL), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``ladder.json``."""
        return {
            "step": self.name,
            "against": self.against,
            "outcome": str(worst(tuple(check.outcome for check in self.checks))),
            "slices": [part.to_dict() for part in self.parts],
            "beyond": [part.to_dict() for part in self.beyond],
            "empty": [check.name.removeprefix(f"{self.name} ") for check in self.empty],
        }


def step(
    name: str,
    against: str,
    outputs: Mapping[str, Floats],
    labels_n: Labels,
    slices: Masks,
    rung: Rung,
    declared: Network,
    beyond: Mapping[str, Mapping[str, Floats]] | None = None,
    *,
    exact: bool = True,
) -> Step:
    """Compare and judge one step.

    Args:
        outputs: Logits of each step, shape [n, k].
        slices: Which rows each holds, shape [n].
        beyond: For each kind of inputs out of distribution the logits of each step.
        exact: Whether the step rounds nothing. It keeps the limits of a slice on inputs out of
            distribution too. An int8 graph does not: it clips what lies outside the ranges it saw
            in training, which is what its Q/DQ nodes say, so that a right one decides many such
            inputs otherwise. There it must only give finite numbers, unless the rung names the
            kind of inputs with limits of its own.
    """
    task: Any = {"metric": declared.metric, "threshold": declared.threshold}
    support = declared.equivalence.min_slice_support
    before, after = outputs[against], outputs[name]
    found = comparison.compare(before, after, labels_n, slices, **task)
    strange = [
        replace(comparison.compare(logits[against], logits[name], None, {}, **task)[0], slice=kind)
        for kind, logits in (beyond or {}).items()
    ]
    return Step(
        name=name,
        against=against,
        parts=tuple(_judged(name, found, rung, support, labelled=True)),
        beyond=tuple(
            part
            for one in strange
            for part in (
                _judged(name, [one], rung, support, labelled=False)
                if exact or one.slice in dict(rung.named)
                else [_finite(name, one)]
            )
        ),
        empty=tuple(
            comparison.unseen(f"{name} {part}", 0, support)
            for part, mask in slices.items()
            if not mask.any()
        ),
    )


def _judged(
    name: str, found: Iterable[Comparison], rung: Rung, support: int, *, labelled: bool
) -> list[Part]:
    return [
        Part(
            found=one,
            limits=rung.whole if one.slice == ALL else rung.limits(one.slice),
            checks=tuple(
                comparison.judge(name, [one], rung, min_support=support, labelled=labelled)
            ),
        )
        for one in found
    ]


def _finite(name: str, found: Comparison) -> Part:
    return Part(found=found, limits=None, checks=(comparison.finite(name, found),))
