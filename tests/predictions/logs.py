"""Small real prediction logs for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from penstock.endpoint import Endpoint
from penstock.predictions import files
from penstock.request import STAMP, Contract, Feature
from serving.prediction_log import PredictionLog
from serving.seen import Seen

SALT = b"a secret of tests, 32 bytes long"
T0 = 4_000_000_000.0
"""Unix seconds of the first record; so late that it expires on no machine's clock."""


def contract(*names: str, hashed: tuple[str, ...] = (), kept_days: float = 90) -> Contract:
    """Return a contract of these features: ``n`` whole, ``m`` too and nullable, ``t`` a time."""
    kinds: dict[str, dict[str, Any]] = {
        "n": {"dtype": "int64"},
        "m": {"dtype": "int64", "nullable": True},
        "t": {"dtype": STAMP},
        "p": {"dtype": "list<element: float>", "length": 2},
    }
    endpoint = Endpoint(hashed=hashed, log_kept=timedelta(days=kept_days))
    return Contract(
        workload="tests",
        classes=2,
        threshold=None,
        rows=8,
        features=tuple(Feature(name=n, **kinds.get(n, {"dtype": "double"})) for n in names or "x"),
        endpoint=endpoint,
    )


def record(number: int = 0, **over: Any) -> dict[str, Any]:
    """Return a line of a journal."""
    return {
        "at": T0 + number,
        "request_id": f"r{number}",
        "user": "0" * 32,
        "bucket": 3,
        "arm": "champion",
        "market": "all",
        "mirrored": False,
        "slot": "a",
        "version": "1",
        "status": 200,
        "latency_ms": 1.5,
        "features": {"x": [0.5]},
        "label": [1],
        "probability": [0.75],
        "fallbacks": [],
        "stale": [],
        "spent_us": {"inference": 12.0},
        **over,
    }


def journal(
    folder: Path,
    records: Iterable[Mapping[str, Any]],
    *,
    of: Contract | None = None,
    at: float = T0,
    torn: bytes = b"",
) -> Path:
    """Write a journal that nobody holds, as a server that was killed leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    key = files.write_contract(folder, of or contract())
    path = folder / f"{files.new_stem(key, at=at)}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in records) + torn)
    return path


def opened(folder: Path, of: Contract | None = None, **over: Any) -> PredictionLog:
    """Return a server's log, started."""
    given: dict[str, Any] = {"slot": "a", "version": "1", "salt": SALT, **over}
    log = PredictionLog(folder, of or contract(), **given)
    log.start()
    return log


def seen(request_id: str, user: bytes | None = None, **columns: Any) -> Seen:
    """Return an answered request of one row, or as many as its columns have."""
    headers = {b"x-request-id": request_id.encode()}
    if user is not None:
        headers[b"x-user-id"] = user
    made = Seen(headers)
    made.columns = {k: np.asarray(v) for k, v in (columns or {"x": [0.5]}).items()}
    rows = len(next(iter(made.columns.values())))
    made.label, made.probability = [1] * rows, np.full(rows, 0.75, np.float32)
    made.status, made.latency_ms, made.spent_us = 200, 1.5, {"inference": 12.0}
    return made
