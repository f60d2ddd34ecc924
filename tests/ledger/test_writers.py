"""Writers at once: one chain, no entry lost, and nobody decides on what is no longer so."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.ledger import Conflict, Entry, Ledger, LedgerError, Stage, schema, stage_of
from tests.ledger.conftest import Place
from tests.ledger.steps import NOW, note, register
from tests.people import person

WRITER = """
import sys
from penstock.ledger import Ledger
from tests.ledger.steps import note

held = Ledger(sys.argv[1])
for i in range(int(sys.argv[3])):
    note(held, f"{sys.argv[2]} {i}")
held.close()
"""

MOVER = """
import sys
from penstock.ledger import Ledger, LedgerError, Stage
from tests.ledger.steps import move

held = Ledger(sys.argv[1])
try:
    move(held, 1, Stage(sys.argv[2]))
except LedgerError:
    print("refused")
held.close()
"""


def processes(script: str, *arguments: list[str]) -> list[str]:
    """Run one process for each list of arguments, all at once; return what they print."""
    started = [
        subprocess.Popen([sys.executable, "-c", script, *a], stdout=subprocess.PIPE, text=True)
        for a in arguments
    ]
    said = [process.communicate(timeout=120)[0].strip() for process in started]
    assert [process.returncode for process in started] == [0] * len(started)
    return said


def texts(ledger: Ledger) -> list[str]:
    """Return what was noted, in the chain's order."""
    return [e.body["text"] for e in ledger.entries("digits")]


def test_threads_share_one_chain(ledger: Ledger):
    """Every entry is there once, and each thread's in its order."""

    def write(name: int) -> None:
        for i in range(12):
            note(ledger, f"{name} {i}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    assert ledger.verify() == 1 + 48
    for name in range(4):
        own = [t for t in texts(ledger) if t.startswith(f"{name} ")]
        assert own == [f"{name} {i}" for i in range(12)]


def test_processes_share_one_chain_from_its_first_entry(place: Place):
    """Each opens an empty database: one makes the table, one enrols, and all write."""
    processes(WRITER, *[[place.url, name, "10"] for name in "ab"])

    held = Ledger(place.url)
    assert held.verify() == 1 + 20
    assert sorted(texts(held)) == sorted(f"{name} {i}" for name in "ab" for i in range(10))
    held.close()


def test_one_of_two_movers_moves(place: Place):
    """Two processes that would take the same step: one does, the other is refused."""
    held = Ledger(place.url)
    register(held, 1)

    said = processes(MOVER, *[[place.url, "STAGING"]] * 2)

    assert sorted(said) == ["", "refused"]
    assert stage_of(held.entries("digits"), 1) is Stage.STAGING
    assert held.verify() == 3
    held.close()


def test_who_decided_on_an_older_head_is_told(ledger: Ledger):
    """An entry between reading and writing makes the decision void; nothing is written."""
    note(ledger, "read")
    decided = ledger.head().sequence
    note(ledger, "faster")

    with pytest.raises(Conflict, match="decided at entry 2, but the ledger is at 3"):
        note(ledger, "slower", expect=decided)

    assert note(ledger, "again", expect=3).sequence == 4
    assert texts(ledger) == ["read", "faster", "again"]
    assert ledger.verify() == 4


def test_of_many_that_decided_on_one_head_one_writes(ledger: Ledger):
    """Whatever the interleaving, exactly one of eight threads finds its head."""
    note(ledger)

    def decide(i: int) -> Entry | None:
        try:
            return note(ledger, f"{i}", expect=2)
        except Conflict:
            return None

    with ThreadPoolExecutor(4) as pool:
        written = [e for e in pool.map(decide, range(8)) if e is not None]

    assert [e.sequence for e in written] == [3]
    assert ledger.verify() == 3


def test_a_writer_waits_for_a_while(ledger: Ledger, place: Place, monkeypatch: pytest.MonkeyPatch):
    """One that holds the others up for too long is said, and nothing is half written."""
    note(ledger)
    monkeypatch.setattr(schema, "WAIT_S", 1)
    hasty, holding = Ledger(place.url), Ledger(place.url)
    with holding._database._engine.begin() as connection:
        schema.lock(connection)

        with pytest.raises(LedgerError, match=r"does not answer: .*lock"):
            note(hasty)

    assert note(hasty).sequence == 3
    hasty.close()
    holding.close()


def test_what_is_noted_is_what_is_there(ledger: Ledger):
    """A body of any plain values reads back equal; one that cannot be is refused whole."""
    body = json.loads('{"a": [1, 2.5, -0.0, 1e300, true, null, "\\u0000\\ud800ü"], "b": {"": {}}}')
    entry = ledger.append(
        workload="digits", version=None, kind="k", body=body, actor=person(), now=NOW
    )

    assert entry.body == body
    assert ledger.entries("digits") == [entry]
    with pytest.raises(TypeError, match="no stable form"):
        ledger.append(
            workload="digits",
            version=None,
            kind="k",
            body={"x": float("nan")},
            actor=person(),
            now=NOW,
        )
    assert ledger.verify() == 2
