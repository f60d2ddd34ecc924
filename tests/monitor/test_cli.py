"""What a person types: penstock monitor, then penstock retrain, in a home."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.bundle import Bundle
from penstock.cli.home import Home
from penstock.cli.main import app
from penstock.ledger import REGISTERED, Actor
from tests.ledger.steps import ALL_THE_WAY, NOW
from tests.monitor import world


def said(*typed: str, code: int) -> str:
    done = CliRunner().invoke(app, typed)
    assert done.exit_code == code, f"{done.output} {done.exception!r}"
    return " ".join(done.output.split())


@pytest.fixture
def home(tmp_path: Path, package: Bundle, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which version 1 of credit serves, and its servers' folder."""
    for name in ("PENSTOCK_LEDGER", "PENSTOCK_KEY", "PENSTOCK_STORE", "PENSTOCK_PREDICTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    held = Home(tmp_path)
    actor, ledger = Actor.load(held.key()), held.ledger()
    body = {"package": str(package.path), "digest": package.digest, "fingerprint": "made"}
    ledger.append(workload="credit", version=1, kind=REGISTERED, body=body, actor=actor, now=NOW)
    for stage in ALL_THE_WAY:
        ledger.move(workload="credit", version=1, to=stage, reason="test", actor=actor, now=NOW)
    ledger.close()
    return tmp_path


def asked(home: Path, *, richer: float = 1.0, users: int = 1_000) -> None:
    """Leave a log of the last minutes, as this home's servers do."""
    now = time.time()
    records = world.asked(world.clients(users, seed=3, richer=richer))
    world.log(home / "serving" / "a", [{**r, "at": now - 60 - n / 10} for n, r in
                                       enumerate(records)])  # fmt: skip


def test_drift_is_seen_decided_on_and_what_to_type_is_said(home: Path):
    asked(home, richer=3)

    looked = said("monitor", "credit", code=1)
    decided = said("retrain", "credit", code=0)
    again = said("retrain", "credit", "--out", str(home / "again"), code=0)

    assert "fail drift: credit_limit PSI" in looked
    assert "report.html" in looked
    assert "train, asked for by drift" in decided
    assert "run credit --trigger drift" in decided
    assert "run credit --trigger drift" in again
    ledger = Home(home).ledger()
    kinds = [entry.kind for entry in ledger.entries("credit")]
    ledger.close()
    assert kinds.count("retrain decided") == 1


def test_nothing_worse_is_0_and_too_little_is_4(home: Path):
    asked(home, users=100)
    assert "inconclusive rows: 100 requests of 100 users" in said("monitor", "credit", code=4)

    more = said("monitor", "credit", "--predictions", str(home / "gone"), "--out",
                str(home / "other"), code=4)  # fmt: skip
    assert "error rows: nothing was predicted" in more
    assert "diagnose: nothing is known" in said(
        "retrain", "credit", "--monitor", str(home / "other"), code=1
    )


def test_a_folder_that_is_there_is_not_written_over(home: Path):
    asked(home)
    (home / "mine").mkdir()

    done = CliRunner().invoke(app, ["monitor", "credit", "--out", str(home / "mine")])

    assert isinstance(done.exception, ValueError)
    assert "exists; name a folder that does not" in str(done.exception)


def test_nobody_looked_yet(home: Path):
    done = CliRunner().invoke(app, ["retrain", "credit"])

    assert isinstance(done.exception, ValueError)
    assert "monitor credit" in str(done.exception)
