"""Laws of the ledger and the lifecycle: no stage is skipped, and there is a way back."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ledger import Ledger, LedgerError, Stage, champion, deployable, stage_of
from penstock.ledger.lifecycle import NEXT, may_move, serving_order
from tests.ledger.conftest import Place
from tests.ledger.steps import ALL_THE_WAY, NOW, move, note, promote, register
from tests.people import person


@given(st.sampled_from(Stage), st.sampled_from(Stage))
def test_there_is_no_other_step(origin: Stage, target: Stage):
    """Forward one stage, or to the archive; never out of it, never over a stage."""
    allowed = origin is not Stage.ARCHIVED and (
        target is Stage.ARCHIVED or NEXT.get(origin) is target
    )

    assert may_move(origin, target) == allowed


@pytest.mark.parametrize("target", [Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION])
def test_a_new_version_cannot_skip_staging(ledger: Ledger, target: Stage):
    """A move that skips is refused and leaves no entry, not even of who tried."""
    with pytest.raises(LedgerError, match="cannot go from NONE"):
        move(ledger, 1, target)

    assert ledger.entries() == []


def test_what_was_not_registered_cannot_be_staged(ledger: Ledger):
    """A version without a package has nothing to stage, and no version has two packages."""
    with pytest.raises(LedgerError, match="register it first"):
        move(ledger, 1, Stage.STAGING)

    register(ledger, 1)
    with pytest.raises(LedgerError, match="registered already"):
        register(ledger, 1)
    move(ledger, 1, Stage.STAGING)


def test_the_last_to_enter_production_is_the_champion(ledger: Ledger):
    """A promoted version is champion until a later one is, or it is archived."""
    promote(ledger, 1, 2)
    assert champion(ledger.entries()) == 2
    assert serving_order(ledger.entries()) == [2, 1]

    move(ledger, 2, Stage.ARCHIVED)

    assert champion(ledger.entries()) == 1
    assert stage_of(ledger.entries(), 2) is Stage.ARCHIVED


def test_two_earlier_production_versions_stay_deployable(ledger: Ledger):
    """They cannot be archived while they are the newest two behind the champion; an older can."""
    promote(ledger, 1, 2, 3)
    assert deployable(ledger.entries()) == [3, 2, 1]
    for version in (1, 2):
        with pytest.raises(LedgerError, match="stay deployable behind champion 3"):
            move(ledger, version, Stage.ARCHIVED)

    promote(ledger, 4)
    move(ledger, 1, Stage.ARCHIVED)

    assert deployable(ledger.entries()) == [4, 3, 2]


def test_a_champion_goes_only_when_another_can_serve(ledger: Ledger):
    """The only one is kept, unless someone says why; the reason is in the entry."""
    promote(ledger, 1)
    with pytest.raises(LedgerError, match="no other version could serve"):
        move(ledger, 1, Stage.ARCHIVED)

    move(ledger, 1, Stage.ARCHIVED, override="it leaks personal data")

    assert champion(ledger.entries()) is None
    assert ledger.entries()[-1].body["override"] == "it leaks personal data"


@pytest.mark.parametrize("reached", range(4))
def test_a_challenger_can_be_archived_from_any_stage(ledger: Ledger, reached: int):
    """What never served may go at any time, and never comes back."""
    promote(ledger, 1)
    register(ledger, 2)
    move(ledger, 2, *ALL_THE_WAY[:reached])

    move(ledger, 2, Stage.ARCHIVED)

    with pytest.raises(LedgerError, match="cannot go from ARCHIVED"):
        move(ledger, 2, Stage.STAGING)


def test_workloads_have_lives_of_their_own(ledger: Ledger):
    """Version 1 of one workload says nothing about version 1 of another."""
    promote(ledger, 1)

    with pytest.raises(LedgerError, match="cannot go from NONE to PRODUCTION"):
        ledger.move(
            workload="credit", version=1, to=Stage.PRODUCTION, reason="t", actor=person(), now=NOW
        )


def test_a_time_without_a_zone_is_refused(ledger: Ledger):
    """A naive time is a mistake at the door."""
    with pytest.raises(ValueError, match="time zone"):
        ledger.append(
            workload="digits",
            version=1,
            kind="note",
            body={},
            actor=person(),
            now=datetime(2026, 1, 5),  # noqa: DTZ001
        )


def test_a_ledger_is_read_back_as_it_was_written(place: Place):
    """Opened again, by another process or later, it says the same; longer than one batch too."""
    first = Ledger(place.url)
    written = [note(first, f"ünï {i}") for i in range(520)]
    first.close()

    again = Ledger(place.url)
    assert again.entries("digits") == written
    assert [row["sequence"] for row in again.rows()] == list(range(1, 522))
    assert again.head() == (521, written[-1].hash)
    again.close()


def test_a_ledger_of_another_release_is_refused(place: Place):
    """A table without keys and signatures is not written on; the sentence says what to do."""
    place.execute("CREATE TABLE entries (sequence INTEGER PRIMARY KEY, actor TEXT NOT NULL)")

    with pytest.raises(LedgerError, match="move it away and register again"):
        Ledger(place.url)


def test_a_database_that_does_not_answer_is_said():
    """The message names the address, and no password."""
    with pytest.raises(LedgerError, match=r"someone:\*\*\*@127\.0\.0\.1.* does not answer"):
        Ledger("postgresql+psycopg://someone:hidden@127.0.0.1:1/x?connect_timeout=2")


def test_a_ledger_in_a_folder_that_is_not_there_makes_it(tmp_path: Path):
    """The first run of a home needs no preparation."""
    held = Ledger(f"sqlite:///{tmp_path / 'new' / 'ledger.db'}")
    promote(held, 1)

    assert held.verify() == 6
    held.close()


def test_what_is_kept_of_earlier_reads_is_what_a_new_reader_finds(place: Place):
    """Of one workload and of all, whoever appends between; what a caller does to it is its own."""
    one, other = Ledger(place.url), Ledger(place.url)
    register(one, 1)
    for k in range(3):
        note(other if k % 2 else one, str(k))
        for name in ("digits", None, "nobody"):
            fresh = Ledger(place.url)
            wanted = fresh.entries(name)
            fresh.close()
            for held in (one, other):
                assert held.entries(name) == wanted
                held.entries(name).clear()
                assert held.entries(name) == wanted
    one.close()
    other.close()


def test_a_server_that_ended_its_connections_still_answers(place: Place):
    """A failover is over before the next question; it must not take everybody home."""
    held = Ledger(place.url)
    register(held, 1)
    wanted = held.entries()
    if place.kind == "postgresql":
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        place.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    assert held.entries() == wanted
    held.close()
