"""Laws of the ledger: order cannot be skipped, history cannot be changed unseen."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ledger import Ledger, LedgerError, Stage, champion, serving_order, stage_of
from penstock.ledger.lifecycle import NEXT, may_move

NOW = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in a file."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield held
    held.close()


def move(ledger: Ledger, version: int, *stages: Stage) -> None:
    """Move a version through stages."""
    for stage in stages:
        ledger.move(workload="digits", version=version, to=stage, reason="test", actor="t", now=NOW)


ALL_THE_WAY = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)


@given(st.sampled_from(Stage), st.sampled_from(Stage))
def test_there_is_no_other_step(origin: Stage, target: Stage):
    """Forward one stage, or to the archive; never out of it, never over a stage."""
    allowed = origin is not Stage.ARCHIVED and (
        target is Stage.ARCHIVED or NEXT.get(origin) is target
    )

    assert may_move(origin, target) == allowed


@pytest.mark.parametrize("target", [Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION])
def test_a_new_version_cannot_skip_staging(ledger: Ledger, target: Stage):
    """A move that skips is refused and leaves no entry."""
    with pytest.raises(LedgerError, match="cannot go from NONE"):
        move(ledger, 1, target)

    assert ledger.entries() == []


def test_the_last_to_enter_production_is_the_champion(ledger: Ledger):
    """A promoted version is champion until a later one is, or it is archived."""
    move(ledger, 1, *ALL_THE_WAY)
    move(ledger, 2, *ALL_THE_WAY)
    assert champion(ledger.entries()) == 2
    assert serving_order(ledger.entries()) == [2, 1]

    move(ledger, 2, Stage.ARCHIVED)

    assert champion(ledger.entries()) == 1
    assert stage_of(ledger.entries(), 2) is Stage.ARCHIVED


def test_a_whole_chain_verifies(ledger: Ledger):
    """What was appended verifies, and its length is returned."""
    move(ledger, 1, *ALL_THE_WAY)

    assert ledger.verify() == 4


@pytest.mark.parametrize("verb", ["UPDATE entries SET actor = 'x'", "DELETE FROM entries"])
def test_the_table_refuses_edits(ledger: Ledger, tmp_path: Path, verb: str):
    """Even a direct SQL writer cannot change or remove an entry."""
    move(ledger, 1, Stage.STAGING)
    direct = sqlite3.connect(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        direct.execute(verb)
    direct.close()


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE entries SET body = replace(body, 'test', 'best') WHERE sequence = 2",
        "UPDATE entries SET at = '2020-01-01' WHERE sequence = 1",
        "DELETE FROM entries WHERE sequence = 2",
    ],
)
def test_an_edit_behind_the_triggers_is_found(ledger: Ledger, tmp_path: Path, edit: str):
    """Whoever drops the triggers and edits the file is found by the chain."""
    move(ledger, 1, *ALL_THE_WAY)
    direct = sqlite3.connect(tmp_path / "ledger.db")
    direct.execute("DROP TRIGGER entries_no_update")
    direct.execute("DROP TRIGGER entries_no_delete")
    direct.execute(edit)
    direct.commit()
    direct.close()

    with pytest.raises(LedgerError):
        ledger.verify()


def test_a_time_without_a_zone_is_refused(ledger: Ledger):
    """A naive time is a mistake at the door."""
    with pytest.raises(ValueError, match="time zone"):
        ledger.append(
            workload="digits",
            version=1,
            kind="note",
            body={},
            actor="t",
            now=datetime(2026, 1, 5),  # noqa: DTZ001
        )
