"""The watch pipeline, run as Kubeflow's compiled file: each decision takes its own branch.

The training inside is the real one, of a workload whose data nobody named: it begins, with what
the decision hands on, and ends at its first step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.bundle import Bundle
from penstock.ledger import REGISTERED, Actor, Ledger
from pipelines.compiling import compile_to
from pipelines.local import execute
from tests.ledger.steps import ALL_THE_WAY, NOW
from tests.monitor import world

Event = dict[str, Any]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled watch pipeline of credit."""
    path = tmp_path_factory.mktemp("compiled") / "watch.yaml"
    compile_to(path, workload="credit", pipeline="watch")
    return path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The champion's package."""
    return world.package(
        tmp_path_factory.mktemp("champion") / "package",
        train=world.clients(5_000, seed=1),
        scores=world.numbers(world.clients(4_000, seed=2)),
    )


@pytest.fixture
def watched(
    compiled: Path, package: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[bool, list[Event]]]:
    """Run the pipeline on a log, in a home where a version serves; return how it went."""
    for name in ("PENSTOCK_STORE", "PENSTOCK_CREDIT_DATA", "PENSTOCK_LEDGER_HEAD"):
        monkeypatch.delenv(name, raising=False)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("PENSTOCK_LEDGER", url)
    monkeypatch.setenv("PENSTOCK_KEY", str(tmp_path / "actor.pem"))
    actor, ledger = Actor.create(tmp_path / "actor.pem", name="watcher"), Ledger(url)
    body = {"package": str(package.path), "digest": package.digest, "fingerprint": "made"}
    ledger.append(workload="credit", version=1, kind=REGISTERED, body=body, actor=actor, now=NOW)
    for stage in ALL_THE_WAY:
        ledger.move(workload="credit", version=1, to=stage, reason="test", actor=actor, now=NOW)
    ledger.close()

    def run(predictions: str) -> tuple[bool, list[Event]]:
        found: list[Event] = []
        root = tmp_path / "run"
        root.mkdir()
        ok = execute(
            compiled, {"predictions": predictions}, root=root, emit=lambda e: found.append(dict(e))
        )
        return ok, [event for event in found if event["event"] == "finished"]

    return run


def log(folder: Path, *, richer: float = 1.0) -> str:
    """Write a log of the last hour."""
    now = time.time()
    records = world.asked(world.clients(1_500, seed=3, richer=richer))
    return world.log(folder, [{**r, "at": now - 60 - n / 10} for n, r in enumerate(records)])


def test_drift_begins_the_training_inside_the_same_run(
    watched: Callable[[str], tuple[bool, list[Event]]], tmp_path: Path
):
    ok, steps = watched(log(tmp_path / "log", richer=3))

    monitor, retrain, features = (
        step for step in steps if step["task"] in ("monitor", "retrain", "features")
    )
    assert (monitor["ok"], monitor["said"]["outcome"]) == (True, "fail")
    assert retrain["said"]["line"].startswith("train, asked for by drift: ")
    assert not features["ok"]
    assert "PENSTOCK_CREDIT_DATA is not set" in features["reason"]
    assert "diagnose" not in {step["task"] for step in steps}
    assert not ok


def test_a_log_that_is_not_there_turns_the_run_red(
    watched: Callable[[str], tuple[bool, list[Event]]], tmp_path: Path
):
    ok, steps = watched(str(tmp_path / "nowhere"))

    assert [step["task"] for step in steps if step["ok"]] == ["monitor", "retrain"]
    red = next(step for step in steps if step["task"] == "diagnose")
    assert red["refused"]
    assert "nothing is known of the champion" in red["reason"]
    assert not ok


def test_the_training_gets_what_was_found(compiled: Path):
    """The champion that was looked at, the reason, and the data that the run was asked for."""
    ir = next(iter(yaml.safe_load_all(compiled.read_text(encoding="utf-8"))))
    (branch,) = (
        part for name, part in ir["components"].items()
        if name.startswith("comp-condition") and "comp-train-credit" in str(part)
    )  # fmt: skip
    (inside,) = (
        task for task in branch["dag"]["tasks"].values()
        if task["componentRef"]["name"] == "comp-train-credit"
    )  # fmt: skip

    handed = {name: str(source) for name, source in inside["inputs"]["parameters"].items()}
    assert handed.keys() == {"champion", "data_version", "trigger"}
    assert "monitor-Output" in handed["champion"]
    assert "retrain-trigger" in handed["trigger"]
    assert "data_version" in handed["data_version"]
