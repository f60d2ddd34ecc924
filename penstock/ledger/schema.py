"""The table of entries, and how its database is reached."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc

from penstock.ledger.entry import LedgerError
from penstock.ledger.lifecycle import MOVED, STEPS
from penstock.ledger.roll import ENROLLED, REVOKED


def is_step(origin: str, target: str) -> str:
    """Return the condition, in SQL, that the lifecycle has this step."""
    return " OR ".join(f"({origin} = '{o}' AND {target} = '{t}')" for o, t in STEPS)


metadata = sa.MetaData()
entries = sa.Table(
    "entries",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("workload", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=True),
    sa.Column("origin", sa.Text, nullable=True),
    sa.Column("target", sa.Text, nullable=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("signature", sa.Text, nullable=False),
    sa.CheckConstraint("sequence > 0", name="entries_counted"),
    sa.CheckConstraint(
        f"(kind = '{MOVED}') = (target IS NOT NULL) AND (target IS NULL) = (origin IS NULL)",
        name="entries_move_is_whole",
    ),
    sa.CheckConstraint("target IS NULL OR version IS NOT NULL", name="entries_move_has_version"),
    sa.CheckConstraint(
        "target IS NULL OR " + is_step("origin", "target"), name="entries_move_is_a_step"
    ),
    sa.CheckConstraint(
        f"(kind IN ('{ENROLLED}', '{REVOKED}')) = (subject IS NOT NULL) "
        "AND (subject IS NOT NULL) = (workload = '')",
        name="entries_subject_is_an_actor",
    ),
    # A text where a number belongs would be another version to SQL and the same one to a reader.
    sqlite_strict=True,
)
sa.Index("entries_of_version", entries.c.workload, entries.c.version, entries.c.kind)
sa.Index("entries_of_actor", entries.c.subject)

SQLITE = "sqlite:///"

WAIT_S = 30
"""How long a writer waits for another before it gives up."""

PATIENCE = {
    "connect_timeout": 10,
    "tcp_user_timeout": 30_000,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""Settings of PostgreSQL's client, in its words and units, where the address names none: a server
that has gone silent is given up within half a minute and not waited for."""

LOCK = 7_241_050_331
"""PostgreSQL's advisory lock that writers of a ledger take, any 64-bit number of our own."""


def connected(url: str) -> sa.Engine:
    """Return an engine for the database at a URL; the folder of a SQLite file is made.

    Raises:
        LedgerError: It is no URL of a database, or its folder cannot be made.
    """
    try:
        if url.startswith(SQLITE):
            Path(url.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
            return sa.create_engine(url, connect_args={"timeout": WAIT_S})
        # After waiting for the lock a writer must see what the one before it wrote. A connection
        # that the server ended since it was used is none that does not answer.
        return sa.create_engine(
            url,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            connect_args=_patience(sa.make_url(url)),
        )
    except (exc.ArgumentError, ImportError, OSError, ValueError) as e:
        # The address itself is not repeated: it may hold a password.
        raise LedgerError(
            f"the ledger's address cannot be used: {e}. Say sqlite:///PATH or "
            "postgresql+psycopg://USER@HOST/DATABASE in PENSTOCK_LEDGER."
        ) from e


def may_be_there(url: str) -> bool:
    """Return whether there could be a ledger at a URL: connecting would make a SQLite file."""
    return not url.startswith(SQLITE) or Path(url.removeprefix(SQLITE)).is_file()


def there(connection: sa.Connection) -> bool:
    """Return whether the table is there.

    Raises:
        LedgerError: There is one of another form.
    """
    inspector = sa.inspect(connection)
    if not inspector.has_table(entries.name):
        return False
    found = {c["name"] for c in inspector.get_columns(entries.name)}
    if found != set(entries.columns.keys()):
        raise LedgerError(
            f"{connection.engine.url.render_as_string()} holds a ledger of another release, whose "
            "entries are not signed. Keep a copy of it, move it away and register again: what it "
            "says cannot be signed afterwards."
        )
    return True


def lock(connection: sa.Connection) -> None:
    """Wait until no other writer is appending, and keep others waiting until the end."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{WAIT_S}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")


def _patience(url: sa.URL) -> dict[str, int]:
    """Return what of our patience an address leaves to us; none of another database's."""
    if url.get_backend_name() != "postgresql":
        return {}
    return {name: value for name, value in PATIENCE.items() if name not in url.query}
