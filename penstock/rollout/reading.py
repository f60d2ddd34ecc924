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

import pyarrow as pa

from penstock.policy import Slice
from penstock.predictions import files
from penstock.rollout.arms import evidence_of
from penstock.rollout.evidence import Evidence
from penstock.rollout.judgement import Window
from penstock.rollout.lines import blocks, parquet, schema, told
from penstock.rollout.losses import Losses
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
    _losses: Losses = field(default_factory=Losses)

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
        return replace(
            found,
            unsliced=self._slices[1],
            lost_share=self._losses.share(window.since),
            conflict=found.conflict or self._losses.problem,
        )

    @cached_property
    def rows(self) -> Rows:
        """What was taken from the logs."""
        classes = 0 if self.declared is None else self.declared.classes
        return Rows(slices=self._slices[0], classes=classes)

    @cached_property
    def _outcomes(self) -> Outcomes:
        return Outcomes(path=self.outcomes)

    @cached_property
    def _slices(self) -> tuple[tuple[Slice, ...], str]:
        return sliced(self.declared)

    @cached_property
    def _schema(self) -> pa.Schema:
        return schema(sorted({part.column for part in self._slices[0]}))

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
        try:
            held, at = json.loads(path.read_text(encoding="utf-8")), _written_at(path)
        except (OSError, ValueError):
            held, at = None, 0.0
        self._losses.note(str(path), held, at)


def sliced(declared: Workload | None) -> tuple[tuple[Slice, ...], str]:
    """Return the slices of a workload that a log can tell, and why not the others."""
    if declared is None:
        return (), ""
    hashed = declared.endpoint.hashed
    seen = [part for part in declared.slices if part.column not in hashed]
    hidden = [part.name for part in declared.slices if part.column in hashed]
    why = [f"{name}: the log keeps its column as hashes" for name in hidden]
    why += [f"{part.name}: only {MOST_SLICES} are judged" for part in seen[MOST_SLICES:]]
    return tuple(seen[:MOST_SLICES]), "; ".join(why)


def _written_at(path: Path) -> float:
    return path.stat().st_mtime
