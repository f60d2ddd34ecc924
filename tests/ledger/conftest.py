"""Ledgers in both databases, and connections that write past the library."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from penstock.ledger import Ledger
from tests.postgres import Server, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for all tests of the ledger."""
    with postgres_server() as server:
        yield server


@dataclass(frozen=True)
class Place:
    """An empty database: its URL, and how to reach it without the library."""

    kind: str
    address: str
    """The file of SQLite, the connection string of PostgreSQL."""

    @property
    def url(self) -> str:
        """How SQLAlchemy reaches it."""
        if self.kind == "sqlite":
            return f"sqlite:///{self.address}"
        named = dict(part.split("=") for part in self.address.split())
        return "postgresql+psycopg://{user}@{host}:{port}/{dbname}".format(**named)

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements on a connection of its own, all or none; return the last one's rows."""
        connection: Any
        if self.kind == "sqlite":
            connection = sqlite3.connect(self.address)
            connection.execute("PRAGMA foreign_keys = OFF")
        else:
            connection = psycopg.connect(self.address)
        try:
            for statement in statements:
                cursor = connection.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
            connection.commit()
            return rows
        finally:
            connection.close()

    def insert(self, row: Mapping[str, Any], how: str = "INSERT") -> None:
        """Insert a row as it is."""
        values = ", ".join(_literal(v) for v in row.values())
        self.execute(f"{how} INTO entries ({', '.join(row)}) VALUES ({values})")

    def takes(self, row: Mapping[str, Any], how: str = "INSERT") -> bool:
        """Return whether the database takes a row."""
        try:
            self.insert(row, how)
        except REFUSED:
            return False
        return True

    def unguard(self) -> None:
        """Take away what guards the table, as its owner can."""
        if self.kind == "sqlite":
            guards = ("entries_order", "entries_no_update", "entries_no_delete")
            self.execute(*[f"DROP TRIGGER {name}" for name in guards])
        else:
            self.execute("ALTER TABLE entries DISABLE TRIGGER ALL")


REFUSED = (sqlite3.IntegrityError, psycopg.errors.IntegrityError)
"""How the databases refuse a statement."""


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return Place("sqlite", str(tmp_path / "ledger.db"))
    server: Server = request.getfixturevalue("postgres")
    return Place("postgresql", new_database(server))


def new_database(server: Server) -> str:
    """Return the connection string of a new database."""
    name = f"t{secrets.token_hex(6)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.dsn(name)


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    """An empty ledger."""
    held = Ledger(place.url)
    yield held
    held.close()
