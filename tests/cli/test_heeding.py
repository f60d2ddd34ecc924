"""Laws of a command that brings users back where nobody carries the release any more."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from penstock.cli import commands
from penstock.cli.home import VARIABLE
from penstock.ledger import Actor
from penstock.release import EVERYWHERE
from penstock.rollout import running
from penstock.rollout.lease import leases_of
from penstock.rollout.plan import Phase
from penstock.rollout.plane import Plane
from penstock.rollout.supervisor import COMMAND_VARIABLE
from tests.bundles import NOW
from tests.packages import wait_for
from tests.people import person
from tests.rollout.test_conductor import House, carried, holds_at
from tests.rollout.test_plane import STANDIN

APP = typer.Typer()
for verb in (commands.pause, commands.rollback):
    APP.command()(verb)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A home whose key may carry releases, with a policy for it."""
    monkeypatch.setenv(COMMAND_VARIABLE, STANDIN)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    for name in ("PENSTOCK_LEDGER", "PENSTOCK_LEDGER_HEAD", "PENSTOCK_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = House(tmp_path)
    made.furnish()
    declared = running.load("digits")
    policy = replace(declared, rollout=made.policy)
    monkeypatch.setattr(running, "load", lambda _: policy)
    ledger, actor = made.ledger(), Actor.create(tmp_path / "actor.pem", name="otto")
    ledger.enrol(
        name="otto", public_key=actor.public_key, roles=["operator"], actor=person(), now=NOW
    )
    ledger.close()
    yield made
    if Plane.running(tmp_path):
        Plane.attach(tmp_path).down()


def test_a_rollback_that_nobody_else_heeds_is_carried_out_by_its_command(house: House):
    """Past the canary a dead controller leaves users where they are; the command returns them."""
    plane = house.up()
    child = replace(house, says=holds_at(2)).fork(carried)
    wait_for(lambda: house.stands_at(2), 20)
    frozen = leases_of(house.path / "serving") / "digits-2-all-1.json"
    wait_for(lambda: '"freeze": true' in frozen.read_text(), 5)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert plane.observe(EVERYWHERE).buckets == 32

    paused = CliRunner().invoke(APP, ["pause", "digits", "--reason", "r"])
    assert paused.exit_code == 0, paused.output
    assert "NOBODY CARRIES IT" in paused.output
    assert plane.observe(EVERYWHERE).buckets == 32

    done = CliRunner().invoke(APP, ["rollback", "digits", "--reason", "complaints"])

    assert done.exit_code == 0, done.output
    assert "this command carried it to its end, ROLLED_BACK" in done.output
    assert "complaints" in done.output
    assert (plane.observe(EVERYWHERE).champion, plane.observe(EVERYWHERE).buckets) == ("a", 0)
    assert house.state().phase is Phase.ROLLED_BACK
    assert list(leases_of(house.path / "serving").glob("*.json")) == []
