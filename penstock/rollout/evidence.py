"""Evidence: what the prediction log and the outcomes say of each arm since a step began."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.predictions import files

Record = Mapping[str, Any]

TOLD = (
    "at",
    "arm",
    "request_id",
    "version",
    "mirrored",
    "status",
    "latency_ms",
    "label",
    "fallbacks",
)
"""What evidence needs of a record."""

STOOD_IN = "failed:"
"""Beginning of a fallback that answered because the model could not."""

TOO_MANY_REQUESTS = 429

LEAST_P99 = 100
"""Requests below which a p99 is but the slowest of them."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Counts of one arm; latencies in milliseconds."""

    requests: int = 0
    errors: int = 0
    """Requests that the version failed: status 500 or more, refused for load (429), or answered by
    what stood in for its model."""

    refused: int = 0
    """Requests that it says are the user's fault: other statuses from 400 to 499."""

    repeated: int = 0
    """Requests whose id another one of the arm has: neither compared nor judged by an outcome, for
    which of them is meant is not known."""

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

    before: Arm = Arm()
    """The champion at the step before: at the last step no user is left with it."""

    compared: int = 0
    """Mirrored requests that the champion answered, and the challenger was not too busy for."""

    disagreed: int = 0
    """Of those, how many the challenger decided otherwise, failed or refused."""

    slow_limit_ms: float = 0.0
    newest_at: float | None = None
    """Unix seconds of the challenger's newest record."""

    alive: bool = True
    """Whether the challenger's process is up and ready."""


def read_new(path: Path, offset: int) -> tuple[list[Record], int]:
    """Return the complete lines of a growing JSON-lines file after ``offset``, and the new offset.

    A last line without its newline is still being written and is left for the next call; one that
    is no record, as a crash may leave it, is passed over.
    """
    try:
        lines, offset = _lines_after(path, offset)
    except FileNotFoundError:
        return [], offset
    return list(_records(lines)), offset


def _lines_after(path: Path, offset: int) -> tuple[list[bytes], int]:
    with path.open("rb") as f:
        f.seek(offset)
        data = files.whole(f.read())
    return data.splitlines(keepends=True), offset + len(data)


def _records(lines: Iterable[bytes]) -> Iterator[Record]:
    for line in lines:
        try:
            record = orjson.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield cast("Record", record)


@dataclass(kw_only=True)
class Followed:
    """How far one journal was read; its Parquet file goes on at the same line."""

    offset: int = 0
    lines: int = 0
    done: bool = False
    """Nothing more will come: it was read from Parquet, or has expired."""


@dataclass(kw_only=True)
class LogReader:
    """Follows the prediction logs of both slots and the outcomes, and sums them up per step.

    Each record is taken once, whenever its journal is finished, becomes Parquet or goes away: both
    files number their lines alike.
    """

    logs: Mapping[str, Path]
    """Folder of each slot's prediction log."""

    outcomes: Path
    """JSON lines with ``request_id`` and ``label``, written as labels become known."""

    since: float = 0.0
    """Unix seconds; files that were last written before are not opened."""

    _followed: dict[Path, Followed] = field(default_factory=dict[Path, Followed])
    _outcomes_offset: int = 0
    _records: list[Record] = field(default_factory=list[Record])
    _labels: dict[str, int] = field(default_factory=dict[str, int])
    _champion: Arm = Arm()
    _before: Arm = Arm()

    def poll(self) -> None:
        """Take in what was written since the last call."""
        for folder in self.logs.values():
            for journal in self._journals(folder):
                followed = self._followed.setdefault(journal, Followed())
                self._records += _told(self._new(journal, followed))
        found, self._outcomes_offset = read_new(self.outcomes, self._outcomes_offset)
        for record in found:
            named, label = record.get("request_id"), record.get("label")
            # What is compared is the decision on a request's first row.
            if isinstance(named, str) and type(label) is int and record.get("row", 0) == 0:
                self._labels[named] = label

    def _journals(self, folder: Path) -> list[Path]:
        """Return the journals, there still or not, that may hold something new."""
        named = {path.with_suffix(files.JOURNAL) for path in folder.glob("predictions-*")}
        done = {journal for journal, followed in self._followed.items() if followed.done}
        return sorted(named - done)

    def _new(self, journal: Path, followed: Followed) -> list[Record]:
        parquet = journal.with_suffix(files.PARQUET)
        try:
            if _written_at(journal) < self.since:
                followed.done = not files.is_open(journal)
                return []
            lines, followed.offset = _lines_after(journal, followed.offset)
            followed.lines += len(lines)
            return list(_records(lines))
        except FileNotFoundError:
            followed.done = True  # a journal goes away only after its Parquet file is there
        try:
            if _written_at(parquet) < self.since:
                return []
            return _rows_from(parquet, followed.lines)
        except FileNotFoundError:
            return []

    def forget_before(self, at: float) -> None:
        """Drop records older than a step's beginning; they are no evidence for it.

        What the champion's came to is kept, to hold the next step's challenger against.
        """
        self._before, self._champion = self._champion, Arm()
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
        # What the champion answered for a challenger that could not is no request of its own users.
        own = [r for r in recent if r["arm"] != "challenger" or r["version"] == challenger]
        one = [r for r in own if r["version"] == champion and not r["mirrored"]]
        other = [r for r in recent if r["version"] == challenger and r["mirrored"] == shadow]
        p99 = self._usual_p99_ms(one)
        limit = max(slow_floor_ms, slow_ratio * p99) if p99 is not None else slow_floor_ms
        compared, disagreed = _agreement(_once(one), _once(other))
        self._champion = self._arm(one, limit)
        return Evidence(
            champion=self._champion,
            challenger=self._arm(other, limit),
            before=self._before,
            compared=compared,
            disagreed=disagreed,
            slow_limit_ms=limit,
            newest_at=max((r["at"] for r in other), default=None),
            alive=alive,
        )

    def _usual_p99_ms(self, one: list[Record]) -> float | None:
        """Return the champion's p99: at the last step, where it has no users, the one before."""
        if len(one) < LEAST_P99 and self._before.p99_ms is not None:
            return self._before.p99_ms
        return _quantile(list(filter(_answered, one)), 0.99)

    def _arm(self, records: list[Record], limit_ms: float) -> Arm:
        answered, errors = list(filter(_answered, records)), sum(map(_failed, records))
        once = _once(records)
        judged = list(self._judged(r for r in once if _answered(r)))
        return Arm(
            requests=len(records),
            errors=errors,
            refused=len(records) - len(answered) - errors,
            repeated=len(records) - len(once),
            slow=sum(r["latency_ms"] > limit_ms for r in answered),
            answered=len(answered),
            labelled=len(judged),
            wrong=judged.count(False),
            p50_ms=_quantile(answered, 0.5),
            p99_ms=_quantile(answered, 0.99),
        )

    def _judged(self, answered: Iterable[Record]) -> Iterator[bool]:
        for record in answered:
            truth = self._labels.get(record["request_id"])
            if truth is not None and record["label"]:
                yield record["label"][0] == truth


def _written_at(path: Path) -> float:
    return path.stat().st_mtime


def _told(records: Iterable[Record]) -> Iterator[Record]:
    """Give what evidence needs of records; features of a whole release would fill the memory."""
    for record in records:
        if record.get("at") is not None:
            yield {key: record.get(key) for key in TOLD}


def _rows_from(parquet: Path, line: int) -> list[Record]:
    """Return the records of a finished journal from one of its lines on, as they were in it."""
    table = pq.read_table(parquet, columns=["line", *TOLD])
    rest = table.filter(pc.greater_equal(table["line"], line)).filter(pc.field("at").is_valid())
    microseconds = rest["at"].cast(pa.int64()).to_pylist()
    rows = rest.drop_columns(["line", "at"]).to_pylist()
    return [{**row, "at": us / 1e6} for row, us in zip(rows, microseconds, strict=True)]


def _failed(record: Record) -> bool:
    """Return whether the version could not answer, though the user may have got an answer."""
    status: int = record["status"]
    if status >= 500 or status == TOO_MANY_REQUESTS:
        return True
    stood_in: list[str] | None = record["fallbacks"]
    return bool(stood_in) and any(way.startswith(STOOD_IN) for way in stood_in)


def _answered(record: Record) -> bool:
    return record["status"] < 400 and not _failed(record)


def _once(records: list[Record]) -> list[Record]:
    """Return those whose id no other has: clients may send the same id again and again."""
    times = Counter(r["request_id"] for r in records)
    return [r for r in records if times[r["request_id"]] == 1]


def _quantile(answered: list[Record], q: float) -> float | None:
    return float(np.quantile([r["latency_ms"] for r in answered], q)) if answered else None


def _agreement(one: list[Record], other: list[Record]) -> tuple[int, int]:
    """Return how many copies can be compared, and how many of those were not decided alike.

    One that failed or was refused, while the champion answered, is not alike; what was refused for
    load says nothing of decisions.
    """
    decided = {r["request_id"]: r["label"] for r in one if _answered(r) and r["label"]}
    copies = [r for r in other if r["request_id"] in decided and r["status"] != TOO_MANY_REQUESTS]
    compared = [r for r in copies if r["label"] or not _answered(r)]
    alike = sum(_answered(r) and r["label"] == decided[r["request_id"]] for r in compared)
    return len(compared), len(compared) - alike
