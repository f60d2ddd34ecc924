"""Follow the prediction logs of both slots and the outcomes, and give each step its evidence.

Each record is taken once, whenever its journal is finished, becomes Parquet or goes away: both
files number their lines alike. What is kept of a record is some sixty bytes, so that the log of a
release need not fit into the memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.policy import Slice
from penstock.predictions import files
from penstock.rollout.arms import evidence_of
from penstock.rollout.evidence import Evidence
from penstock.rollout.judgement import Window
from penstock.rollout.lines import blocks, parquet, schema, told
from penstock.rollout.outcomes import Outcomes
from penstock.rollout.rows import Rows
from penstock.workload import Workload

MOST_SLICES = 64
"""As many as a record has bits for them."""


@dataclass(kw_only=True)
class Followed:
    """How far one journal was read; its Parquet file goes on at the same line."""

    offset: int = 0
    lines: int = 0
    done: bool = False
    """Nothing more will come: it was read from Parquet, or has expired."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What a log's counters said at one time."""

    at: float
    lost: int
    taken: int


NOTHING_YET = Counted(at=float("-inf"), lost=0, taken=0)


@dataclass(kw_only=True)
class LogReader:
    """Follows the prediction logs of both slots and the outcomes; see :class:`Reader`."""

    logs: Mapping[str, Path]
    """Folder of each slot's prediction log."""

    outcomes: Path
    """JSON lines with ``request_id`` and ``label`` or other numbers, as they become known."""

    since: float = 0.0
    """Unix seconds; files that were last written before are not opened."""

    declared: Workload | None = None
    """Whose slices are looked at; None has no slices and takes scores as of the decision."""

    _followed: dict[Path, Followed] = field(default_factory=dict[Path, Followed])
    _counted: dict[Path, list[Counted]] = field(default_factory=dict[Path, list[Counted]])
    _problem: dict[Path, str] = field(default_factory=dict[Path, str])

    def poll(self) -> None:
        """Take in what was written since the last call."""
        for folder in self.logs.values():
            for journal in self._journals(folder):
                for table in self._new(journal, self._followed.setdefault(journal, Followed())):
                    self.rows.take(table)
            self._count(folder / files.COUNTERS)
        self._outcomes.poll()

    def evidence(self, window: Window, *, now: float, alive: bool) -> Evidence:
        """Return the evidence of a step.

        Args:
            now: Unix seconds.
            alive: The challenger's process is up and ready.
        """
        found = evidence_of(self.rows, self._outcomes.values, window, now=now, alive=alive)
        lost = [self._lost(counted, window.since) for counted in self._counted.values()]
        share = max((gone / taken for gone, taken in lost if taken), default=0.0)
        problem = next(filter(None, self._problem.values()), "")
        return replace(
            found,
            unsliced=self._sliced[1],
            lost_share=share,
            conflict=found.conflict or problem,
        )

    @cached_property
    def rows(self) -> Rows:
        """What was taken from the logs."""
        classes = 0 if self.declared is None else self.declared.classes
        return Rows(slices=self._sliced[0], classes=classes)

    @cached_property
    def _outcomes(self) -> Outcomes:
        return Outcomes(path=self.outcomes)

    @cached_property
    def _sliced(self) -> tuple[tuple[Slice, ...], str]:
        """Return the slices that the log can tell, and why not the others."""
        if self.declared is None:
            return (), ""
        hashed = self.declared.endpoint.hashed
        seen = [part for part in self.declared.slices if part.column not in hashed]
        hidden = [part.name for part in self.declared.slices if part.column in hashed]
        why = [f"{name}: the log keeps its column as hashes" for name in hidden]
        why += [f"{part.name}: only {MOST_SLICES} are judged" for part in seen[MOST_SLICES:]]
        return tuple(seen[:MOST_SLICES]), "; ".join(why)

    @cached_property
    def _schema(self) -> pa.Schema:
        return schema(sorted({part.column for part in self._sliced[0]}))

    def _journals(self, folder: Path) -> list[Path]:
        """Return the journals, there still or not, that may hold something new."""
        named = {path.with_suffix(files.JOURNAL) for path in folder.glob("predictions-*")}
        done = {journal for journal, followed in self._followed.items() if followed.done}
        return sorted(named - done)

    def _new(self, journal: Path, followed: Followed) -> Iterator[pa.Table]:
        try:
            if _written_at(journal) < self.since:
                followed.done = not files.is_open(journal)
                return
            for data, offset in blocks(journal, followed.offset):
                followed.offset = offset
                followed.lines += len(data.splitlines())
                yield told(data, self._schema)
        except FileNotFoundError:
            followed.done = True  # a journal goes away only after its Parquet file is there
            yield from self._finished(journal.with_suffix(files.PARQUET), followed.lines)

    def _finished(self, path: Path, line: int) -> Iterator[pa.Table]:
        try:
            if _written_at(path) >= self.since:
                yield from parquet(path, self._schema, line=line)
        except FileNotFoundError:
            return  # it has expired

    def _count(self, path: Path) -> None:
        """Note what a log's counters say, where that is new.

        What was lost before they were first met may have been lost in the step that goes on, unless
        they were written before it. A folder without any has lost nothing.
        """
        try:
            held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            at = _written_at(path)
        except (OSError, ValueError):
            self._counted.setdefault(path, [NOTHING_YET])
            return
        lost = sum(_count(held.get(name)) for name in ("dropped", "failed"))
        found = Counted(at=at, lost=lost, taken=lost + _count(held.get("written")))
        counted = self._counted.setdefault(path, [NOTHING_YET])
        problem = held.get("problem")
        self._problem[path] = problem if isinstance(problem, str) else ""
        if (found.lost, found.taken) != (counted[-1].lost, counted[-1].taken):
            counted.append(found)

    def _lost(self, counted: list[Counted], since: float) -> tuple[int, int]:
        """Return how many records were lost since then, and how many there were."""
        first = [c for c in counted if c.at <= since][-1]
        return max(0, counted[-1].lost - first.lost), counted[-1].taken - first.taken


def _count(number: Any) -> int:
    return number if type(number) is int and number > 0 else 0


def _written_at(path: Path) -> float:
    return path.stat().st_mtime
