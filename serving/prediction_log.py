"""The prediction log: one JSON line for every inference request, written off the request path.

A line holds these keys: ``at`` (Unix seconds), ``request_id``, ``user`` (a salted hash),
``bucket``, ``arm`` and ``market`` (what the edge said), ``mirrored`` (a copy whose answer is
dropped), ``slot``, ``version``, ``status`` (HTTP), ``latency_ms``, ``features`` (values by name,
one per row; salted hashes of those that the endpoint declares so), ``label`` and ``probability``
(of the chosen class), one per row, ``fallbacks``, ``stale`` and ``spent_us``; what is not known is
null. A line without its newline is still being written. ``counters.json`` beside it counts what
was written and lost.

Lines are on the disk ``FLUSH_S`` later: so much a crash loses. :mod:`penstock.predictions` reads
them, and says how they become Parquet.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.predictions import files
from penstock.predictions.hashing import Hasher
from penstock.request import Contract
from serving.journal import Journal
from serving.rotation import Keeper
from serving.seen import Seen

FLUSH_S = 0.2
QUEUE_BYTES = 64 << 20
"""Lines that may wait for a disk that is slow or full."""

ROLL_BYTES, ROLL_S = 64 << 20, 3600.0
ROLLED = "seconds after which a journal is finished, and copied where copies are kept"
COUNT_S = 1.0
CLOSE_S = 4.0
"""How long a server that ends lets its last lines be copied away.

Its supervisor kills it ``DRAIN_S`` after asking, of which requests in flight take their part; what
was not copied by then is copied at the next start.
"""

_CHUNK = 256 << 10
_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE

said = logging.getLogger("serving")


def seconds(text: str) -> float:
    """Return a number of seconds of a command line.

    Raises:
        ValueError: It is none above 0.
    """
    found = float(text)
    if not 0 < found < float("inf"):
        raise ValueError(f"{text} is no time above 0")
    return found


class PredictionLog:
    """Takes records without ever waiting; what cannot be kept is counted."""

    def __init__(
        self,
        folder: Path,
        contract: Contract,
        *,
        slot: str,
        version: str,
        salt: bytes,
        queue_bytes: int = QUEUE_BYTES,
        roll_bytes: int = ROLL_BYTES,
        roll_s: float = ROLL_S,
    ) -> None:
        """Write below ``folder``, from :meth:`start` on.

        Args:
            salt: Secret of the hashes.
            queue_bytes: Lines that may wait to be written.

        Raises:
            ValueError: The salt is too short to be a secret.
        """
        self._folder, self._slot, self._version = folder, slot, version
        self._hasher = Hasher(salt)
        self._hashed = contract.endpoint.hashed
        self._most = queue_bytes
        self._journal = Journal(folder, contract, roll_bytes=roll_bytes, roll_s=roll_s)
        self._keeper = Keeper(folder)
        self._lines: deque[bytes] = deque()
        self._chunk: list[bytes] = []
        # Each of these has one thread that writes it, so none needs a lock.
        self._taken_bytes = self._dropped = self._failed = 0
        self._settled_bytes = self._written = self._lost = 0
        self._earlier: Mapping[str, int] = {}
        self._counted_at, self._problem, self._dropped_then = 0.0, "", 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="prediction-log", daemon=True)

    @property
    def counts(self) -> dict[str, int]:
        """Records of this process: on the disk, dropped as too many waited, and not writable."""
        return {
            "written": self._written,
            "dropped": self._dropped + self._lost,
            "failed": self._failed,
        }

    @property
    def waiting_bytes(self) -> int:
        """Lines that were taken and are not on the disk yet."""
        return self._taken_bytes - self._settled_bytes

    @property
    def problem(self) -> str:
        """Why lines are being lost or wait, now; empty when all is well."""
        return self._problem

    def start(self) -> None:
        """Begin to write; finish what an earlier process left."""
        self._earlier = _counted(self._folder)
        self._thread.start()

    def add(self, seen: Seen) -> None:
        """Take a record, from one thread; a full queue drops and counts it, nothing raises.

        The line is made here, in some microseconds: made in batches by the thread that writes,
        it would keep the interpreter from answering for milliseconds at a time.
        """
        if self._taken_bytes - self._settled_bytes >= self._most:
            self._dropped += 1
            return
        try:
            line = orjson.dumps(self._record(seen), default=_plain, option=_JSON)
        except Exception:  # noqa: BLE001 - the answer is sent; no record may undo that
            self._failed += 1
            return
        self._taken_bytes += len(line)
        self._lines.append(line)

    def close(self, *, wait_s: float = CLOSE_S) -> None:
        """Write what waits, then stop.

        Args:
            wait_s: For the last copies, where finished files are copied away.
        """
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._keeper.close(wait_s)

    def _record(self, seen: Seen) -> dict[str, Any]:
        user, columns = seen.user, seen.columns
        if columns is not None and self._hashed:
            columns = self._hide(columns)
        return {
            "at": seen.at,
            "request_id": seen.request_id,
            "user": None if user is None else self._hasher.user(user),
            "bucket": seen.bucket,
            "arm": seen.arm,
            "market": seen.market,
            "mirrored": seen.mirrored,
            "slot": self._slot,
            "version": self._version,
            "status": seen.status,
            "latency_ms": round(seen.latency_ms, 3),
            "features": columns,
            "label": seen.label,
            "probability": seen.probability,
            "fallbacks": seen.fallbacks,
            "stale": seen.stale,
            "spent_us": seen.spent_us,
        }

    def _hide(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        hidden: dict[str, Any] = dict(columns)
        for name in self._hashed:
            if name in hidden:
                hidden[name] = [self._hash(name, value) for value in hidden[name]]
        return hidden

    def _hash(self, name: str, value: Any) -> str | None:
        """Return a value's hash, the same for 3 and 3.0; that it is missing stays visible."""
        if np.ndim(value) == 0 and np.isnan(value):
            return None
        return self._hasher.feature(name, np.asarray(value, np.float64).tobytes())

    def _write_all(self) -> None:
        while True:
            stopping = self._stop.is_set()
            self._flush()
            if stopping or self._journal.due():
                self._journal.finish()
                self._keeper.due()
            if stopping:
                self._give_up()
            self._save_counts(now=stopping)
            if stopping:
                return
            self._keeper.look()
            self._stop.wait(FLUSH_S)

    def _flush(self) -> None:
        problem = ""
        while self._lines or self._chunk:
            self._fill()
            try:
                kept = self._journal.append(self._chunk)
            except Exception as e:  # noqa: BLE001 - without this thread all that comes is lost
                problem = f"{self._folder} cannot be written: {getattr(e, 'strerror', '') or e}"
                break
            self._written += kept
            self._settled_bytes += sum(map(len, self._chunk[:kept]))
            del self._chunk[:kept]
        self._notice(problem)

    def _fill(self) -> None:
        """Take as many waiting lines as are joined in no time."""
        length = sum(map(len, self._chunk))
        while self._lines and length < _CHUNK:
            line = self._lines.popleft()
            length += len(line)
            self._chunk.append(line)

    def _notice(self, problem: str) -> None:
        """Alarm when records begin to be lost or to wait for a disk, and when that is over."""
        dropped, self._dropped_then = self._dropped - self._dropped_then, self._dropped
        if not problem and dropped:
            problem = f"{self._folder} is written too slowly"
        if problem and not self._problem:
            said.error(
                "prediction log: %s; requests are answered, their records wait and are then lost",
                problem,
            )
        elif self._problem and not problem:
            said.warning(
                "prediction log: writing again; %d records were lost since the start", self._dropped
            )
        changed = bool(problem) != bool(self._problem)
        self._problem = problem
        if changed:
            self._save_counts(now=True)

    def _give_up(self) -> None:
        """Count what the disk has not taken when the server ends."""
        lines = len(self._lines) + len(self._chunk)
        self._lines.clear()
        self._chunk.clear()
        self._lost += lines

    def _save_counts(self, *, now: bool) -> None:
        """Leave the sums since the folder was made, for who looks from outside."""
        if not now and time.monotonic() - self._counted_at < COUNT_S:
            return
        self._counted_at = time.monotonic()
        sums = {k: n + self._earlier.get(k, 0) for k, n in self.counts.items()}
        document = {**sums, "problem": self._problem}
        _leave(self._folder / files.COUNTERS, json.dumps(document, indent=1).encode())


def _leave(path: Path, data: bytes) -> None:
    """Write a small file, on a full disk over what is there, which needs no space."""
    try:
        files.replace(path, data, durable=False)
    except OSError:
        try:
            with path.open("r+b", buffering=0) as f:
                f.write(data)
                f.truncate()
        except OSError:
            return  # they stay in memory, where metrics find them


def _counted(folder: Path) -> dict[str, int]:
    """Return what earlier processes counted."""
    try:
        found = json.loads((folder / files.COUNTERS).read_text(encoding="utf-8"))
        return {k: n for k, n in found.items() if isinstance(n, int)}
    except (OSError, ValueError, AttributeError):
        return {}


def _plain(value: Any) -> Any:
    """Return what orjson does not write itself, as an array that is not contiguous."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a record holds {type(value).__name__}, which no line can.")
