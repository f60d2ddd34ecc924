"""Laws of who is asked after a restart, after a kill and before a first step, on a real plane."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock.ledger import Ledger
from penstock.release import EVERYWHERE, Fallback
from penstock.rollout import running, written
from penstock.rollout.champions import serve, serve_champion, stand_by
from penstock.rollout.fleet import Fleet
from penstock.rollout.journal import unheard
from penstock.rollout.kill import fallback_of, throw_by_token
from penstock.rollout.plan import Phase
from penstock.rollout.plane import Plane
from penstock.rollout.supervisor import COMMAND_VARIABLE
from penstock.rollout.table import TrafficTable
from penstock.rollout.watchdog import asked
from penstock.verdict import Outcome
from tests.packages import free_port, wait_for
from tests.rollout.test_conductor import QUICK, House, nothing_came, wish
from tests.rollout.test_plane import STANDIN

REFUSES = """
import json, os, sys
refused, command, given = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
if given[given.index("--version") + 1] == refused:
    sys.exit("it does not start")
os.execv(command[0], [*command, *given])
"""
"""Beginning of a command that refuses one version and is the stand-in's otherwise."""


def refusing(version: str) -> str:
    """Return the command of servers that do not start with a version."""
    return json.dumps([sys.executable, "-c", REFUSES, version, STANDIN])


@pytest.fixture(autouse=True)
def standin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots run the stand-in."""
    monkeypatch.setenv(COMMAND_VARIABLE, STANDIN)


@dataclass
class Home:
    """A home in which version 9 served before version 1."""

    house: House
    ledger: Ledger

    @property
    def plane(self) -> Plane:
        """The servers that run."""
        return Plane.attach(self.house.path)

    @property
    def served(self) -> tuple[str, str | None, str | None]:
        """Who answers everybody, who does after a kill, and who stands by."""
        held = self.plane.observe()
        return held.champion, held.fallback, held.trickle

    def up(self) -> Plane:
        """Start the servers, with nothing in them."""
        return Plane.up(self.house.path, model="digits", port=free_port())


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home; its servers are stopped at the end."""
    house = House(tmp_path)
    house.furnish(before=9)
    made = Home(house, house.ledger())
    yield made
    made.ledger.close()
    if Plane.running(tmp_path):
        Plane.attach(tmp_path).down()


def test_a_restart_leads_to_the_champions_of_before(home: Home):
    """Of every market: whoever was tried out before the machine went down is asked no more."""
    plane = home.up()
    table = TrafficTable(
        sequence=3, salt="s", champion="b", challenger="a", buckets=16, mirror=None, fallback="b"
    )
    shadow = replace(table, market="eu", sequence=4, buckets=0, challenger=None, mirror="a")
    for held in (table, shadow):
        plane.apply(held)
    plane.down()

    tables = home.up().tables()

    assert set(tables) == {EVERYWHERE, "eu"}
    for held in tables.values():
        assert (held.champion, held.sequence, held.fallback) == ("b", 5, "b")
        assert asked(held) == {"b"}


def test_tables_that_cannot_be_read_lead_to_the_first_slot(tmp_path: Path):
    """Without a file, or with nonsense in it, everybody begins on slot a."""
    path = tmp_path / "table.json"
    for text in (None, "{ torn", "[]", '{"resources": []}', '{"resources": [1]}'):
        if text is not None:
            path.write_text(text)
        assert written.first(path) == [written.FIRST]


def test_after_a_restart_a_kill_leads_to_the_version_before(home: Home):
    """Both are up, and the table names who stands by; a table that is right is not written anew."""
    home.up()
    for _ in range(2):
        assert serve_champion(home.plane, home.ledger, "digits") == 1
        assert home.served == ("a", "b", "b")
        sequence = home.plane.written().sequence
    home.plane.down()
    home.up()
    serve_champion(home.plane, home.ledger, "digits")

    assert home.served == ("a", "b", "b")
    assert sequence < home.plane.written().sequence
    assert {s: home.plane.status()["slots"][s]["version"] for s in "ab"} == {"a": "1", "b": "9"}
    assert home.plane.ready("b")
    assert fallback_of(home.plane.tables()) == "b"


def test_declared_rules_answer_after_a_kill(home: Home):
    """Where a policy declares them, the table of a market at rest says so after each start."""
    home.house.policy = replace(QUICK, kill_to=Fallback.RULES)
    home.house.up()

    assert home.served == ("a", "rules", None)


def test_a_standby_that_does_not_start_is_not_named(home: Home, monkeypatch: pytest.MonkeyPatch):
    """A kill would lead to nobody: the champion is the fallback then, and answers all the same."""
    monkeypatch.setenv(COMMAND_VARIABLE, refusing("9"))
    home.house.up()
    stand_by(Fleet(plane=home.plane), home.ledger.entries("digits"), QUICK)

    assert home.plane.status()["slots"]["b"]["state"] == "failed"
    assert home.served == ("a", None, None)


def test_nobody_is_led_to_a_version_before_its_first_step(home: Home):
    """The version that stood by leaves every table before a new one starts in its slot."""
    home.up()
    serve_champion(home.plane, home.ledger, "digits")
    before = home.plane.written()
    home.plane.apply(replace(before, market="eu", sequence=before.sequence + 1))
    conductor = home.house.conductor(home.ledger)
    starting: list[tuple[set[str], str]] = []

    def note(event: Mapping[str, Any]) -> None:
        if event["event"] == "starting":
            tables = home.plane.tables()
            starting.append((set().union(*map(asked, tables.values())), fallback_of(tables)))

    conductor.emit = note
    conductor.open(wish())
    conductor.carry(nothing_came, goes=lambda state: state.phase is Phase.PREPARE)

    assert starting == [({"a"}, "a")]


def test_after_a_rollback_the_version_before_stands_by_again(home: Home):
    """It comes up in the slot that became free, and the table of the market names it."""
    home.house.says = lambda state: Outcome.FAIL if state.step == 1 else Outcome.PASS
    home.house.up()
    conductor = home.house.conductor(home.ledger)
    conductor.open(wish())
    conductor.carry(nothing_came)

    assert home.house.state().phase is Phase.ROLLED_BACK
    assert home.served == ("a", "b", "b")
    assert home.plane.status()["slots"]["b"]["version"] == "9"


def test_a_table_that_leads_to_nobody_leads_home(home: Home):
    """A release goes on, and its market's table names an empty slot: its champion answers."""
    home.house.up()
    home.house.conductor(home.ledger).open(wish())
    held = home.plane.written()
    home.plane.down()
    home.up().apply(replace(held, sequence=held.sequence + 2, champion="b"))
    entries = home.ledger.entries("digits")
    serve(Fleet(plane=home.plane), entries, QUICK, unheard)
    assert home.served == ("a", None, None)

    # Whoever answers there is left to the release.
    home.plane.set_slot("b", package=home.house.path, digest="sha256:2", version="2")
    home.plane.wait_ready("b", version="2", timeout_s=20)
    home.plane.apply(replace(home.plane.written(), sequence=99, champion="b"))
    serve(Fleet(plane=home.plane), entries, QUICK, unheard)
    assert home.plane.written().champion == "b"


def test_a_killed_version_that_does_not_start_ends_nobody(
    home: Home, monkeypatch: pytest.MonkeyPatch
):
    """While the switch is thrown, whoever answers everybody goes on, whatever else fails."""
    home.up()
    serve_champion(home.plane, home.ledger, "digits")
    path, told = home.house.path, list[Mapping[str, Any]]()
    thrown = throw_by_token(path, "t", reason="harm", now=datetime.now(UTC))
    assert (thrown.to, thrown.killed) == ("b", ("1",))
    home.plane.down()
    monkeypatch.setenv(COMMAND_VARIABLE, refusing("1"))
    monkeypatch.setattr(running, "promised", lambda *_: None)

    with (
        suppress(KeyboardInterrupt),
        running.servers("digits", 2, path, home.ledger, free_port(), told.append) as plane,
    ):
        plane.wait_ready("b", version="9", timeout_s=20)
        raise KeyboardInterrupt

    assert "version 1 was killed" in told[-1]["text"]
    assert home.plane.ready("b")


def test_rules_that_answer_everybody_stay_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A first version was given up: whoever asks is answered by the rules after the run's end."""
    monkeypatch.setattr(running, "promised", lambda *_: None)
    ledger = House(tmp_path).ledger()

    def run(to: str) -> Plane:
        """Return a plane whose run ended with everybody at a slot."""
        with running.servers("digits", 1, tmp_path, ledger, free_port(), unheard) as plane:
            plane.set_slot(to, package=tmp_path, digest="sha256:1", version=to)
            plane.wait_ready(to, version=to, timeout_s=20)
            table = replace(written.FIRST, sequence=9, champion=to)
            plane.apply(table)
            plane.wait_applied(table, timeout_s=5)
            wait_for(lambda: plane.verify(table) == "", 5)
        return plane

    plane = run("rules")
    try:
        assert Plane.running(tmp_path)
        assert plane.probe("rules", "/v2/health/ready")[0] == 200
    finally:
        plane.down()
    (tmp_path / "serving" / "routes" / "table.json").unlink()
    run("a")
    assert not Plane.running(tmp_path)
    ledger.close()


def test_a_kill_leads_to_nobody_who_is_tried_out():
    """The fallback of one market may be tried out in another: its champion answers then."""
    first = replace(written.FIRST, champion="b")
    done = replace(first, market="us", fallback="a", trickle="a")
    assert fallback_of({"us": done}) == "a"
    for trial in ({"mirror": "a"}, {"challenger": "a", "buckets": 1}):
        assert fallback_of({"us": done, "eu": replace(first, **trial)}) == "b"
