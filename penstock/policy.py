"""Policy: what a gate asks of a challenger: rules, behaviours, fairness, costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RISING = ("accuracy", "auc")
"""Metrics of a model on the holdout that are better when greater."""

FALLING = ("log_loss", "brier", "calibration_error", "expected_cost")
"""Metrics of a model on the holdout that are better when smaller."""

FAIR_RISING = ("adverse_impact_ratio",)
FAIR_FALLING = ("equal_opportunity_difference",)
"""Metrics between the groups of each sensitive attribute."""

BUDGETS = ("latency_p50_ms", "latency_p99_ms", "peak_memory_mb", "cold_start_s")
"""What the artifact that serves costs, as the engine stage measured it."""

DATA_AGE = "data_age_days"
"""Days from the event that nine in ten training rows are no later than until now; of a recording,
until it was taken."""

SHARES = (*RISING, *FAIR_RISING, *FAIR_FALLING, "brier", "calibration_error")
"""Metrics that lie between 0 and 1."""

ALL = "all"
"""What all rows together are called, where slices are."""

TWO_CLASSES = ("auc", "expected_cost", *FAIR_RISING, *FAIR_FALLING)
"""Metrics of a task whose product is a probability."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A named part of the rows that is judged on its own: rows whose column is as it says.

    Limits join with *and*; ``low`` belongs to the slice, ``high`` does not.
    """

    name: str
    column: str
    low: float | None = None
    high: float | None = None
    among: tuple[int | str, ...] | None = None
    missing: bool = False
    """Rows whose value is missing, and no other condition."""

    def __post_init__(self) -> None:
        limited = (self.low, self.high, self.among) != (None, None, None)
        if limited == self.missing:
            raise ValueError(
                f"Slice {self.name!r} needs either limits (low, high, among) or missing=True."
            )
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(
                f"Slice {self.name!r} begins at {self.low} and ends before {self.high}: no row is "
                "in it."
            )


@dataclass(frozen=True, kw_only=True)
class AtLeast:
    """A floor: the metric's lower confidence bound must reach the value."""

    metric: str
    value: float
    slices: bool = False
    """Ask it of every slice too."""


@dataclass(frozen=True, kw_only=True)
class AtMost:
    """A ceiling: the metric's upper confidence bound must not exceed the value.

    A budget (``latency_p99_ms``, ``peak_memory_mb``) or ``data_age_days`` is one number, without an
    interval; budgets are those of the artifact that serves, at the usual batch size.
    """

    metric: str
    value: float
    slices: bool = False


@dataclass(frozen=True, kw_only=True)
class NoWorse:
    """Non-inferiority: the challenger loses less than ``margin`` to the champion."""

    metric: str
    margin: float
    slices: bool = False


@dataclass(frozen=True, kw_only=True)
class LeastCost:
    """The operating threshold costs hardly more than the best one would.

    The best is chosen on validation rows; the regret is measured on the holdout, in the units of
    :class:`Costs`, for each decision.
    """

    max_regret: float


Rule = AtLeast | AtMost | NoWorse | LeastCost


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What wrong decisions of a task with two classes cost, in one unit of the workload's own."""

    false_positive: float
    false_negative: float

    def __post_init__(self) -> None:
        for name, cost in vars(self).items():
            if not 0 < cost < math.inf:
                raise ValueError(f"Costs.{name} is {cost}; give a finite number above 0.")

    @property
    def threshold(self) -> float:
        """Probability of class 1 from which deciding 1 is the cheaper, of calibrated probabilities.

        Source: Elkan (2001), *The Foundations of Cost-Sensitive Learning*, IJCAI.

        >>> Costs(false_positive=1, false_negative=4).threshold
        0.2
        """
        return self.false_positive / (self.false_positive + self.false_negative)


@dataclass(frozen=True, kw_only=True)
class Sensitive:
    """An attribute that decisions must not fall unequally on, and its groups.

    Its column is in the snapshot's ``attributes.parquet``, which no model sees, or in the holdout.
    """

    name: str
    groups: tuple[Slice, ...]

    def __post_init__(self) -> None:
        if len(self.groups) < 2:
            raise ValueError(
                f"Sensitive {self.name!r} has {len(self.groups)} group; give at least 2 to compare."
            )
        refuse_twice(f"groups of {self.name!r}", [group.name for group in self.groups])


def refuse_twice(what: str, names: Sequence[str]) -> None:
    """Refuse names of which one is given twice: the second would hide the first.

    Raises:
        ValueError: One is.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"two {what} are called {twice[0]!r}; give each a name of its own.")


def _refuse_share(owner: str, share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"{owner}.share is {share}; it is a share of rows, above 0 and up to 1.")


@dataclass(frozen=True, kw_only=True)
class Invariance:
    """Rows changed in what should not matter are decided as before."""

    name: str
    change: str
    """Function of the workload's ``behaviour.py``: rows in, changed rows out, in their order."""

    share: float = 0.95
    """Of rows that must behave; 1 asks all of them."""

    max_probability_change: float | None = None
    """Of any class; None asks only for the same decision."""

    def __post_init__(self) -> None:
        _refuse_share("Invariance", self.share)
        most = self.max_probability_change
        if most is not None and not 0 <= most < 1:
            raise ValueError(
                f"Invariance.max_probability_change is {most}; it is 0 or more, below 1."
            )


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Rows changed for the worse, or the better, score so."""

    name: str
    change: str
    """Function of the workload's ``behaviour.py``: rows in, changed rows out, in their order."""

    rises: bool
    """Whether the probability of class 1 should rise; otherwise it should fall."""

    share: float = 0.95
    tolerance: float = 0.0
    """How far a probability may move the other way."""

    least_mean: float = 0.001
    """Least mean change over the rows that are changed, the way it should be. A model that ignores
    what was changed has none."""

    def __post_init__(self) -> None:
        _refuse_share("Direction", self.share)
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"Direction.tolerance is {self.tolerance}; it is 0 or more, below 1.")
        if not 0 < self.least_mean < 1:
            raise ValueError(f"Direction.least_mean is {self.least_mean}; it lies between 0 and 1.")


@dataclass(frozen=True, kw_only=True)
class MinimumFunctionality:
    """Plain cases that any model worth serving decides right."""

    name: str
    cases: str
    """Function of the workload's ``behaviour.py``: holdout rows in, cases with their label out."""

    share: float = 1.0

    def __post_init__(self) -> None:
        _refuse_share("MinimumFunctionality", self.share)


Behaviour = Invariance | Direction | MinimumFunctionality


@dataclass(frozen=True, kw_only=True)
class About:
    """What a card and a change document say that no measurement can."""

    purpose: str
    """What decisions it is for, in a sentence."""

    methodology: str
    """How the model works and why this kind was chosen."""

    assumptions: tuple[str, ...]
    limitations: tuple[str, ...]
    out_of_scope: tuple[str, ...] = ()
    """Uses it must not be put to."""

    ethical: str = ""
    """Whom wrong decisions hurt, and what is done about it."""


def check_rules(
    rules: Sequence[Rule],
    *,
    classes: int,
    costs: Costs | None,
    sensitive: Sequence[Sensitive],
    slices: int,
) -> None:
    """Refuse a policy that cannot be judged or cannot be met.

    Args:
        slices: How many slices the workload has, its classes counted where they are slices.

    Raises:
        ValueError: An unknown metric; a floor on what should be small or a ceiling on what should
            be great; a metric without what it is computed from; two rules that say the same or
            contradict each other.
    """
    for rule in rules:
        for problem in _problems(rule, classes=classes, costs=costs, sensitive=sensitive):
            raise ValueError(f"{rule}: {problem}")
        if getattr(rule, "slices", False) and not slices:
            raise ValueError(f"{rule}: asks it of slices; declare some, or leave slices out.")
    asked = Counter((type(r).__name__, getattr(r, "metric", ""), getattr(r, "slices", False))
                    for r in rules)  # fmt: skip
    if twice := [key for key, count in asked.items() if count > 1]:
        kind, metric, _ = twice[0]
        raise ValueError(f"the policy asks {kind} of {metric or 'costs'} twice; keep one of them.")
    fair = {*FAIR_RISING, *FAIR_FALLING}
    if sensitive and not fair & {getattr(rule, "metric", "") for rule in rules}:
        raise ValueError(
            f"sensitive attributes are declared and no rule asks {' or '.join(sorted(fair))}; "
            "nothing would be judged of them."
        )
    if LeastCost in map(type, rules) and costs is None:
        raise ValueError("LeastCost needs costs; declare what a false positive and negative cost.")


def _problems(
    rule: Rule, *, classes: int, costs: Costs | None, sensitive: Sequence[Sensitive]
) -> Iterator[str]:
    if isinstance(rule, LeastCost):
        if not 0 < rule.max_regret < math.inf:
            yield f"max_regret is {rule.max_regret}; give a finite number above 0."
        return
    metric, fair = rule.metric, (*FAIR_RISING, *FAIR_FALLING)
    yield from _unfit(rule)
    if metric in TWO_CLASSES and classes != 2:
        yield f"{metric} is of two classes; the workload has {classes}."
    if metric == "expected_cost" and costs is None:
        yield "expected_cost needs costs; declare what a false positive and a false negative cost."
    if metric in fair and not sensitive:
        yield f"{metric} needs sensitive attributes; declare them with their groups."


def _unfit(rule: AtLeast | AtMost | NoWorse) -> Iterator[str]:
    """Yield what is wrong with a rule of its kind for its metric, whatever the workload."""
    metric, models = rule.metric, (*RISING, *FALLING)
    floors, ceilings = (*RISING, *FAIR_RISING), (*FALLING, *FAIR_FALLING, *BUDGETS, DATA_AGE)
    if metric not in (*floors, *ceilings):
        yield f"there is no metric {metric!r}; there are {', '.join((*floors, *ceilings))}."
    elif isinstance(rule, AtLeast) and metric not in floors:
        yield f"{metric} is better when smaller, so a floor lets the worst pass; use AtMost."
    elif isinstance(rule, AtMost) and metric not in ceilings:
        yield f"{metric} is better when greater, so a ceiling refuses the best; use AtLeast."
    elif isinstance(rule, NoWorse) and metric not in models:
        yield f"{metric} is not compared with the champion's; use AtMost or AtLeast."
    if rule.slices and metric not in models:
        yield f"{metric} has no value on a slice; leave slices out."
    name = "margin" if isinstance(rule, NoWorse) else "value"
    limit, most = getattr(rule, name), 1 if metric in SHARES else math.inf
    if not 0 < limit < most:
        between = "between 0 and 1" if metric in SHARES else "above 0, and finite"
        yield f"{name} is {limit}; of {metric} it lies {between}."
