"""Stored: evidence from the finished logs that serving pods copy to one place, wherever that is.

A pod's disk is nobody else's, and goes with it. So what is read here is what was copied: finished
Parquet files, each taken once, and beside them the counters that say what was lost before. Pods
finish their files at different times; a reader is therefore asked about a while ago, when all of
them have come, and keeps what is younger until then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from penstock.predictions import files
from penstock.predictions.place import Place
from penstock.rollout.arms import evidence_of
from penstock.rollout.evidence import Evidence
from penstock.rollout.judgement import Window
from penstock.rollout.lines import parquet, schema
from penstock.rollout.losses import Losses
from penstock.rollout.outcomes import Outcomes
from penstock.rollout.reading import sliced
from penstock.rollout.rows import Rows
from penstock.workload import Workload

EVERY_S = 5.0
"""Between two looks at what has come; a store counts them."""

HEARD_S = 2 * 3600.0
"""A pod that lives copies its counters every hour, whatever it cannot write."""


@dataclass(kw_only=True)
class StoredReader:
    """Follows what is copied of one workload; see :class:`penstock.rollout.judgement.Reader`."""

    at: Callable[[], Place]
    """Returns the workload's folder; raises OSError where the store is not reached."""

    outcomes: Callable[[], Place] | None = None
    """Returns the folder of outcomes: ``*.jsonl``, each whole, or longer at the next look."""

    since: float = 0.0
    """Unix seconds; files that were last written before are not opened."""

    declared: Workload | None = None
    every_s: float = EVERY_S
    monotonic: Callable[[], float] = time.monotonic

    problem: str = ""
    """Why what has come cannot be read now; empty where it can."""

    _looked_s: float = float("-inf")
    _done: set[str] = field(default_factory=set[str])
    _waiting: list[pa.Table] = field(default_factory=list[pa.Table])
    _losses: Losses = field(default_factory=Losses)
    _offsets: dict[str, int] = field(default_factory=dict[str, int])

    def poll(self) -> None:
        """Take in what has come since the last call.

        A store that does not answer is no reason to stop looking after a release: what it hides
        makes the evidence an error, and silence in the end takes users back.
        """
        if self.monotonic() - self._looked_s < self.every_s:
            return
        self._looked_s = self.monotonic()
        try:
            self._take_all()
            self.problem = ""
        except Exception as e:  # noqa: BLE001 - what nobody can read must not keep users there
            self.problem = f"the copied log cannot be read: {e}"

    def evidence(self, window: Window, *, now: float, alive: bool) -> Evidence:
        """Return the evidence of a step, as it was at a time by which everything has come.

        Args:
            now: Unix seconds of that time; it does not go back.
            alive: The challenger's pods are up and ready.
        """
        self._ripen(now)
        known = {} if self.outcomes is None else self._results.values
        found = evidence_of(self.rows, known, window, now=now, alive=alive)
        return replace(
            found,
            unsliced=self._slices[1],
            lost_share=self._losses.share(window.since),
            conflict=found.conflict or self.problem or self._losses.problem,
        )

    @cached_property
    def rows(self) -> Rows:
        """What was taken, and is old enough."""
        classes = 0 if self.declared is None else self.declared.classes
        return Rows(slices=self._slices[0], classes=classes)

    @cached_property
    def _slices(self) -> Any:
        return sliced(self.declared)

    @cached_property
    def _schema(self) -> pa.Schema:
        return schema(sorted({part.column for part in self._slices[0]}))

    @cached_property
    def _results(self) -> Outcomes:
        return Outcomes()

    def _take_all(self) -> None:
        place = self.at()
        for info in _listed(place):
            name = info.path.rsplit("/", 1)[-1]
            if name.startswith(files.COPIED):
                self._count(place, info)
            elif name.startswith("predictions-") and name.endswith(files.PARQUET):
                self._take(place, info)
        if self.outcomes is not None:
            self._take_outcomes(self.outcomes())

    def _count(self, place: Place, info: fs.FileInfo) -> None:
        held, at = _json(place, info.path), info.mtime_ns / 1e9
        if held is not None and at < self.since - HEARD_S:
            # A disk that was full when its pod ended is full no more.
            held = {**held, "problem": ""}
        self._losses.note(info.path, held, at)

    def _take(self, place: Place, info: fs.FileInfo) -> None:
        if info.path in self._done:
            return
        if info.mtime_ns / 1e9 >= self.since:
            # All of a file or nothing: what is left of a broken one is no evidence.
            self._waiting += list(_tables(place, info.path, self._schema))
        self._done.add(info.path)

    def _take_outcomes(self, place: Place) -> None:
        for info in _listed(place):
            offset = self._offsets.get(info.path, 0)
            if info.path.endswith(".jsonl") and info.size > offset:
                with place.fs.open_input_file(info.path) as f:
                    f.seek(offset)
                    data = files.whole(f.read())
                self._results.take(data)
                self._offsets[info.path] = offset + len(data)

    def _ripen(self, now: float) -> None:
        """Take over the rows that are not younger than a time."""
        waiting: list[pa.Table] = []
        for table in self._waiting:
            young = pc.greater(table["at"], now)
            self.rows.take(table.filter(pc.invert(young)))
            left = table.filter(young)
            if len(left):
                waiting.append(left)
        self._waiting = waiting


def _listed(place: Place) -> list[fs.FileInfo]:
    """Return the files of a folder, or the one object that is named, by name."""
    here = place.fs.get_file_info(place.root)
    if here.is_file:
        return [here]
    asked = fs.FileSelector(place.root, allow_not_found=True, recursive=False)
    found: list[fs.FileInfo] = [i for i in place.fs.get_file_info(asked) if i.is_file]
    return sorted(found, key=lambda info: info.path)


def _tables(place: Place, path: str, wanted: pa.Schema) -> Iterator[pa.Table]:
    try:
        with place.fs.open_input_file(path) as f:
            yield from parquet(f, wanted, line=0)
    except FileNotFoundError:
        return  # it has expired


def _json(place: Place, path: str) -> dict[str, Any] | None:
    try:
        with place.fs.open_input_file(path) as f:
            held = json.loads(f.read())
    except (ValueError, FileNotFoundError):
        return None
    return cast("dict[str, Any]", held) if isinstance(held, dict) else None
