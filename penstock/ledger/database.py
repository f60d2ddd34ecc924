"""The database of a ledger: opened or refused, read, written, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from penstock.ledger import guards, schema
from penstock.ledger.entry import LedgerError, NoLedger

_T = TypeVar("_T")


class Database:
    """The database at a URL, with a table of entries in it."""

    def __init__(self, url: str, *, looking: bool) -> None:
        """Open the table, or create it.

        Args:
            looking: Only look: nothing is created, and the guards may be gone.

        Raises:
            NoLedger: There is none, and it was to be looked at.
            LedgerError: It does not answer, is of another release, or its guards are gone.
        """
        if looking and not schema.may_be_there(url):
            raise NoLedger(_nothing_at(url))
        self._engine = schema.connected(url)
        try:
            self._open(looking=looking)
        except LedgerError:
            self.close()
            raise

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    def unguarded(self) -> list[str]:
        """Return the guards of the table that are gone or another than they were made."""
        with self.reading() as connection:
            return guards.lacking(connection)

    def write(self, change: Callable[[sa.Connection], _T]) -> _T:
        """Carry out a change in a transaction of its own, after every other writer's."""
        try:
            with self.reading() as connection, connection.begin():
                schema.lock(connection)
                return change(connection)
        except exc.IntegrityError as e:
            said = str(e.orig).splitlines()[0]
            raise LedgerError(f"the database refused the entry: {said}.") from e

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection; what goes wrong on it becomes a LedgerError."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except exc.IntegrityError:
            raise
        except exc.OperationalError as e:
            raise LedgerError(f"the ledger at {self._shown} does not answer: {_said(e)}") from e
        except (exc.DBAPIError, exc.ArgumentError) as e:
            raise LedgerError(
                f"what is at {self._shown} cannot be used as a ledger: {_said(e)}. PENSTOCK_LEDGER "
                "or PENSTOCK_HOME names another."
            ) from e

    def _open(self, *, looking: bool) -> None:
        with self.reading() as connection:
            there = schema.there(connection)
            lacking = guards.lacking(connection) if there and not looking else []
        if lacking:
            raise LedgerError(
                f"the ledger at {self._shown} is not guarded as it was made: {', '.join(lacking)}. "
                "Nothing is read from it or entered. See what penstock ledger verify says, find "
                "who took the guards away, and bring the database back from its copy."
            )
        if not there and looking:
            raise NoLedger(_nothing_at(self._shown))
        if not there:
            self.write(guards.create)

    @property
    def _shown(self) -> str:
        """The address, without a password."""
        return self._engine.url.render_as_string()


def _nothing_at(url: str) -> str:
    return f"no ledger at {url}; set PENSTOCK_HOME or run something first."


def _said(error: exc.SQLAlchemyError) -> str:
    return " ".join(str(getattr(error, "orig", error)).split())
