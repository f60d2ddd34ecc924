"""Look at what the champion answered: evidence, features, scores, outcomes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from penstock.bundle import Bundle
from penstock.monitor import drift, health, performance, scores, seen
from penstock.monitor.drift import Moved
from penstock.monitor.performance import Realized
from penstock.monitor.seen import Seen
from penstock.predictions.log import Predictions
from penstock.predictions.outcomes import Told, join, read_outcomes
from penstock.request import Contract
from penstock.storage.store import Store
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Workload

MOST_BYTES = 1 << 30
"""Of a file of outcomes in a store; it is read whole."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Where and when to look."""

    predictions: str
    outcomes: str
    """Empty looks at none."""

    since: datetime
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Found:
    """Everything that was looked at."""

    asked: Asked
    version: int
    seen: Seen | None
    """None where the log could not be read."""

    evidence: tuple[Check, ...]
    """Whether there is anything to judge by."""

    quality: tuple[Check, ...] = ()
    """Whether answers come, from the model and from whole features."""

    moved: Moved | None = None
    """None where nothing was answered."""

    scores: tuple[Check, ...] = ()
    realized: tuple[Realized, ...] = ()
    """All rows first, then slices; none where no outcomes were named."""

    told: Told | None = None

    @property
    def drift(self) -> tuple[Check, ...]:
        """The checks of the features."""
        return () if self.moved is None else self.moved.drift

    @property
    def performance(self) -> tuple[Check, ...]:
        """The checks of what became of predictions."""
        return tuple(one.check for one in self.realized)

    @property
    def verdict(self) -> Verdict:
        """All checks: whether there is evidence first."""
        return Verdict(
            (*self.evidence, *self.quality, *self.drift, *self.scores, *self.performance)
        )


def look(declared: Workload, package: Bundle, version: int, asked: Asked) -> Found:
    """Return what was found of a version, beside what its package says of its training."""
    try:
        here = _read(declared, version, asked, asked.since)
    except OSError as e:
        error = Check(name="log", outcome=Outcome.ERROR, reason=f"it cannot be read: {e}")
        return Found(asked=asked, version=version, seen=None, evidence=(error,))
    watch = declared.watch
    evidence = health.evidence(here, watch, max_loss=declared.rollout.max_log_loss)
    quality = health.quality(here, watch)
    if not len(here.answered):
        return Found(
            asked=asked, version=version, seen=here, evidence=tuple(evidence),
            quality=tuple(quality),
        )  # fmt: skip
    moved = drift.judge(
        package.json("profile.json")["columns"],
        here.answered["features"],
        Contract.from_dict(package.json("serving.json")),
        watch,
        users=here.users,
    )
    realized, told, broken = _realized(declared, package, version, asked, here)
    said = scores.judge(package.json("scores.json"), here.answered, watch, users=here.users)
    return Found(
        asked=asked,
        version=version,
        seen=here,
        evidence=(*evidence, *broken),
        quality=(*quality, *moved.missing),
        moved=moved,
        scores=tuple(said),
        realized=realized,
        told=told,
    )


def _read(declared: Workload, version: int, asked: Asked, since: datetime) -> Seen:
    return seen.read(
        asked.predictions, workload=declared.name, version=version, since=since, until=asked.until
    )


def _realized(
    declared: Workload, package: Bundle, version: int, asked: Asked, here: Seen
) -> tuple[tuple[Realized, ...], Told | None, Sequence[Check]]:
    """Return how right it was by its outcomes; an error where they cannot be read."""
    if not asked.outcomes:
        return (), None, ()
    since = asked.since - declared.label_delay
    try:
        table, unreadable = outcomes_at(asked.outcomes)
        if declared.label_delay:
            here = _read(declared, version, asked, since)
        joined = join(
            Predictions(asked.predictions),
            table,
            unreadable=unreadable,
            since=since,
            until=asked.until,
            version=str(version),
            expected=declared.label_delay or None,
        )
    except OSError as e:
        reason = f"{asked.outcomes} cannot be read: {e}"
        return (), None, [Check(name="outcomes", outcome=Outcome.ERROR, reason=reason)]
    rows = performance.rows_of(declared, joined.table, here.answered)
    found = performance.judge(declared, declared.watch, rows, package.json("scores.json"))
    return tuple(found), joined.told, ()


def outcomes_at(address: str) -> tuple[pa.Table, int]:
    """Return the outcomes at an address, and how many of their lines are none.

    Args:
        address: A file of JSON lines, or a folder of ``*.jsonl``, as a release reads them; a path
            or in an object store.

    Raises:
        OSError: They cannot be read.
        ValueError: It is no address.
    """
    tables, unreadable = list[pa.Table](), 0
    for held in _files(address):
        with tempfile.TemporaryDirectory() as scratch:
            copied = Path(scratch) / "outcomes.jsonl"
            copied.write_bytes(held)
            table, none = read_outcomes(copied)
        tables.append(table)
        unreadable += none
    return pa.concat_tables(tables), unreadable


def _files(address: str) -> Iterator[bytes]:
    """Yield each file at an address, in the order of their names."""
    folder, _, name = address.rpartition("/")
    above = Store.at(folder or ".")
    within = Store.at(address)
    names = [] if name.endswith(".jsonl") else sorted(within.sizes())
    parts = [(within, one) for one in names if one.endswith(".jsonl")] or [(above, name)]
    for store, one in parts:
        held = store.read(one, at_most=MOST_BYTES)
        if held is None:
            raise FileNotFoundError(f"there is no {address}, nor a *.jsonl below it")
        yield held
