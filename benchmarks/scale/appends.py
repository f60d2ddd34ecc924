"""Ledger appends a second, chained and signed, beside bare inserts into the same database."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.ledger import measured as ledger_measured
from tests.people import person
from tests.postgres import postgres_server

SYNCED = 50
SIGNED = 2_000

Figures = dict[str, Any]


def measured(*, entries: int) -> Figures:
    """Return the figures of SQLite on disk and of PostgreSQL where it is here, and of a signature.

    The PostgreSQL server is the tests' own and does not wait for its disk; what one such wait takes
    is told besides.
    """
    found: Figures = {"entries": entries, "signature_us": _signature_us(), "sync_ms": _sync_ms()}
    for name, there in (("SQLite", sqlite), ("PostgreSQL", postgresql)):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            try:
                url = stack.enter_context(there(Path(folder)))
            except pytest.skip.Exception:
                continue
            found[name] = ledger_measured(url, Path(folder), entries)
    return found


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    """Yield the address of a new file."""
    yield f"sqlite:///{folder / 'ledger.db'}"


@contextmanager
def postgresql(_folder: Path) -> Iterator[str]:
    """Yield the address of an empty database."""
    with postgres_server() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE scale")
        yield f"postgresql+psycopg://penstock@127.0.0.1:{server.port}/scale"


def _signature_us() -> float:
    actor, begun = person(), time.process_time()
    for n in range(SIGNED):
        actor.sign(n.to_bytes(32))
    return 1e6 * (time.process_time() - begun) / SIGNED


def _sync_ms() -> float:
    """Return what it takes here until a few bytes are on the disk."""
    with tempfile.NamedTemporaryFile() as file:
        begun = time.perf_counter()
        for _ in range(SYNCED):
            file.write(b"x" * 512)
            file.flush()
            os.fsync(file.fileno())
        return 1000 * (time.perf_counter() - begun) / SYNCED
