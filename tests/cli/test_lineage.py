"""Laws of the lineage verbs: one screen that says what, why and by whom; mistakes in a sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from penstock.cli import lineage as verbs
from penstock.cli.home import HomeError
from penstock.ledger import REGISTERED, Ledger, Stage
from tests.bundles import NOW
from tests.people import person
from tests.register.versions import package

WORSE = {"accuracy": 0.91, "weights": "v", "graph": "h", "training": {"seed": 43}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose ledger has version 1 in production and a worse version 2 in shadow."""
    folder = tmp_path_factory.mktemp("home")
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    tester = person()
    stages = {1: (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION), 2: (Stage.STAGING,)}
    for version, planted in ((1, {}), (2, WORSE)):
        made = package(folder / str(version), **planted)
        body = {"fingerprint": made.fingerprint, "digest": made.digest, "package": str(made.path)}
        ledger.append(
            workload="digits", version=version, kind=REGISTERED, actor=tester, now=NOW,
            body={**body, "rehearsal": None},
        )  # fmt: skip
        for stage in stages[version]:
            ledger.move(
                workload="digits", version=version, to=stage, reason="evidence was good",
                actor=tester, now=NOW,
            )  # fmt: skip
    ledger.close()
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch):
    """Let the verbs use that home, and print for a wide screen."""
    monkeypatch.setenv("PENSTOCK_HOME", str(home))
    monkeypatch.delenv("PENSTOCK_LEDGER", raising=False)
    monkeypatch.setenv("COLUMNS", "160")


def run(*arguments: str) -> Result:
    """Run a lineage verb."""
    return CliRunner().invoke(verbs.app, arguments)


def test_show_without_a_version_says_what_is_running():
    """What it is, why it was let through, by whom, what made it, what it serves now."""
    shown = run("show", "digits")

    assert shown.exit_code == 0, shown.output
    for said in (
        "Handwritten digits, version 1: champion, it serves users",
        "pass: 1 of 1 checks passed",
        "0.9700 [0.9600, 0.9800] on 600 rows",
        "learning_rate 0.004",
        "1197 training rows, 2026-01-05",
        "digits_v1, 5 definitions",
        "moved to PRODUCTION",
        "evidence was good",
        "tester",
    ):
        assert said in re.sub(r"\s+", " ", shown.output), shown.output
    assert len(shown.output.splitlines()) < 50


@pytest.mark.parametrize("given", ["2", "challenger"])
def test_a_version_has_a_number_and_may_have_an_alias(given: str):
    """Either way the same one is shown, with where it stands."""
    shown = run("show", "digits", given)

    assert "version 2: admitted, waits for its release; serves nobody" in shown.output


def test_diff_shows_the_likeliest_cause_first():
    """The headline first, then why, then what changed."""
    shown = run("diff", "digits", "1", "2")
    said = json.loads(run("diff", "digits", "1", "2", "--json").output)

    assert shown.exit_code == 0, shown.output
    lines = re.sub(r"\s+", " ", shown.output)
    assert lines.startswith("accuracy 0.9700 → 0.9100 (-0.0600")
    assert "Most likely seed: training seed" in lines
    assert "1 seed: training seed 42 → 43" in lines
    assert said["changes"][0]["kind"] == "seed"
    assert (said["first"], said["second"]) == ("version 1", "version 2")


def test_diff_of_a_version_with_itself_says_so():
    """No table of nothing."""
    assert "Nothing changed between the two." in run("diff", "digits", "1", "champion").output


def test_export_writes_events_and_no_file_over_another(tmp_path: Path):
    """One event a line."""
    out = tmp_path / "lineage.jsonl"

    done = run("export", "digits", "champion", "--out", str(out))
    again = run("export", "digits", "champion", "--out", str(out))

    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert f"wrote {len(events)} events of version 1" in done.output
    assert {e["eventType"] for e in events} == {"START", "COMPLETE"}
    assert isinstance(again.exception, ValueError)
    assert "exists; name a file that does not" in str(again.exception)


@pytest.mark.parametrize("given", ["3", "standby", "latest"])
def test_a_version_that_is_not_there_is_refused_with_those_that_are(given: str):
    """What came, and what there is."""
    done = run("show", "digits", given)

    assert isinstance(done.exception, LookupError)
    assert f"there is no version '{given}'; registered are 1, 2" in str(done.exception)
    assert "champion 1, challenger 2" in str(done.exception)


def test_a_home_where_nothing_is_registered_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Rather than an empty screen."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))

    done = run("show", "digits")

    assert isinstance(done.exception, HomeError)
    assert "type: penstock run digits" in str(done.exception)


def test_a_version_that_cannot_be_made_as_recorded_is_not_made(home: Path):
    """Its stages were made for this test by no stage at all; the data source differs."""
    app = typer.Typer()
    app.command()(verbs.reproduce)

    done = CliRunner().invoke(app, ["digits", "1"])

    assert "this is not what the version was made from" in str(done.exception)
    assert "the data source is" in str(done.exception)
