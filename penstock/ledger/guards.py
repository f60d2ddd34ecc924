"""The guards by which the database itself keeps the order, and whether they are still there.

The library checks first and says what to do; the guards hold for whoever writes SQL past it, in
SQLite and in PostgreSQL alike: entries come one after the other, chained, and never change; a move
begins where its version stands and is a step that the lifecycle has. Only the owner of the table
can take the guards away: then the ledger is not opened, and ``verify`` finds what was done without
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import sqlalchemy as sa

from penstock.ledger.entry import FIRST
from penstock.ledger.lifecycle import MOVED, REGISTERED, Stage
from penstock.ledger.roll import ENROLLED
from penstock.ledger.schema import LOCK, entries, is_step, metadata, there

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


def create(connection: sa.Connection) -> None:
    """Create the table and its guards, unless another did; the caller holds the writers' lock."""
    if there(connection):
        return
    metadata.create_all(connection)
    for statement in _guards(connection):
        connection.exec_driver_sql(statement)


def lacking(connection: sa.Connection) -> list[str]:
    """Return each guard of the table that is gone, another, or more than were made."""
    if connection.dialect.name == "sqlite":
        wanted, found = _sqlite_wanted(), _sqlite_found(connection)
    else:
        wanted, found = _postgresql_wanted(connection), _postgresql_found(connection)
    return [
        f"{name} is {'gone' if name not in found else 'not ours'}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]


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
                new_is_step=is_step("NEW.origin", "NEW.target"),
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


def _sqlite_found(connection: sa.Connection) -> dict[str, str]:
    """Return the statements that made the table and everything on it, by name."""
    found = connection.exec_driver_sql(
        "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = 'entries' AND sql IS NOT NULL"
    )
    return {f"{kind} {name}": " ".join(sql.split()) for kind, name, sql in found}


@cache
def _sqlite_wanted() -> dict[str, str]:
    """Return what a new ledger has."""
    engine = sa.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            create(connection)
            return _sqlite_found(connection)
    finally:
        engine.dispose()


def _schema_of(connection: sa.Connection) -> str:
    quote = connection.dialect.identifier_preparer.quote
    return quote(connection.exec_driver_sql("SELECT current_schema()").scalar_one())


def _postgresql_bodies(table: str) -> dict[str, str]:
    """Return the text of each trigger's function, by the name that both bear."""
    raised = "USING ERRCODE = 'integrity_constraint_violation'"
    checks = "\n".join(
        f"IF {when} THEN RAISE EXCEPTION 'ledger: {why}' {raised}; END IF;"
        for why, when in _refused(table)
    )
    order = f"PERFORM pg_catalog.pg_advisory_xact_lock({LOCK});\n{checks}\nRETURN NEW;"
    return {
        "entries_order": f" BEGIN {order} END ",
        "entries_kept": f" BEGIN RAISE EXCEPTION '{_KEPT}' {raised}; END ",
    }


_TRIGGERS = """
    SELECT t.tgname, t.tgenabled = 'A' AND t.tgqual IS NULL AND t.tgattr = ''::int2vector, t.tgtype,
        p.proname, p.prosrc, p.proconfig, l.lanname, p.pronamespace = c.relnamespace
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
        JOIN pg_language l ON l.oid = p.prolang
    WHERE t.tgrelid = %(table)s::regclass AND NOT t.tgisinternal"""
_CHECKS = """
    SELECT conname, convalidated FROM pg_constraint
    WHERE conrelid = %(table)s::regclass AND contype = 'c'"""
_RULES = "SELECT rulename FROM pg_rewrite WHERE ev_class = %(table)s::regclass"

_TYPES = {"entries_order": 1 + 2 + 4, "entries_kept": 2 + 8 + 16 + 32}
"""``pg_trigger.tgtype``: for each row 1, before 2, insert 4, delete 8, update 16, truncate 32."""


def _postgresql_found(connection: sa.Connection) -> dict[str, object]:
    """Return what guards the table, by name; of the checks only that they are there."""
    table = {"table": f"{_schema_of(connection)}.entries"}
    triggers = connection.exec_driver_sql(_TRIGGERS, table)
    return {
        **{f"trigger {name}": tuple(rest) for name, *rest in triggers},
        **{f"check {name}": valid for name, valid in connection.exec_driver_sql(_CHECKS, table)},
        **{f"rule {name}": True for (name,) in connection.exec_driver_sql(_RULES, table)},
    }


def _postgresql_wanted(connection: sa.Connection) -> dict[str, object]:
    bodies = _postgresql_bodies(f"{_schema_of(connection)}.entries")
    settings = [_LOOKS_IN.replace(" = ", "=")]
    return {
        **{
            f"trigger {name}": (True, _TYPES[name], name, body, settings, "plpgsql", True)
            for name, body in bodies.items()
        },
        **{
            f"check {c.name}": True
            for c in entries.constraints
            if isinstance(c, sa.CheckConstraint)
        },
    }


def _postgresql_guards(connection: sa.Connection) -> Iterator[str]:
    """Name the table with its schema: a temporary table of its name would be read instead."""
    named = _schema_of(connection)
    table = f"{named}.entries"
    for name, body in _postgresql_bodies(table).items():
        yield _function(f"{named}.{name}", body)
    yield (
        f"CREATE TRIGGER entries_order BEFORE INSERT ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {named}.entries_order()"
    )
    yield (
        f"CREATE TRIGGER entries_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {named}.entries_kept()"
    )
    # ALWAYS: also in a session that plays a replica, which skips ordinary triggers.
    for trigger in ("entries_order", "entries_kept"):
        yield f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"


_LOOKS_IN = "search_path = pg_catalog, pg_temp"


def _function(name: str, body: str) -> str:
    """Fix where names are looked up: a caller's schema could hold another ``=`` or ``max``."""
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET {_LOOKS_IN} AS $${body}$$"
    )
