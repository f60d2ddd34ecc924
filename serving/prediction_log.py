"""The prediction log: one JSON line for every inference request, written off the request path.

``predictions-<pid>.jsonl`` holds these keys: ``at`` (Unix seconds), ``request_id``, ``user``,
``bucket``, ``arm`` (what the edge said), ``mirrored`` (a copy whose answer is dropped), ``slot``,
``version``, ``status`` (HTTP), ``latency_ms``, ``features`` (values by name), ``label`` and
``probability`` (of the chosen class), one per row; what is not known is null. A line without its
newline is still being written. ``counters.json`` beside it counts lines written and dropped.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.bundle import write_json

QUEUE = 10_000
FLUSH_S = 0.2
COUNT_S = 1.0


class PredictionLog:
    """Takes records without ever waiting; what cannot be kept is counted."""

    def __init__(self, path: Path, *, size: int = QUEUE) -> None:
        """Append to ``path``; ``size`` records may wait to be written."""
        self._path = path
        self._queue: queue.Queue[Mapping[str, Any]] = queue.Queue(size)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._counts = {"written": 0, "dropped": 0}
        self._counted_at = 0.0
        self._whole = 0
        self._thread = threading.Thread(target=self._write_all, name="prediction-log", daemon=True)

    @property
    def counts(self) -> dict[str, int]:
        """Records written and dropped so far."""
        with self._lock:
            return dict(self._counts)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a record; a full queue drops and counts it."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._count(dropped=1)

    def close(self) -> None:
        """Write what waits, then stop."""
        self._stop.set()
        self._thread.join()

    def _count(self, *, written: int = 0, dropped: int = 0) -> None:
        with self._lock:
            self._counts["written"] += written
            self._counts["dropped"] += dropped

    def _write_all(self) -> None:
        self._whole = _whole_lines(self._path)
        while True:
            stopping = self._stop.is_set()
            self._write(self._waiting())
            self._save_counts(now=stopping)
            if stopping and self._queue.empty():
                return
            if not stopping:
                self._stop.wait(FLUSH_S)

    def _waiting(self) -> list[Mapping[str, Any]]:
        records: list[Mapping[str, Any]] = []
        while len(records) < self._queue.maxsize:
            try:
                records.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return records

    def _write(self, records: list[Mapping[str, Any]]) -> None:
        if not records:
            return
        lines = [json.dumps(r, separators=(",", ":"), default=_plain) for r in records]
        data = memoryview("".join(line + "\n" for line in lines).encode())
        done = 0
        try:
            with self._path.open("ab", buffering=0) as f:
                if f.tell() > self._whole:
                    f.truncate(self._whole)  # what a refusing disk tore off; no reader took it
                self._whole = f.tell()
                while done < len(data):
                    done += f.write(data[done:])
        except OSError:
            pass  # counted below
        kept = bytes(data[:done]).rfind(b"\n") + 1
        self._whole += kept
        written = bytes(data[:kept]).count(b"\n")
        self._count(written=written, dropped=len(records) - written)

    def _save_counts(self, *, now: bool) -> None:
        if not now and time.monotonic() - self._counted_at < COUNT_S:
            return
        self._counted_at = time.monotonic()
        try:
            write_json(self._path.with_name("counters.json"), self.counts)
        except OSError:
            return  # the disk that refuses the log refuses its counts; they stay in memory


def _plain(value: object) -> object:
    """Return a table as values by name, and times as microseconds, as they were sent."""
    if not isinstance(value, pa.Table):
        raise TypeError(f"a record holds {type(value).__name__}, which no line can.")
    return {
        name: _numbers(column)
        for name, column in zip(value.column_names, value.columns, strict=True)
    }


def _numbers(column: pa.ChunkedArray) -> list[Any]:
    is_time = pa.types.is_timestamp(column.type)
    return (column.cast(pa.int64()) if is_time else column).to_pylist()


def _whole_lines(path: Path) -> int:
    """Return the bytes up to a file's last newline; an earlier process may have torn a line."""
    try:
        return path.read_bytes().rfind(b"\n") + 1
    except OSError:
        return 0
