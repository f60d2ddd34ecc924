"""Watching: when a model that serves is looked at, what counts as drift or harm, what it may cost.

A workload declares a :class:`Watch`; monitor judges by its first half, retrain by its second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from penstock.release import check_positive, check_share

DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Economics:
    """What a training costs and what right answers are worth, in one unit of the workload's own."""

    compute: float
    validation: float
    deployment: float
    risk: float
    """Expected cost of the new version being worse: its chance times its harm."""

    queries_a_day: float
    value: float
    """Of one right answer; in a task that is judged by AUC, of one whole unit of it per query."""

    accuracy: float
    """Right after a training, as a share."""

    decay: float
    """Share of it that is lost each day, of what is left."""

    def __post_init__(self) -> None:
        parts = (self.compute, self.validation, self.deployment, self.risk)
        if not all(0 <= part < math.inf for part in parts) or not self.cost > 0:
            raise ValueError(
                f"Economics costs {parts}; give finite amounts of 0 or more, and one above 0."
            )
        check_positive("Economics", queries_a_day=self.queries_a_day, value=self.value)
        check_share("Economics", accuracy=self.accuracy, decay=self.decay)

    @property
    def cost(self) -> float:
        """Of one training: compute, validation, deployment and risk together."""
        return self.compute + self.validation + self.deployment + self.risk


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is asked of a model that serves, and when it is trained again."""

    columns: tuple[str, ...] = ()
    """Features whose distribution is compared with the training rows; empty: all that the log and
    the package both have."""

    psi: float = 0.2
    ks: float = 0.1
    js: float = 0.1
    """Of the Jensen-Shannon distance: the root of the divergence in nats."""

    rate: float = 0.05
    """Of the features called drifted, the share that may be so by chance."""

    max_missing_change: float = 0.05
    """By how much a feature's share of missing values may differ from the training rows'."""

    min_users: int = 200
    """Fewer than this many say nothing, whatever they did; a request that names no user counts as
    one of its own."""

    max_confidence_change: float = 0.05
    """By how much the mean probability of what is decided may differ from the holdout's."""

    max_drop: float = 0.02
    """How much worse the task's metric may be than it was on the holdout."""

    max_slice_drop: float = 0.1
    """The same of a slice; few rows show no less."""

    max_error_share: float = 0.05
    max_stood_in_share: float = 0.05
    """Share of answers in which something stood in for a part that could not."""

    max_stale_share: float = 0.05
    """Share of answers from features that were older than they may be."""

    max_silence: timedelta = timedelta(hours=6)
    """Since the newest prediction."""

    every: timedelta | None = None
    """How long after a training the next one is due, whatever was seen; None: no schedule."""

    min_interval: timedelta = DAY
    """Least time between two trainings, a day or more; only priority 1 does not wait for it."""

    urgent_interval: timedelta = timedelta(hours=6)
    """Least time between two trainings of priority 1: the second would be of the same data."""

    severe_psi: float = 0.5
    """A feature's PSI above it is priority 1."""

    severe_drop: float = 0.1
    """A fall of the task's metric by more than this part of what it was is priority 1."""

    economics: Economics | None = None
    """Where declared, a measured loss is trained away only where that earns more than it costs."""

    def __post_init__(self) -> None:
        check_positive(
            "Watch",
            psi=self.psi,
            min_users=self.min_users,
            max_silence_s=self.max_silence.total_seconds(),
            urgent_interval_s=self.urgent_interval.total_seconds(),
        )
        shares = (
            "ks", "js", "rate", "max_missing_change", "max_confidence_change", "max_drop",
            "max_slice_drop", "max_error_share", "max_stood_in_share", "max_stale_share",
            "severe_drop",
        )  # fmt: skip
        check_share("Watch", **{name: getattr(self, name) for name in shares})
        if self.min_interval < DAY:
            raise ValueError(
                f"Watch.min_interval is {self.min_interval}; at most one training a day, so give a "
                "day or more."
            )
        if self.every is not None and self.every < self.min_interval:
            raise ValueError(
                f"Watch.every is {self.every}, less than min_interval {self.min_interval}; every "
                "second training would be refused: lengthen the one or shorten the other."
            )
        if self.severe_psi < self.psi:
            raise ValueError(
                f"Watch.severe_psi is {self.severe_psi}, below psi {self.psi}; severe is the more."
            )
        if self.urgent_interval > self.min_interval:
            raise ValueError(
                f"Watch.urgent_interval {self.urgent_interval} is longer than min_interval "
                f"{self.min_interval}; what is urgent waits less."
            )
