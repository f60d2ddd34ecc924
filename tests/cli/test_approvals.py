"""Laws of the verbs by which people take part in a release: one screen, and what to do instead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from penstock.bundle import write_json
from penstock.cli import approvals, commands
from penstock.cli.home import Home
from penstock.ledger import Actor, KeyFileError, Ledger, LedgerError
from penstock.ledger.standing import standings
from penstock.rollout.approvals import binding
from penstock.rollout.lease import FileLease
from penstock.rollout.plan import plan_of
from penstock.rollout.plane import PlaneError
from penstock.rollout.state import Act, Ask
from penstock.stage import Refused
from penstock.workload import load
from tests.bundles import bundle
from tests.people import person
from tests.rollout.markets import ROLES, Story, waiting

APP = typer.Typer()
for verb in (
    approvals.approve, approvals.refuse, approvals.attach, approvals.documents, commands.pause,
    commands.resume, commands.abort, commands.promote, commands.rollback,
):  # fmt: skip
    APP.command()(verb)

RELEASE = "credit/3/eu/1"


@dataclass
class House:
    """A home whose ledger tells of a release of credit that waits in the EU."""

    path: Path
    ledger: Ledger
    story: Story

    def key(self, name: str) -> str:
        """Return the key file of somebody who is enrolled."""
        return str(self.path / f"{name}.pem")


def write_package(folder: Path) -> None:
    """Write as much of a package as says what it reads."""
    write_json(folder / "serving.json", {"features": [{"name": "bill"}]})
    write_json(folder / "contract.json", {"schema": [{"name": "use"}]})


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A home with people, a registered package and a release that waits for its canary."""
    for name in ("PENSTOCK_LEDGER", "PENSTOCK_LEDGER_HEAD", "PENSTOCK_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "140")
    ledger = Ledger(Home(tmp_path / "home").ledger_url)
    story = Story(ledger, load("credit").rollout, now=datetime.now(UTC) - timedelta(hours=1))
    for name, held in ROLES.items():
        key = person(name).public_key
        if name in ("ann", "carl"):
            key = Actor.create(tmp_path / f"{name}.pem", name=name).public_key
        ledger.enrol(
            name=name, public_key=key, roles=held.roles, actor=person("boss"), now=story.now
        )
    made = bundle(tmp_path / "package", "package", write_package)
    story.register(3, digest=made.digest, package=made.path)
    waiting(story, registered=True)
    yield House(tmp_path, ledger, story)
    ledger.close()


def said(*arguments: str, code: int = 0) -> str:
    """Return what a call prints; its code must be this."""
    done = CliRunner().invoke(APP, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def attach_all(house: House) -> None:
    """Attach what the EU asks for."""
    for name in ("dpia", "human-review"):
        file = house.path / f"{name}.txt"
        file.write_text(f"the {name}")
        said("attach", "credit/3", name, str(file), "--key", house.key("carl"))
    said("attach", RELEASE, "prohibited-features", "--key", house.key("carl"))


def test_documents_are_attached_shown_and_missed(house: House):
    """What lacks is said with its reason, and the code says so to a script."""
    output = said("documents", "credit/3", code=1)
    assert output.count("it was never attached") == 3

    attach_all(house)

    output = said("documents", "credit/3")
    assert output.count("ok") == 3
    assert output.count("carl") == 3
    checked = next(
        e for e in house.ledger.entries("credit") if e.body.get("name") == "prohibited-features"
    )
    found = json.loads(Path(checked.body["file"]).read_text())
    assert (found["outcome"], found["features"]) == ("pass", ["bill", "use"])


def test_an_approval_is_given_and_shown_with_all_it_binds(house: House):
    """One screen: who, which step, which package, until when; and it binds."""
    attach_all(house)

    output = said("approve", RELEASE, "--reason", "calibrated", "--key", house.key("ann"))

    for part in ("canary 5 % in eu", "e1", "dpia", "approved by", "until"):
        assert part in output
    entries, now = house.ledger.entries("credit"), datetime.now(UTC)
    plan = plan_of(load("credit").rollout, market="eu")
    state = house.story.state(RELEASE)
    answer = binding(entries, state, plan, roles=standings(house.ledger), now=now)
    assert answer is not None
    assert (answer.granted, answer.actor) == (True, "ann")


def test_somebody_at_a_terminal_sees_what_is_signed_and_is_asked(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    """No signs nothing, yes signs what was shown, and --yes asks nothing."""
    attach_all(house)
    monkeypatch.setattr(approvals, "is_asked", lambda: True)
    answer = ["approve", RELEASE, "--reason", "calibrated", "--key", house.key("ann")]
    before = house.ledger.head()

    done = CliRunner().invoke(APP, answer, input="n\n")
    assert (done.exit_code, house.ledger.head()) == (1, before)
    assert "canary 5 % in eu" in done.output
    assert "dpia" in done.output

    done = CliRunner().invoke(APP, answer, input="y\n")
    assert (done.exit_code, house.ledger.head().sequence) == (0, before.sequence + 1)
    assert "approve this?" not in said(*answer, "--yes")


def test_what_changed_since_it_was_shown_is_not_signed(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    """A document that is attached while the question stands is in no approval."""
    attach_all(house)
    monkeypatch.setattr(approvals, "is_asked", lambda: True)

    def meanwhile(*_: object, **__: object) -> None:
        file = house.path / "dpia.txt"
        file.write_text("another")
        said("attach", "credit/3", "dpia", str(file), "--key", house.key("carl"))

    monkeypatch.setattr(typer, "confirm", meanwhile)

    with pytest.raises(Refused, match="documents changed since"):
        said("approve", RELEASE, "--reason", "y", "--key", house.key("ann"))


def test_a_refusal_says_that_it_ends_the_release(house: House):
    """It needs no document."""
    output = said("refuse", "credit", "--reason", "too few over fifty", "--key", house.key("ann"))

    assert "refused by" in output
    assert "the release ends" in output


def test_what_cannot_be_approved_is_said_with_what_to_do(house: House):
    """Documents that lack, somebody who may not, a release that waits for nothing."""
    with pytest.raises(Refused, match="penstock release attach"):
        said("approve", RELEASE, "--reason", "y", "--key", house.key("ann"))
    attach_all(house)
    with pytest.raises(Refused, match="carl does not hold the role approver"):
        said("approve", RELEASE, "--reason", "y", "--key", house.key("carl"))
    with pytest.raises(KeyFileError, match="is not there"):
        said("approve", RELEASE, "--reason", "y", "--key", house.key("nobody"))
    house.story.now = datetime.now(UTC)
    house.story.do(RELEASE, Act.ENTER, 1)
    with pytest.raises(Refused, match="waits for no approval; it is in CANARY"):
        said("approve", RELEASE, "--reason", "y", "--key", house.key("ann"))


def test_a_release_of_another_policy_is_not_approved_here(house: House):
    """Whoever approves must see the policy that the release follows."""
    house.story.do(RELEASE, Act.ROLL_BACK)
    house.story.policy = type(house.story.policy)(
        **{**vars(house.story.policy), "min_users": 12345}
    )
    waiting(house.story, registered=True)

    with pytest.raises(Refused, match="follows another policy"):
        said("approve", "credit", "--reason", "y", "--key", house.key("ann"))


def test_only_what_a_market_asks_for_is_attached(house: House):
    """A misspelt name would lie there and be missed all the same."""
    with pytest.raises(ValueError, match="they ask for dpia, prohibited-features, human-review"):
        said("attach", "credit/3", "dpai", "x", "--key", house.key("carl"))
    with pytest.raises(Refused, match="the result of a check"):
        said("attach", "credit/3", "prohibited-features", "x", "--key", house.key("carl"))
    with pytest.raises(ValueError, match="name its file"):
        said("attach", "credit/3", "dpia", "--key", house.key("carl"))
    with pytest.raises(ValueError, match="names no version"):
        said("documents", "credit")


@pytest.mark.parametrize("ask", [Ask.PAUSE, Ask.ABORT, Ask.ROLL_BACK])
def test_a_command_is_an_entry_of_whoever_gives_it(house: House, ask: Ask):
    """By release or by workload; where no controller heeds it, it says so and what to type."""
    verb = str(ask).replace(" ", "")

    output = said(verb, "credit", "--reason", "odd labels", "--key", house.key("carl"))

    entry = house.ledger.entries("credit")[-1]
    assert f"entry {entry.sequence}: carl asked to {ask} release {RELEASE}" in output
    assert "NOBODY CARRIES IT" in output
    assert "penstock release run credit" in output
    assert ("penstock kill" in output) == (ask is not Ask.PAUSE)
    assert entry.body == {"release": RELEASE, "command": str(ask), "reason": "odd labels"}


def test_the_key_of_the_environment_acts_where_none_is_named(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    """As with every other verb."""
    monkeypatch.setenv("PENSTOCK_KEY", house.key("carl"))

    assert "carl asked to abort" in said("abort", RELEASE, "--reason", "r")


def test_a_command_to_nobody_is_refused_with_a_list(house: House):
    """No release, several, or one that nobody opened: each is said."""
    key = ("--reason", "r", "--key", house.key("carl"))
    with pytest.raises(LedgerError, match="credit/9/eu/1"):
        said("pause", "credit/9/eu/1", *key)
    house.story.open(3, "us")
    with pytest.raises(LookupError, match="name one of credit/3/eu/1, credit/3/us/1"):
        said("pause", "credit", *key)
    for release in (RELEASE, "credit/3/us/1"):
        house.story.do(release, Act.ROLL_BACK)
    with pytest.raises(LookupError, match="no release of credit goes on"):
        said("pause", "credit", *key)


def test_a_command_that_somebody_heeds_says_so(house: House):
    """Whoever holds the lease and lives."""
    FileLease(house.path / "home" / "serving").acquire(RELEASE, datetime.now(UTC))

    output = said("abort", RELEASE, "--reason", "r", "--key", house.key("carl"))

    assert "its controller heeds it" in output
    assert "NOBODY" not in output


@pytest.mark.parametrize(
    "named",
    [("credit/3",), ("credit/3/us",), ("credit/3/us/1/2",), ("credit//us/1",), ("",),
     ("credit/3/us/1", "--market", "eu")],
)  # fmt: skip
def test_what_names_no_release_returns_nobody(house: House, named: tuple[str, ...]):
    """Half a name must not take users off whatever serves."""
    house.story.now = datetime.now(UTC)
    house.story.finish(3, "us")
    before = house.ledger.head()

    with pytest.raises(ValueError, match=r"names no release|is in market us, not in eu"):
        said("rollback", *named, "--reason", "r", "--key", house.key("carl"))

    assert house.ledger.head() == before


def test_a_reason_that_would_steer_a_terminal_is_refused(house: House):
    """Nor one that nobody would read to its end."""
    before = house.ledger.head()
    for verb in ("pause", "rollback", "refuse"):
        for reason in ("\x1b[2J", "x" * 1001):
            with pytest.raises(ValueError, match="printable"):
                said(verb, RELEASE, "--reason", reason, "--key", house.key("carl"))

    assert house.ledger.head() == before


def test_users_are_returned_only_from_the_version_that_answers_them(house: House):
    """A release that ended otherwise has nobody to return, and a market is not another one."""
    key = ("--reason", "r", "--key", house.key("carl"))
    house.story.now = datetime.now(UTC)
    us = house.story.finish(3, "us")
    before = house.ledger.head()

    for named in (("credit", "--market", "us"), (us,)):
        with pytest.raises(PlaneError):
            said("rollback", *named, *key)
    assert house.ledger.head() == before, "no servers, so nothing was begun"

    house.story.do(RELEASE, Act.ROLL_BACK)
    with pytest.raises(Refused, match="version 3 does not answer the users of eu, nobody does"):
        said("rollback", RELEASE, *key)
