"""Losses: what the counters of prediction logs say was lost, of the records since a moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What a log's counters said at one time."""

    at: float
    lost: int
    taken: int


NOTHING_YET = Counted(at=float("-inf"), lost=0, taken=0)


@dataclass(kw_only=True)
class Losses:
    """Counters of several logs, by whatever names them."""

    _counted: dict[str, list[Counted]] = field(default_factory=dict[str, list[Counted]])
    _problem: dict[str, str] = field(default_factory=dict[str, str])

    def note(self, log: str, held: Mapping[str, Any] | None, at: float) -> None:
        """Note what a log's counters say, where that is new.

        What was lost before they were first met may have been lost in the step that goes on, unless
        they were written before it. A log without any has lost nothing.

        Args:
            held: Its ``counters.json``; None where it has none, or none that can be read.
            at: Unix seconds at which that was written.
        """
        counted = self._counted.setdefault(log, [NOTHING_YET])
        if held is None:
            return
        lost = sum(_count(held.get(name)) for name in ("dropped", "failed"))
        found = Counted(at=at, lost=lost, taken=lost + _count(held.get("written")))
        problem = held.get("problem")
        self._problem[log] = problem if isinstance(problem, str) else ""
        if (found.lost, found.taken) != (counted[-1].lost, counted[-1].taken):
            counted.append(found)

    @property
    def problem(self) -> str:
        """What keeps a log from being written now; empty where nothing does."""
        return next(filter(None, self._problem.values()), "")

    def share(self, since: float) -> float:
        """Return the largest share of its records that any log has lost since then."""
        lost = [_lost(counted, since) for counted in self._counted.values()]
        return max((gone / taken for gone, taken in lost if taken), default=0.0)


def _lost(counted: list[Counted], since: float) -> tuple[int, int]:
    """Return how many records were lost since then, and how many there were."""
    first = [c for c in counted if c.at <= since][-1]
    return max(0, counted[-1].lost - first.lost), counted[-1].taken - first.taken


def _count(number: Any) -> int:
    return number if type(number) is int and number > 0 else 0
