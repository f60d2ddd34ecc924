"""Evidence: what the prediction log and the outcomes say of each arm since a step began."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Counts of one arm; latencies in milliseconds."""

    requests: int = 0
    errors: int = 0
    """Requests answered with a status of 500 or more."""

    slow: int = 0
    """Answered requests slower than the limit."""

    answered: int = 0
    labelled: int = 0
    """Answers whose outcome is known."""

    wrong: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known at one moment of one step."""

    champion: Arm
    challenger: Arm
    """Of live requests at a step with users, of mirrored ones in shadow."""

    compared: int = 0
    """Mirrored requests that both have answered."""

    disagreed: int = 0
    slow_limit_ms: float = 0.0
    newest_at: float | None = None
    """Unix seconds of the challenger's newest record."""

    alive: bool = True
    """Whether the challenger's process is up and ready."""


def read_new(path: Path, offset: int) -> tuple[list[Record], int]:
    """Return the complete lines of a growing JSON-lines file after ``offset``, and the new offset.

    A last line without its newline is still being written and is left for the next call.
    """
    try:
        with path.open("rb") as f:
            f.seek(offset)
            data = f.read()
    except FileNotFoundError:
        return [], offset
    whole = data[: data.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], offset + len(whole)


@dataclass(kw_only=True)
class LogReader:
    """Follows the prediction logs of both slots and the outcomes, and sums them up per step."""

    logs: Mapping[str, Path]
    """Folder of each slot's prediction log."""

    outcomes: Path
    """JSON lines with ``request_id`` and ``label``, written as labels become known."""

    _offsets: dict[Path, int] = field(default_factory=dict[Path, int])
    _records: list[Record] = field(default_factory=list[Record])
    _labels: dict[str, int] = field(default_factory=dict[str, int])

    def poll(self) -> None:
        """Take in what was written since the last call."""
        for folder in self.logs.values():
            for path in sorted(folder.glob("predictions-*.jsonl")):
                self._records += self._new(path)
        for record in self._new(self.outcomes):
            self._labels[record["request_id"]] = record["label"]

    def _new(self, path: Path) -> list[Record]:
        records, self._offsets[path] = read_new(path, self._offsets.get(path, 0))
        return records

    def forget_before(self, at: float) -> None:
        """Drop records older than a step's beginning; they are no evidence for it."""
        self._records = [r for r in self._records if r["at"] >= at]

    def evidence(
        self,
        *,
        since: float,
        champion: str | None,
        challenger: str,
        shadow: bool,
        slow_ratio: float,
        slow_floor_ms: float,
        alive: bool,
    ) -> Evidence:
        """Return the evidence of one step.

        Args:
            since: Unix seconds at which the step's table was confirmed.
            champion, challenger: Versions, as the servers name them.
            shadow: The challenger's mirrored requests count, not its live ones.
        """
        recent = [r for r in self._records if r["at"] >= since]
        one = [r for r in recent if r["version"] == champion and not r["mirrored"]]
        other = [r for r in recent if r["version"] == challenger and r["mirrored"] == shadow]
        p99 = _quantile(one, 0.99)
        limit = max(slow_floor_ms, slow_ratio * p99) if p99 is not None else slow_floor_ms
        compared, disagreed = _agreement(one, other)
        return Evidence(
            champion=self._arm(one, limit),
            challenger=self._arm(other, limit),
            compared=compared,
            disagreed=disagreed,
            slow_limit_ms=limit,
            newest_at=max((r["at"] for r in other), default=None),
            alive=alive,
        )

    def _arm(self, records: list[Record], limit_ms: float) -> Arm:
        answered = [r for r in records if r["status"] < 400]
        judged = list(self._judged(answered))
        return Arm(
            requests=len(records),
            errors=sum(r["status"] >= 500 for r in records),
            slow=sum(r["latency_ms"] > limit_ms for r in answered),
            answered=len(answered),
            labelled=len(judged),
            wrong=judged.count(False),
            p50_ms=_quantile(records, 0.5),
            p99_ms=_quantile(records, 0.99),
        )

    def _judged(self, answered: Iterable[Record]) -> Iterator[bool]:
        for record in answered:
            truth = self._labels.get(record["request_id"])
            if truth is not None and record["label"]:
                yield record["label"][0] == truth


def _quantile(records: list[Record], q: float) -> float | None:
    answered = [r["latency_ms"] for r in records if r["status"] < 400]
    return float(np.quantile(answered, q)) if answered else None


def _agreement(one: list[Record], other: list[Record]) -> tuple[int, int]:
    """Return how many requests both arms answered, and how many of those they decided otherwise."""
    decided = {r["request_id"]: r["label"] for r in one if r["label"]}
    both = [(decided[r["request_id"]], r["label"]) for r in other if r["request_id"] in decided]
    pairs = [(a, b) for a, b in both if b]
    return len(pairs), sum(a != b for a, b in pairs)
