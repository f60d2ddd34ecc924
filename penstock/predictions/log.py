"""Predictions: a log read where it lies, by DuckDB, whatever of it is Parquet by now and what not.

Finished files are scanned in place, only the columns and row groups a query needs; journals that a
server still writes are read into memory, up to their last whole line. Files of models with other
features unite by name.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import FileInfo, FileSelector

from penstock.predictions import files
from penstock.predictions.files import COUNTERS, JOURNAL, PARQUET, REFUSED
from penstock.predictions.place import BROKEN, Place
from penstock.predictions.schema import empty, tabled

VIEW = "predictions"

HEARD_S = 2 * 3600.0
"""A pod that lives copies its counters every hour; of one that did not, no trouble lasts."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Records since the log's folders were made, by what became of them."""

    written: int = 0
    dropped: int = 0
    """As too many waited for a slow or full disk."""

    failed: int = 0
    """As no line could be made of them."""

    unreadable: int = 0
    """Lines that were put aside when their journal was finished."""

    problems: tuple[str, ...] = ()
    """What keeps servers from writing now."""


@dataclass(frozen=True)
class Predictions:
    """The log below one address: a slot's folder, all slots', or where copies are kept."""

    address: str | Path

    @contextmanager
    def connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a database with one view, ``predictions``: the log as it is now.

        Raises:
            OSError: The address cannot be read.
        """
        connection = duckdb.connect()
        try:
            connection.execute("SET TimeZone = 'UTC'")
            parts = self._parts()
            for name, part in parts.items():
                connection.register(name, part)
            united = " UNION ALL BY NAME ".join(f"FROM {name}" for name in parts)
            connection.execute(f"CREATE VIEW {VIEW} AS {united}")
            yield connection
        finally:
            connection.close()

    def sql(self, query: str, **values: Any) -> pa.Table:
        """Return what a query over ``predictions`` gives; ``$name`` stands for a value.

        DuckDB keeps the word ``at`` to itself: write ``"at"``.
        """
        with self.connected() as connection:
            return connection.sql(query, params=values).to_arrow_table()

    def table(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        version: str | None = None,
        columns: Sequence[str] = (),
    ) -> pa.Table:
        """Return rows in the order of time.

        Args:
            since, until: From the first, before the second.
            version: Of the model; all by default.
            columns: All by default.
        """
        named = ", ".join(f'"{name}"' for name in columns) or "* EXCLUDE (line)"
        where, values = within(since=since, until=until, version=version)
        query = f'SELECT {named} FROM {VIEW} WHERE {where} ORDER BY "at", request_id'  # noqa: S608
        return self.sql(query, **values)

    def losses(self) -> Losses:
        """Return what was lost, as far as it was counted; a store has each pod's counts, copied.

        Raises:
            OSError: The address cannot be read.
        """
        counted = [_counters(path) for path in self._local(COUNTERS)] + self._copied()
        aside = self._local(f"{REFUSED}*{JOURNAL}")
        untold = [p for p in self._local(f"predictions-*{JOURNAL}") if not files.contract_of(p)]
        return Losses(
            **{k: sum(c.get(k, 0) for c in counted) for k in ("written", "dropped", "failed")},
            unreadable=sum(path.read_bytes().count(b"\n") for path in aside),
            problems=(
                *(c["problem"] for c in counted if c.get("problem")),
                *(f"{path} is left out: its contract is not beside it" for path in untold),
                *(f"{path} is left out: {BROKEN}" for path in self._finished()[1]),
            ),
        )

    def _copied(self) -> list[dict[str, Any]]:
        """Return the counts that pods copied to a store, beside their workload's files."""
        place = Place.at(self.address)
        if place.local:
            return []
        everything = FileSelector(place.root, recursive=True, allow_not_found=True)
        return [
            _read_counters(place, info)
            for info in place.fs.get_file_info(everything)
            if info.base_name.startswith(files.COPIED) and info.base_name.endswith(".json")
        ]

    def _local(self, pattern: str) -> list[Path]:
        place = Place.at(self.address)
        return sorted(Path(place.root).rglob(pattern)) if place.local else []

    def _parts(self) -> dict[str, Any]:
        """Return what makes up the log, by the names that the view uses."""
        # Journals first: one that becomes Parquet meanwhile is found among the finished files.
        journals = dict(self._journals())
        finished, _ = self._finished()
        for path in finished:
            journals.pop(Path(path).stem, None)
        parts: dict[str, Any] = {"nothing": empty()}
        parts |= {f"journal_{n}": table for n, table in enumerate(journals.values())}
        alike: defaultdict[str, list[str]] = defaultdict(list)
        for path in finished:
            name = files.name_of(path)
            alike[name.contract if name else path].append(path)
        place = Place.at(self.address)
        for n, paths in enumerate(alike.values()):
            parts[f"finished_{n}"] = ds.dataset(paths, filesystem=place.fs, format="parquet")
        return parts

    def _finished(self) -> tuple[list[str], list[str]]:
        """Return the finished files, and what should be some but cannot be read."""
        place = Place.at(self.address)
        found = place.parquets()
        broken = place.broken(found)
        return [path for path in found if path not in broken], broken

    def _journals(self) -> Iterator[tuple[str, pa.Table]]:
        """Yield what is in journals only, by their stems."""
        for path in self._local(f"predictions-*{JOURNAL}"):
            contract = files.contract_of(path)
            if contract is None or path.with_suffix(PARQUET).exists():
                continue
            try:
                data = files.whole(path.read_bytes())
            except FileNotFoundError:
                continue
            yield path.stem, tabled(data, contract)[0]


def within(
    *, since: datetime | None = None, until: datetime | None = None, version: str | None = None
) -> tuple[str, dict[str, Any]]:
    """Return a condition on rows, and the values it names."""
    asked = {
        "since": ('"at" >= $since', since),
        "until": ('"at" < $until', until),
        "version": ("version = $version", version),
    }
    given = {name: (text, value) for name, (text, value) in asked.items() if value is not None}
    where = " AND ".join(text for text, _ in given.values()) or "true"
    return where, {name: value for name, (_, value) in given.items()}


def _counters(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"problem": f"{path} cannot be read"}


def _read_counters(place: Place, info: FileInfo) -> dict[str, Any]:
    try:
        with place.fs.open_input_file(info.path) as source:
            held = json.loads(source.read())
    except (OSError, ValueError):
        return {"problem": f"{info.path} cannot be read"}
    # What a pod could not write when it ended is no trouble now; what it lost stays lost.
    lives = time.time() - info.mtime_ns / 1e9 < HEARD_S
    return held if lives else {**held, "problem": ""}
