"""The database itself keeps the order: whoever writes SQL past the library is refused too."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from penstock.ledger import MOVED, REGISTERED, Head, Ledger, Stage
from penstock.ledger.entry import Draft, sealed
from tests.ledger.conftest import REFUSED, Place
from tests.ledger.steps import ALL_THE_WAY, NOW, move, register
from tests.people import person

ON_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("place", ["postgresql"], indirect=True)

REPLICA = "SET session_replication_role = replica"
ANOTHER_OPERATOR = """
    CREATE SCHEMA eve;
    CREATE FUNCTION eve.no(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
    CREATE OPERATOR eve.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = eve.no);
    SET search_path = eve, pg_catalog, public"""

NOTE = Draft(workload="digits", version=1, kind="note", body={})
STAGED = replace(
    NOTE,
    version=2,
    kind=MOVED,
    body={"to": "STAGING", "reason": "t"},
    origin="NONE",
    target="STAGING",
)


def row(ledger: Ledger, draft: Draft, **over: Any) -> dict[str, Any]:
    """Return the row of a draft behind the head, well signed, and then changed."""
    return {**sealed(draft, after=ledger.head(), actor=person(), now=NOW), **over}


def moved(origin: str, target: str, version: int = 1) -> Draft:
    """Return the draft of a move."""
    body = {"to": target, "reason": "t"}
    return replace(STAGED, version=version, origin=origin, target=target, body=body)


@pytest.fixture
def staged(ledger: Ledger) -> Ledger:
    """A ledger in which version 1 is staged and version 2 registered."""
    register(ledger, 1)
    move(ledger, 1, Stage.STAGING)
    register(ledger, 2)
    return ledger


def test_a_right_row_is_taken_even_from_outside(staged: Ledger, place: Place):
    """The guards refuse what breaks the order and nothing else."""
    place.insert(row(staged, NOTE))
    place.insert(row(staged, STAGED))
    place.insert(row(staged, moved("STAGING", "SHADOW")))

    assert staged.verify() == 7


def unlawful() -> list[Draft]:
    """Return moves that are none: for version 1, which is staged, unless they say another."""
    lawful = {("STAGING", "SHADOW"), ("STAGING", "ARCHIVED")}
    shadow = moved("STAGING", "SHADOW")
    return [
        *[moved(o, t) for o in Stage for t in Stage if (o, t) not in lawful],
        moved("NONE", "STAGING", version=3),
        moved("NONE", "SHADOW", version=2),
        replace(shadow, version=None),
        replace(shadow, kind="note"),
        replace(NOTE, kind=MOVED),
        replace(NOTE, target="PRODUCTION"),
        replace(NOTE, subject="eve"),
        replace(NOTE, kind=REGISTERED),
    ]


def test_a_move_that_the_lifecycle_does_not_have_is_refused(staged: Ledger, place: Place):
    """From any stage to any, a stage left out, from where it does not stand, or half a move."""
    before = staged.head()

    for draft in unlawful():
        assert not place.takes(row(staged, draft)), draft

    assert staged.head() == before


MISPLACED: list[dict[str, Any]] = [
    *[{"sequence": n} for n in (-1, 0, 1, 4, 6)],
    {"previous": "0" * 64},
    {"previous": "f" * 64},
    *[{column: None} for column in ("signature", "hash", "kind", "previous", "sequence")],
]


def test_an_entry_has_its_one_place(staged: Ledger, place: Place):
    """A gap, a place that is taken, a fork: none is written, and nothing is written over."""
    before = list(staged.rows())

    for over in MISPLACED:
        assert not place.takes(row(staged, NOTE, **over)), over

    assert list(staged.rows()) == before


@ON_SQLITE
@pytest.mark.parametrize("how", ["REPLACE", "IGNORE"])
def test_sqlite_resolves_no_conflict_by_writing_over(staged: Ledger, place: Place, how: str):
    """The words by which an INSERT can ask for it change nothing."""
    before = list(staged.rows())

    for over in MISPLACED:
        # Taken without a word or not: IGNORE leaves a row with a NULL out.
        place.takes(row(staged, NOTE, **over), f"INSERT OR {how}")

    assert list(staged.rows()) == before


@ON_SQLITE
@pytest.mark.parametrize("how", ["INSERT", "INSERT OR REPLACE"])
def test_an_insert_cannot_take_an_older_entry_away(staged: Ledger, place: Place, how: str):
    """A hash that is there already would let SQLite's REPLACE remove its entry."""
    older = staged.entries()[1].hash

    with pytest.raises(REFUSED, match="this hash is there already"):
        place.insert(row(staged, NOTE, hash=older), how)

    assert staged.verify() == 4


def test_what_is_written_stays(staged: Ledger, place: Place):
    """Neither changed nor removed."""
    before = list(staged.rows())

    for statement in (
        "UPDATE entries SET actor = 'x'",
        "UPDATE entries SET target = 'PRODUCTION' WHERE sequence = 3",
        "DELETE FROM entries",
        "DELETE FROM entries WHERE sequence = 4",
    ):
        with pytest.raises(REFUSED, match="append-only"):
            place.execute(statement)

    assert list(staged.rows()) == before


def test_an_empty_ledger_begins_with_who_may_write(ledger: Ledger, place: Place):
    """The first entry enrols."""
    with pytest.raises(REFUSED, match="the first entry enrols its actor"):
        place.insert(row(ledger, NOTE))


@ON_SQLITE
def test_sqlite_without_its_checks_still_keeps_the_order(staged: Ledger, place: Place):
    """A connection that switches the table's CHECKs off meets the same refusals."""
    skipping = row(staged, moved("STAGING", "PRODUCTION"))
    half = row(staged, moved("STAGING", "SHADOW"), origin=None)
    for bad in (skipping, half):
        values = ", ".join("NULL" if v is None else repr(v) for v in bad.values())
        with pytest.raises(sqlite3.IntegrityError, match="ledger: "):
            place.execute(
                "PRAGMA ignore_check_constraints = ON",
                "PRAGMA foreign_keys = OFF",
                "PRAGMA recursive_triggers = OFF",
                f"INSERT INTO entries ({', '.join(bad)}) VALUES ({values})",
            )


@ON_SQLITE
def test_sqlite_takes_no_text_for_a_number(staged: Ledger, place: Place):
    """A version that SQL sees as another than a reader does could stand at two stages."""
    for version in ("x'31'", "1.5", "'one'"):
        bad = row(staged, NOTE, version=None)
        values = ", ".join("NULL" if v is None else repr(v) for v in bad.values())
        statement = f"INSERT INTO entries ({', '.join(bad)}) VALUES ({values})"
        with pytest.raises(sqlite3.IntegrityError, match="cannot store"):
            place.execute(statement.replace("NULL", version, 1))


@ON_POSTGRESQL
@pytest.mark.parametrize(
    "way",
    [
        "SET search_path = pg_temp, public",
        REPLICA,
        "SET default_transaction_isolation = 'serializable'",
        ANOTHER_OPERATOR,
    ],
    ids=["temporary table", "replica", "isolation", "another operator"],
)
def test_postgresql_cannot_be_led_to_look_elsewhere(staged: Ledger, place: Place, way: str):
    """A shadowing table or operator, a replica's session: the guards read the real entries."""
    bad = row(staged, moved("STAGING", "PRODUCTION"))
    skipping = row(staged, moved("CANARY", "PRODUCTION"))
    for tried in (bad, skipping):
        values = ", ".join("NULL" if v is None else f"'{v}'" for v in tried.values())
        with pytest.raises(psycopg.errors.IntegrityError):
            place.execute(
                "CREATE TEMPORARY TABLE entries (LIKE public.entries)",
                "INSERT INTO pg_temp.entries SELECT * FROM public.entries",
                "UPDATE pg_temp.entries SET target = 'CANARY' WHERE target IS NOT NULL",
                way,
                f"INSERT INTO public.entries ({', '.join(tried)}) VALUES ({values})",
            )


@ON_POSTGRESQL
@pytest.mark.parametrize("way", ["TRUNCATE entries", f"{REPLICA}; DELETE FROM entries"])
def test_postgresql_cannot_be_emptied(staged: Ledger, place: Place, way: str):
    """TRUNCATE asks no DELETE guard, and a replica's session asks no ordinary one."""
    with pytest.raises(psycopg.errors.IntegrityError, match="append-only"):
        place.execute(way)

    assert staged.verify() == 4


@ON_POSTGRESQL
def test_postgresql_takes_many_rows_at_once_only_in_order(staged: Ledger, place: Place):
    """Each row of one statement is held against those before it."""
    first = row(staged, moved("STAGING", "SHADOW"))
    after = Head(first["sequence"], first["hash"])
    good = sealed(moved("SHADOW", "CANARY"), after=after, actor=person(), now=NOW)
    bad = sealed(moved("CANARY", "PRODUCTION"), after=after, actor=person(), now=NOW)

    def both(second: dict[str, Any]) -> str:
        rows = (
            "(" + ", ".join("NULL" if v is None else f"'{v}'" for v in r.values()) + ")"
            for r in (first, second)
        )
        return f"INSERT INTO entries ({', '.join(first)}) VALUES {', '.join(rows)}"

    with pytest.raises(psycopg.errors.IntegrityError, match="where its version stands"):
        place.execute(both(bad))
    place.execute(both(good))
    assert staged.verify() == 6


def test_the_whole_way_is_open(staged: Ledger, place: Place):
    """Step by step, raw SQL reaches production; the order is the only way."""
    for origin, target in pairwise(ALL_THE_WAY):
        place.insert(row(staged, moved(origin, target)))

    assert staged.verify() == 7
