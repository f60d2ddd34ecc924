"""The latency budget of a request: what each part may take, and what each took."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.stats.intervals import at_least, at_most
from penstock.verdict import Check, Outcome, Verdict

TOGETHER = "together"
"""Of a verdict: the request over all parts that were measured."""

TAIL = 0.01
"""Share of requests that may take longer: a limit is one for p99."""

ALPHA = 0.05
"""Of each check, one-sided."""


@dataclass(frozen=True)
class Budget:
    """Milliseconds of p99 by part, in the order in which a request goes through them."""

    parts_ms: Mapping[str, float]

    def __post_init__(self) -> None:
        wrong = {part: ms for part, ms in self.parts_ms.items() if not 0 < ms < np.inf}
        if wrong or not self.parts_ms:
            raise ValueError(
                f"a latency budget names parts and their milliseconds, each more than 0; "
                f"it has {wrong or 'no part'}."
            )

    @property
    def total_ms(self) -> float:
        """The whole request's. That p99s add up is a bound: not all parts are slow at once."""
        return sum(self.parts_ms.values())

    @property
    def shares(self) -> dict[str, float]:
        """What each part may take of the whole; they add up to 1."""
        return {part: ms / self.total_ms for part, ms in self.parts_ms.items()}

    def faster(self, part: str, times: float) -> Budget:
        """Return the budget with one part so many times as fast.

        >>> Budget({"network": 55.0, "inference": 45.0}).faster("inference", 2).total_ms
        77.5

        Raises:
            ValueError: There is no such part, or the factor is not above 0.
        """
        if part not in self.parts_ms:
            raise ValueError(f"no part {part!r}; the budget has {', '.join(self.parts_ms)}.")
        if not 0 < times < np.inf:
            raise ValueError(f"{part!r} {times} times as fast is no speed; give more than 0.")
        return Budget({**self.parts_ms, part: self.parts_ms[part] / times})

    def gain(self, part: str, times: float) -> float:
        """Return how many times as fast the whole is when one part is (Amdahl's law).

        Raises:
            ValueError: As :meth:`faster`.
        """
        return self.total_ms / self.faster(part, times).total_ms


def compare(
    budget: Budget,
    spent_ms: Mapping[str, NDArray[Any]],
    whole_n: NDArray[Any],
    *,
    avoidable: Collection[str] = (),
) -> Verdict:
    """Set what requests took beside what they may take.

    Args:
        spent_ms: Milliseconds of each request in a part, shape [m] for those that went through it.
        whole_n: Milliseconds of each request over all those parts, shape [n]. It is held against
            their sum: what nobody measured here, such as the network, is not in it.
        avoidable: Parts that a request may do without, such as a look-up. Where all did, such a
            part took no time, which is not the same as that nobody measured it.

    A part passes where it is shown that at most one in a hundred requests takes longer in it. A
    part that nobody measured is inconclusive, and one that was measured but is in no budget is an
    error: the whole would be over while no part is.

    Raises:
        ValueError: A time is negative or not finite.
    """
    checks = [
        _avoided(part, limit_ms, len(whole_n))
        if part in avoidable and len(whole_n) and not len(spent_ms.get(part, ()))
        else _check(part, limit_ms, spent_ms.get(part, np.empty(0)))
        for part, limit_ms in budget.parts_ms.items()
    ]
    checks += [
        Check(
            name=part,
            outcome=Outcome.ERROR,
            reason=f"p99 {_ms(_p99(taken_n))}, and no budget; declare one",
            value=_p99(taken_n),
        )
        for part, taken_n in spent_ms.items()
        if part not in budget.parts_ms and len(taken_n)
    ]
    measured = [ms for part, ms in budget.parts_ms.items() if len(spent_ms.get(part, ()))]
    return Verdict((*checks, _check(TOGETHER, sum(measured) or budget.total_ms, whole_n)))


def _avoided(name: str, limit_ms: float, n: int) -> Check:
    reason = f"none of {n:,} requests needed it, at most {_ms(limit_ms)}"
    return Check(name=name, outcome=_outcome(0, n), reason=reason, value=0.0, limit=limit_ms)


def _check(name: str, limit_ms: float, taken_n: NDArray[Any]) -> Check:
    n = len(taken_n)
    if not n:
        reason = f"not measured, at most {_ms(limit_ms)}"
        return Check(name=name, outcome=Outcome.INCONCLUSIVE, reason=reason, limit=limit_ms)
    if not (np.isfinite(taken_n).all() and (taken_n >= 0).all()):
        raise ValueError(f"{name}: a time is negative or not finite; take them from one clock.")
    p99_ms = _p99(taken_n)
    over = int((taken_n > limit_ms).sum())
    reason = (
        f"p99 {_ms(p99_ms)}, at most {_ms(limit_ms)} ({p99_ms / limit_ms:.2g}x); "
        f"{over:,} of {n:,} over"
    )
    outcome = _outcome(over, n)
    return Check(name=name, outcome=outcome, reason=reason, value=p99_ms, limit=limit_ms)


def _outcome(over: int, n: int) -> Outcome:
    if at_most(over, n, alpha=ALPHA) <= TAIL:
        return Outcome.PASS
    return Outcome.FAIL if at_least(over, n, alpha=ALPHA) > TAIL else Outcome.INCONCLUSIVE


def _p99(taken_n: NDArray[Any]) -> float:
    return float(np.quantile(taken_n, 1 - TAIL))


def _ms(milliseconds: float) -> str:
    """Return a time as it is read.

    >>> [_ms(ms) for ms in (100.0, 4.21, 0.0123)]
    ['100 ms', '4.21 ms', '0.0123 ms']
    """
    return f"{milliseconds:.3g} ms"
