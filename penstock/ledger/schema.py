"""The table of entries, and the guards by which the database itself keeps the order.

The library checks first and says what to do; the guards hold for whoever writes SQL past it, in
SQLite and in PostgreSQL alike: entries come one after the other, chained, and never change; a move
begins where its version stands and is a step that the lifecycle has. Only the owner of the table
can take the guards away, and ``verify`` then finds what was done without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from penstock.ledger.entry import FIRST, LedgerError
from penstock.ledger.lifecycle import MOVED, REGISTERED, STEPS, Stage
from penstock.ledger.roll import ENROLLED, REVOKED


def _is_step(origin: str, target: str) -> str:
    return " OR ".join(f"({origin} = '{o}' AND {target} = '{t}')" for o, t in STEPS)


_metadata = sa.MetaData()
entries = sa.Table(
    "entries",
    _metadata,
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
        "target IS NULL OR " + _is_step("origin", "target"), name="entries_move_is_a_step"
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

LOCK = 7_241_050_331
"""PostgreSQL's advisory lock that writers of a ledger take, any 64-bit number of our own."""

_SAME = "e.workload = NEW.workload AND e.version = NEW.version"
_REFUSED = {
    "the sequence is not the next": """
        NEW.sequence <> (SELECT coalesce(max(e.sequence), 0) + 1 FROM {entries} e)""",
    "previous is not the hash of the last entry": """
        NEW.previous <> coalesce(
            (SELECT e.hash FROM {entries} e ORDER BY e.sequence DESC LIMIT 1), '{first}')""",
    # In SQLite, INSERT OR REPLACE would remove the older entry without asking the DELETE guard.
    "this hash is there already": """
        EXISTS (SELECT 1 FROM {entries} e WHERE e.hash = NEW.hash)""",
    "the first entry enrols its actor": """
        NEW.sequence = 1 AND NEW.kind <> '{enrolled}'""",
    # The table's CHECKs once more: in SQLite a connection can switch those off.
    "a move has origin, target and version, and nothing else has": """
        (NEW.kind = '{moved}') <> (NEW.target IS NOT NULL)
        OR (NEW.target IS NOT NULL AND (NEW.origin IS NULL OR NEW.version IS NULL))""",
    "the lifecycle has no such step": """
        NEW.target IS NOT NULL AND NOT ({new_is_step})""",
    "a move begins where its version stands": """
        NEW.target IS NOT NULL AND NEW.origin <> coalesce(
            (SELECT e.target FROM {entries} e WHERE {same} AND e.kind = '{moved}'
            ORDER BY e.sequence DESC LIMIT 1), '{none}')""",
    "a version is registered before it is staged": """
        NEW.target = '{staging}' AND NOT EXISTS
            (SELECT 1 FROM {entries} e WHERE {same} AND e.kind = '{registered}')""",
    "the version is registered already": """
        NEW.kind = '{registered}' AND EXISTS
            (SELECT 1 FROM {entries} e WHERE {same} AND e.kind = '{registered}')""",
}
"""What an insert is refused for, and the condition of it in the SQL of both databases."""

_KEPT = "the ledger is append-only"


def connected(url: str) -> sa.Engine:
    """Return an engine for the database at a URL; the folder of a SQLite file is made."""
    if url.startswith(SQLITE):
        Path(url.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        return sa.create_engine(url, connect_args={"timeout": WAIT_S})
    # After waiting for the lock a writer must see what the one before it wrote.
    return sa.create_engine(url, isolation_level="READ COMMITTED")


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


def create(connection: sa.Connection) -> None:
    """Create the table and its guards, unless another did; the caller holds the writers' lock."""
    if there(connection):
        return
    _metadata.create_all(connection)
    for statement in _guards(connection):
        connection.exec_driver_sql(statement)


def lock(connection: sa.Connection) -> None:
    """Wait until no other writer is appending, and keep others waiting until the end."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{WAIT_S}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")


def _guards(connection: sa.Connection) -> Iterator[str]:
    if connection.dialect.name == "sqlite":
        yield from _sqlite_guards()
    else:
        yield from _postgresql_guards(connection)


def _refused(table: str) -> Iterator[tuple[str, str]]:
    """Yield why an insert into this table is refused, and when."""
    for why, when in _REFUSED.items():
        yield (
            why,
            when.format(
                entries=table,
                same=_SAME,
                new_is_step=_is_step("NEW.origin", "NEW.target"),
                first=FIRST,
                enrolled=ENROLLED,
                moved=MOVED,
                registered=REGISTERED,
                none=Stage.NONE,
                staging=Stage.STAGING,
            ),
        )


def _sqlite_guards() -> Iterator[str]:
    checks = "\n".join(
        f"SELECT RAISE(ABORT, 'ledger: {why}') WHERE {when};"
        for why, when in _refused(entries.name)
    )
    yield f"CREATE TRIGGER entries_order BEFORE INSERT ON entries BEGIN\n{checks}\nEND"
    for verb in ("UPDATE", "DELETE"):
        yield (
            f"CREATE TRIGGER entries_no_{verb.lower()} BEFORE {verb} ON entries "
            f"BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END"
        )


def _postgresql_guards(connection: sa.Connection) -> Iterator[str]:
    """Name the table with its schema: a temporary table of its name would be read instead."""
    quote = connection.dialect.identifier_preparer.quote
    schema = quote(connection.exec_driver_sql("SELECT current_schema()").scalar_one())
    table = f"{schema}.entries"
    raised = "USING ERRCODE = 'integrity_constraint_violation'"
    checks = "\n".join(
        f"IF {when} THEN RAISE EXCEPTION 'ledger: {why}' {raised}; END IF;"
        for why, when in _refused(table)
    )
    yield _function(
        f"{schema}.entries_order",
        f"PERFORM pg_catalog.pg_advisory_xact_lock({LOCK});\n{checks}\nRETURN NEW;",
    )
    yield _function(f"{schema}.entries_kept", f"RAISE EXCEPTION '{_KEPT}' {raised};")
    yield (
        f"CREATE TRIGGER entries_order BEFORE INSERT ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {schema}.entries_order()"
    )
    yield (
        f"CREATE TRIGGER entries_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {schema}.entries_kept()"
    )
    # ALWAYS: also in a session that plays a replica, which skips ordinary triggers.
    for trigger in ("entries_order", "entries_kept"):
        yield f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"


def _function(name: str, body: str) -> str:
    """Fix where names are looked up: a caller's schema could hold another ``=`` or ``max``."""
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql "
        f"SET search_path = pg_catalog, pg_temp AS $$ BEGIN {body} END $$"
    )
