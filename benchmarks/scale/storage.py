"""Bytes of a million predictions: what the prediction log writes, beside the bare columns."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import read
from penstock.predictions import files
from penstock.predictions.keep import keep
from penstock.register.contract import contract_of
from penstock.request import Contract, instances
from serving.columns import Column
from serving.prediction_log import PredictionLog
from serving.seen import PARTS, Seen
from tests.serving import tables

RANKED = 20
"""Items of a request that ranks them for one user."""

ASKED = (("digits", 1), ("credit", 1), ("streamrec", 1), ("streamrec", RANKED))
"""Workloads, and how many rows each request asks about."""

MOST = 20_000
"""Rows of a workload that are logged."""

BARE_ID = 16
"""Bytes of a request's or a user's id."""

Figures = dict[str, Any]


def measured(folder: Path, *, workload: str, each: int, real: bool = True) -> Figures:
    """Return what a workload's predictions take, a million of them.

    Args:
        each: Rows of a request; each row is a prediction.
        real: Rows are the training snapshot's, made by the features stage; else drawn from what the
            contract allows, which compresses worse.
    """
    contract = contract_of(workloads.load(workload))
    found = _snapshot(workload, folder) if real else None
    rows = tables.rows(contract, 2_000) if found is None else found.select(contract.names)
    rows = rows.slice(0, min(MOST, len(rows)) // each * each)
    logged = folder / "log"
    _log(logged, contract, rows, each)
    journal = sum(path.stat().st_size for path in files.journals(logged))
    parquet = sum(path.stat().st_size for path in files.parquets(logged))
    bare = _bare(contract, len(rows), each)
    return {
        "workload": workload, "each": each, "rows": len(rows), "real": found is not None,
        # Bytes a row are megabytes a million rows.
        "journal_mb": journal / len(rows), "parquet_mb": parquet / len(rows),
        "bare_mb": bare / len(rows),
        "journal_to_bare": journal / bare, "parquet_to_bare": parquet / bare,
    }  # fmt: skip


def _snapshot(workload: str, folder: Path) -> pa.Table | None:
    """Return training rows as the features stage makes them, None where its data are not here."""
    out, program = folder / "snapshot", Path(sys.executable).parent / "penstock"
    done = subprocess.run(
        [program, "features", "--workload", workload, "--out", out],
        env={**os.environ, "PENSTOCK_HOME": str(folder / "home")},
        capture_output=True, check=False,
    )  # fmt: skip
    return pq.read_table(read(out).file("train.parquet")) if done.returncode == 0 else None


def _log(folder: Path, contract: Contract, rows: pa.Table, each: int) -> None:
    """Let a server's own log take requests for these rows; it ends with journal and Parquet."""
    rng = np.random.default_rng(1)
    log = PredictionLog(folder, contract, slot="a", version="12", salt=rng.bytes(32))
    log.start()
    sent, readers = instances(contract, rows), [Column(f) for f in contract.features]
    for first in range(0, len(rows), each):
        asked = sent[first : first + each]
        columns = {c.name: c.of_rows([row[c.name] for row in asked]) for c in readers}
        log.add(_seen(rng, columns, each))
    log.close(wait_s=60.0)
    assert log.counts == {"written": len(rows) // each, "dropped": 0, "failed": 0}
    keep(folder, now=time.time())
    assert not [*folder.glob(f"{files.REFUSED}*")]


def _seen(rng: np.random.Generator, columns: Mapping[str, Any], rows: int) -> Seen:
    """Return an answered request, with the headers that the edge gives it."""
    user = int(rng.integers(1_000_000))
    seen = Seen(
        {
            b"x-request-id": str(uuid.UUID(bytes=rng.bytes(16))).encode(),
            b"x-user-id": f"u{user}".encode(),
            b"x-rollout-bucket": str(user % 64).encode(),
            b"x-rollout-arm": b"champion",
            b"x-rollout-market": b"all",
        }
    )
    seen.columns, seen.status = columns, 200
    seen.label = rng.integers(0, 2, rows).tolist()
    chance: Any = rng.random(rows).astype(np.float32)
    seen.probability = chance
    seen.latency_ms = float(rng.gamma(4, 0.4))
    seen.spent_us = {part: round(float(rng.gamma(4, 10)), 1) for part in PARTS}
    return seen


def _bare(contract: Contract, rows: int, each: int) -> int:
    """Return the bytes of the least columns that say the same: ids, time, features, decision."""
    request = 2 * BARE_ID + 8
    row = 4 + 1 + sum(4 * f.length if f.length else 8 for f in contract.features)
    return rows // each * request + rows * row
