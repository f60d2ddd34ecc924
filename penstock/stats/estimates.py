"""Estimate: a number from a sample, with an interval at any level that is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

ALPHA = 0.05
"""Every interval that is shown is two-sided at 1 - ALPHA: each bound alone is wrong half of it."""

Bounds = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a sample says of a number."""

    value: float
    n: int
    """Rows it was made from."""

    at: Callable[[float], Bounds]
    """Bounds of the two-sided interval at level ``1 - alpha``; infinite where there is none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", cache(self.at))

    @property
    def bounds(self) -> Bounds:
        """Both bounds at ``ALPHA``."""
        return self.at(ALPHA)

    @property
    def low(self) -> float:
        """Lower bound at ``ALPHA``."""
        return self.at(ALPHA)[0]

    @property
    def high(self) -> float:
        """Upper bound at ``ALPHA``."""
        return self.at(ALPHA)[1]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; a bound that is not finite becomes None."""
        bounds = {"low": self.low, "high": self.high}
        finite = {name: b if math.isfinite(b) else None for name, b in bounds.items()}
        return {"value": self.value, **finite, "n": self.n}


def holm(broken: Sequence[Callable[[float], bool]], *, alpha: float = ALPHA) -> list[bool]:
    """Return which of several questions may be said to be broken, all of them together at once.

    However many of them are truly kept, the chance that any of those is said to be broken is at
    most half of ``alpha``: the level of one bound. With k questions left, each is asked at
    ``alpha / k``; those that are broken leave, and the rest is asked again.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65–70.

    Args:
        broken: Of each question, whether its interval at level ``1 - alpha`` lies wholly on the
            bad side. Whoever is broken at one level is broken at every greater alpha.
    """
    left = set(range(len(broken)))
    while left:
        leaving = {i for i in left if broken[i](alpha / len(left))}
        if not leaving:
            break
        left -= leaving
    return [i not in left for i in range(len(broken))]
