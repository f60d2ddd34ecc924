"""A PostgreSQL server of the test's own, on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packages import free_port

USER = "penstock"


@dataclass(frozen=True)
class Server:
    """Where it listens; its user may do everything and needs no password."""

    port: int

    def dsn(self, database: str = "postgres") -> str:
        """Return how psycopg reaches a database."""
        return f"host=127.0.0.1 port={self.port} dbname={database} user={USER}"


@contextmanager
def postgres_server() -> Iterator[Server]:
    """Run a PostgreSQL server on loopback; as root it would refuse, so it gets a user's rights."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [
        Path(p).parent for p in [shutil.which("initdb")] if p
    ]
    if not found:
        pytest.skip("needs PostgreSQL; on Debian: apt-get install postgresql")
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="penstock-pg-") as name:
        folder = Path(name)
        if as_user:
            shutil.chown(folder, "postgres")
        data, port, programs = folder / "data", free_port(), found[-1]

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [*as_user, str(programs / program), "-D", str(data), *arguments],
                check=True, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
            )  # fmt: skip

        run("initdb", "-U", USER, "-A", "trust", "--no-sync")
        listen = f"-p {port} -h 127.0.0.1 -k {folder} -F"
        run("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", listen)
        try:
            yield Server(port)
        finally:
            run("pg_ctl", "stop", "-m", "immediate")
