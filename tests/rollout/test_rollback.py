"""Laws of rollbacks, on a real Envoy under load: order, nobody fails, state is seen to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.bundle import Bundle
from penstock.ledger import REGISTERED, Ledger, NotEnrolled, Stage, stage_of
from penstock.release import State
from penstock.rollout import back as backs
from penstock.rollout import branches, kill, killeffect, switch
from penstock.rollout.back import Kind, back, exposed_since, kind_of
from penstock.rollout.plan import plan_of
from penstock.rollout.plane import Plane
from penstock.rollout.state import IN_FORCE, INTENT, OPENED
from penstock.rollout.supervisor import COMMAND_VARIABLE
from penstock.rollout.table import TrafficTable
from penstock.rollout.turning import turn
from penstock.stage import Refused
from penstock.workload import load
from tests.bundles import NOW
from tests.packages import make_package, wait_for
from tests.people import person
from tests.rollout.test_plane import INFER, STANDIN, filled

WAY = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)
LATER = NOW + timedelta(hours=2)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One plane of stand-ins with version 1 in slot a and version 2 in slot b."""
    patch = pytest.MonkeyPatch()
    patch.setenv(COMMAND_VARIABLE, STANDIN)
    made = filled(tmp_path_factory.mktemp("rollback"))
    yield made
    made.down()
    patch.undo()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Two packages; stand-ins serve them, and only their digests count."""
    folder = tmp_path_factory.mktemp("packages")
    return [make_package(folder / str(n), seed=n) for n in (1, 2)]


@pytest.fixture
def ledger(tmp_path: Path, packages: list[Bundle]) -> Iterator[Ledger]:
    """A ledger in which version 2 serves and version 1 did before."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    for number, package in enumerate(packages, 1):
        named: dict[str, Any] = {"workload": "digits", "version": number, "actor": person()}
        body = {"package": str(package.path), "digest": package.digest}
        held.append(**named, kind=REGISTERED, body=body | {"fingerprint": str(number)}, now=NOW)
        for stage in WAY:
            held.move(**named, to=stage, reason="t", now=NOW)
    yield held
    held.close()


@pytest.fixture
def golden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in gives no golden answers; that they are asked is tested with a real server."""
    monkeypatch.setattr(Plane, "verify_slot", lambda _plane, _slot: "")


def put(plane: Plane, **fields: Any) -> TrafficTable:
    """Put a table of everybody in force."""
    same = {"salt": "s", "champion": "a", "challenger": None, "buckets": 0, "mirror": None}
    made = TrafficTable(sequence=plane.written().sequence + 1, **{**same, **fields})
    plane.apply(made)
    plane.wait_applied(made, timeout_s=5)
    return made


def serving(plane: Plane, ledger: Ledger) -> None:
    """Let version 2 in slot b serve, with version 1 on the warm standby."""
    for slot, version in (("a", "1"), ("b", "2")):
        if plane.status()["slots"][slot]["version"] != version:
            plane.set_slot(slot, package=plane.home, digest="sha256:1", version=version)
            plane.wait_ready(slot, version=version, timeout_s=20)
            wait_for(lambda s=slot: plane.probe(s, "/v2/models/digits/ready")[0] == 200, 5)  # type: ignore[misc]
    assert ledger.entries("digits")
    put(plane, champion="b", trickle="a")


@contextmanager
def users(plane: Plane, count: int = 3) -> Iterator[list[tuple[float, int, str]]]:
    """Let users ask while the block runs; yield when each was sent, its status, who answered."""
    answers: list[tuple[float, int, str]] = []
    stop = threading.Event()

    def ask(worker: int) -> None:
        with httpx.Client(base_url=plane.url) as client:
            number = 0
            while not stop.is_set():
                number += 1
                begun = time.monotonic()
                answer = client.post(INFER, headers={"x-user-id": f"{worker}-{number}"})
                answers.append((begun, answer.status_code, answer.headers["x-penstock-slot"]))

    workers = [threading.Thread(target=ask, args=(n,)) for n in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield answers
    finally:
        stop.set()
        for worker in workers:
            worker.join()


SHAPES: dict[str, dict[str, Any]] = {
    "canary": {"challenger": "b", "buckets": 6},
    "progressive": {"challenger": "b", "buckets": 32},
    "bake": {"challenger": "b", "buckets": 64, "trickle": "a"},
    "shadow": {"mirror": "b"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_no_challenger_answers_a_request_after_the_table_was_read_back(plane: Plane, shape: str):
    """From any step: none fails, none that was sent later is answered by the challenger."""
    with users(plane) as answers:
        for _ in range(4):
            held = put(plane, **SHAPES[shape])
            seen = len(answers)
            wait_for(lambda n=seen: len(answers) > n + 30, 5)  # type: ignore[misc]
            away = replace(
                held, sequence=held.sequence + 1, challenger=None, buckets=0, mirror=None,
                trickle=None,
            )  # fmt: skip
            turned = turn(plane, away)
            known = time.monotonic()
            seen = len(answers)
            wait_for(lambda n=seen: len(answers) > n + 30, 5)  # type: ignore[misc]
            assert turned.wrong == ""
            assert {slot for begun, _, slot in answers if begun > known} == {"a"}

    assert {status for _, status, _ in answers} == {200}
    assert ("b" in {slot for _, _, slot in answers}) == (shape != "shadow")


def test_verification_hears_a_slot_that_is_still_asked(plane: Plane):
    """A slot that no table names and that is sent requests nevertheless is named."""
    held = put(plane)
    stop = threading.Event()

    def probe() -> None:
        while not stop.is_set():
            plane.probe("b", INFER, b"{}")

    prober = threading.Thread(target=probe)
    prober.start()
    said = plane.verify(held)
    stop.set()
    prober.join()

    assert said == "slot b is still sent requests"
    assert plane.verify(held) == ""


@pytest.mark.usefixtures("golden")
def test_users_go_back_to_a_loaded_standby_after_a_release_was_done(plane: Plane, ledger: Ledger):
    """Immediate, nobody fails, in the ledger before and after; the version is archived."""
    serving(plane, ledger)
    with users(plane) as answers:
        wait_for(lambda: len(answers) > 30, 5)
        done = returned(plane, ledger)
        seen = len(answers)
        wait_for(lambda: len(answers) > seen + 30, 5)

    assert {status for _, status, _ in answers} == {200}
    assert (done.version, done.to, done.kind) == (2, 1, Kind.IMMEDIATE)
    assert plane.observe().slot_for(0) == "a"
    entries = ledger.entries("digits")
    kinds = [e.kind for e in entries if e.kind in (backs.RETURNING, branches.BACK)]
    assert kinds == [backs.RETURNING, branches.BACK]
    assert stage_of(entries, 2) is Stage.ARCHIVED
    assert branches.champion_in(entries, "all", load("digits").rollout) == 1
    assert plane.status()["slots"]["b"]["state"] == "stopped"
    with pytest.raises(Refused, match="no version before"):
        returned(plane, ledger)


@pytest.mark.usefixtures("golden")
def test_users_go_back_behind_the_kill_switch(plane: Plane, ledger: Ledger):
    """Killed after its release, a version is left before the switch is cleared, and after it."""
    serving(plane, ledger)
    folder = plane.home / "serving"
    switch.turn(folder, "to-a")
    kill.adopt(plane.home, NOW)
    thrown = kill.killed(plane.home)
    assert thrown is not None
    try:
        assert "version 2, which was killed" in killeffect.exposing(folder, thrown)
        done = returned(plane, ledger)
        assert killeffect.exposing(folder, thrown) == ""
    finally:
        switch.turn(folder, switch.OFF)

    assert (done.version, done.to) == (2, 1)
    assert "kill switch still decides" in done.notes[0]
    assert plane.observe().champion == "a"
    assert plane.status()["slots"]["b"]["state"] == "stopped"


def returned(plane: Plane, ledger: Ledger, *, by: str | None = None) -> backs.Back:
    """Return everybody."""
    return back(
        plane.home,
        ledger,
        workload="digits",
        market="all",
        reason="complaints",
        actor=person() if by is None else person(by),
        now=LATER,
    )


@pytest.mark.usefixtures("golden")
def test_a_version_that_is_not_loaded_is_started_from_what_was_registered(
    plane: Plane, ledger: Ledger
):
    """Rapid: users stay where they are until it is ready, and none fails."""
    serving(plane, ledger)
    put(plane, champion="b")
    plane.stop_slot("a")
    with users(plane) as answers:
        done = returned(plane, ledger)

    assert {status for _, status, _ in answers} == {200}
    assert (done.to, done.kind) == (1, Kind.RAPID)
    assert plane.observe().champion == "a"


@pytest.mark.usefixtures("golden")
def test_answers_that_became_training_data_are_flagged(
    plane: Plane, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """Of a workload with feedback the ledger tells from when to when its answers are not sound."""
    serving(plane, ledger)
    feedback(monkeypatch)
    done = returned(plane, ledger)

    [flagged] = [e for e in ledger.entries("digits") if e.kind == backs.CONTAMINATED]
    assert flagged.version == 2
    assert flagged.body["since"] == NOW.isoformat()
    assert flagged.body["until"] == LATER.isoformat()
    assert any("flagged" in note for note in done.notes)
    assert any("sessions" in note for note in done.notes)


def feedback(patch: pytest.MonkeyPatch) -> None:
    """Let digits' answers become training data."""
    declared = load("digits")
    policy = replace(declared.rollout, state=State.FEEDBACK)
    patch.setattr(backs, "load", lambda _: replace(declared, rollout=policy))


def test_copies_are_no_exposure(ledger: Ledger):
    """The window begins with the first user of the market who was answered, not with the shadow."""
    name, shown = "digits/2/all/1", NOW + timedelta(hours=1)
    shadow = TrafficTable(
        sequence=1, salt="s", champion="a", challenger=None, buckets=0, mirror="b"
    )
    canary = replace(shadow, sequence=2, challenger="b", buckets=6, mirror=None)

    def enter(kind: str, at: datetime, **body: Any) -> None:
        said = {"release": name, **body}
        ledger.append(workload="digits", version=2, kind=kind, body=said, actor=person(), now=at)

    enter(OPENED, NOW, market="all")
    for n, table, at in ((1, shadow, NOW), (2, canary, shown)):
        enter(INTENT, NOW, n=n, action="enter", table=table.to_dict())
        enter(IN_FORCE, at, n=n)

    entries = ledger.entries("digits")
    assert exposed_since(entries, 2, "all") == shown.isoformat()
    with pytest.raises(LookupError):
        exposed_since([e for e in entries if e.kind != IN_FORCE], 2, "all")


@pytest.mark.usefixtures("golden")
def test_what_cannot_be_written_down_is_not_done(plane: Plane, ledger: Ledger):
    """Somebody whom the ledger does not take moves nobody; nobody goes back to what was killed."""
    serving(plane, ledger)
    before = plane.observe()
    with pytest.raises(Exception, match="not enrolled"):
        back(
            plane.home,
            ledger,
            workload="digits",
            market="all",
            reason="x",
            actor=person("nobody"),
            now=LATER,
        )
    switch.turn(plane.home / "serving", "to-b")
    kill.adopt(plane.home, NOW)
    try:
        with pytest.raises(Refused, match="version 1 was killed as well"):
            returned(plane, ledger)
    finally:
        switch.turn(plane.home / "serving", switch.OFF)

    assert plane.observe() == before
    assert [e for e in ledger.entries("digits") if e.kind == backs.RETURNING] == []


@pytest.mark.usefixtures("golden")
def test_while_a_release_goes_on_its_controller_alone_returns_users(plane: Plane, ledger: Ledger):
    """It is named with what to type; nobody is moved, and a slot that it needs is not free."""
    serving(plane, ledger)
    before, plan = plane.observe(), plan_of(load("digits").rollout, market="all")
    arms = {"challenger": {"version": 2, "digest": "d", "slot": "a"}, "champion": None}
    body = {"release": "digits/2/all/1", "market": "all", "trigger": "manual", **arms}
    body |= {"plan": plan.to_dict(), "plan_hash": plan.fingerprint()}
    ledger.append(workload="digits", version=2, kind=OPENED, body=body, actor=person(), now=NOW)

    with pytest.raises(Refused, match="digits/2/all/1 goes on there, in PREPARE"):
        returned(plane, ledger)

    entries = ledger.entries("digits")
    assert plane.observe() == before
    assert [e for e in entries if e.kind == backs.RETURNING] == []
    put(plane, champion="b", mirror="a")
    for known in (entries, ()):
        with pytest.raises(Refused, match="serve a release"):
            backs._free(plane, known, "all")
        put(plane, champion="b", mirror="a")


@pytest.mark.usefixtures("golden")
def test_whoever_may_not_return_users_starts_no_server(plane: Plane, ledger: Ledger):
    """The right is seen before anything is touched; an admin has it, to the archive."""
    serving(plane, ledger)
    put(plane, champion="b")
    plane.stop_slot("a")
    for name, role in (("val", "validator"), ("adam", "admin")):
        ledger.enrol(
            name=name, public_key=person(name).public_key, roles=[role], actor=person(), now=NOW
        )
    with pytest.raises(NotEnrolled, match="val may not write a 'returning' entry"):
        returned(plane, ledger, by="val")
    assert plane.status()["slots"]["a"]["state"] == "stopped"

    assert returned(plane, ledger, by="adam").to == 1
    assert stage_of(ledger.entries("digits"), 2) is Stage.ARCHIVED


@pytest.mark.usefixtures("golden")
def test_servers_of_another_workload_are_left_alone(
    plane: Plane, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """A rollback of one workload moves no users of another."""
    serving(plane, ledger)
    status = plane.status() | {"model": "credit"}
    monkeypatch.setattr(Plane, "status", lambda _plane: status)

    with pytest.raises(Refused, match="serve credit, not digits"):
        returned(plane, ledger)


def test_the_way_back_follows_from_what_is_loaded_and_what_is_learned():
    """Loaded is immediate, whatever else; else rapid, or delayed where answers are learned from."""
    assert {kind_of(state, loaded=True) for state in State} == {Kind.IMMEDIATE}
    assert [kind_of(state, loaded=False) for state in State] == [
        Kind.RAPID,
        Kind.RAPID,
        Kind.DELAYED,
    ]
