"""Laws of the kill switch, on a real Envoy, real processes and a ledger on SQLite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from penstock.ledger import Ledger, LedgerError
from penstock.ledger.actors import ROLES
from penstock.rollout import kill, killnotes, killroll, killserver, killtokens, switch
from penstock.rollout.killeffect import fallback_of
from penstock.rollout.killroll import NotAllowed
from penstock.rollout.plane import Plane, PlaneError
from penstock.rollout.supervisor import COMMAND_VARIABLE
from penstock.rollout.table import TrafficTable
from tests.packages import free_port, wait_for
from tests.people import person
from tests.rollout.test_plane import INFER, STANDIN, filled, table

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def standin() -> Iterator[None]:
    """Slots run the stand-in: the switch does not depend on what is served."""
    patch = pytest.MonkeyPatch()
    patch.setenv(COMMAND_VARIABLE, STANDIN)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger in which each role has a person of its name, and "tester" has all."""
    held = Ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}")
    tester = person()
    held.append(workload="digits", version=1, kind="note", body={}, actor=tester, now=NOW)
    for role in sorted(ROLES):
        one = person(role)
        held.enrol(name=role, public_key=one.public_key, roles=[role], actor=tester, now=NOW)
    yield held
    held.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, ledger: Ledger) -> Iterator[Plane]:
    """One plane, whose switch each test throws anew."""
    made = filled(tmp_path_factory.mktemp("kill"))
    killroll.remember(made.home, ledger)
    yield made
    made.down()


@pytest.fixture
def plane(shared: Plane) -> Iterator[Plane]:
    """The plane with everybody on slot a, or half on b; the switch is off again afterwards."""
    table(shared, 32)
    yield shared
    switch.turn(shared.home / "serving", switch.OFF)
    wait_for(lambda: in_force(shared) is None, 5)
    for path in (shared.home / "serving" / "runtime").glob("kill-*.json"):
        path.unlink()


def in_force(plane: Plane) -> str | None:
    """Return where Envoy itself says that the switch leads."""
    return plane.switch_in_force()


def slots_of(plane: Plane, users: int = 60) -> set[str]:
    """Return who answers many users."""
    with httpx.Client(base_url=plane.url) as client:
        asked = [client.post(INFER, headers={"x-user-id": f"u{n}"}) for n in range(users)]
    assert {a.status_code for a in asked} == {200}
    return {a.headers["x-penstock-slot"] for a in asked}


def test_nobody_reaches_the_killed_version_until_it_is_cleared(plane: Plane, ledger: Ledger):
    """Thrown, everybody is answered by the fallback, whatever tables say; cleared, tables count."""
    assert slots_of(plane) == {"a", "b"}

    kill.throw(plane.home, person("compliance"), reason="unfair to some", now=NOW)
    wait_for(lambda: in_force(plane) == "a", 5)

    assert slots_of(plane) == {"a"}
    for buckets in (6, 64):
        made = table(plane, buckets)
        assert slots_of(plane) == {"a"}
        assert "kill switch" in plane.verify(made)
    assert "unfair to some" in plane.killed()
    kill.clear(plane.home, ledger, person("compliance"), workload="digits", reason="ok", now=NOW)
    wait_for(lambda: in_force(plane) is None, 5)
    assert slots_of(plane) == {"a"}, "nobody is on what was killed when tables count again"
    cleared = [e for e in ledger.entries("digits") if e.kind == kill.CLEARED][-1]
    assert cleared.body["tables"] == [plane.written("all").to_dict()]
    assert plane.killed() == ""


def test_under_load_the_last_answer_of_the_killed_version_is_soon(plane: Plane):
    """No request that was sent after Envoy took the switch is answered by it, and none fails."""
    answers: list[tuple[float, int, str]] = []
    stop = threading.Event()

    def load(worker: int) -> None:
        with httpx.Client(base_url=plane.url) as client:
            for n in iter(lambda: len(answers), -1):
                if stop.is_set():
                    return
                begun = time.monotonic()
                answer = client.post(INFER, headers={"x-user-id": f"{worker}-{n}"})
                answers.append((begun, answer.status_code, answer.headers["x-penstock-slot"]))

    workers = [threading.Thread(target=load, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    wait_for(lambda: "b" in {slot for _, _, slot in answers}, 5)
    kill.throw(plane.home, person("operator"), reason="now", now=NOW)
    wait_for(lambda: in_force(plane) == "a", 5)
    taken = time.monotonic()
    seen = len(answers)
    wait_for(lambda: len(answers) > seen + 100, 10)
    stop.set()
    for worker in workers:
        worker.join()

    assert {status for _, status, _ in answers} == {200}
    assert {slot for begun, _, slot in answers if begun > taken} == {"a"}


def test_copies_stop_too(plane: Plane):
    """While the switch is thrown no copy of a request reaches the killed version."""
    table(plane, 0, mirror="b")
    kill.throw(plane.home, person("operator"), reason="now", now=NOW)
    wait_for(lambda: in_force(plane) == "a", 5)
    seen = plane.log_folder("b") / "seen.jsonl"
    before = seen.read_text().count("\n") if seen.exists() else 0

    assert slots_of(plane) == {"a"}
    time.sleep(0.2)
    assert (seen.read_text().count("\n") if seen.exists() else 0) == before


@pytest.mark.parametrize("role", sorted(ROLES))
def test_only_some_roles_may_throw_and_fewer_may_clear(plane: Plane, ledger: Ledger, role: str):
    """Compliance, operator and admin throw it; compliance and admin clear it; nobody else."""
    actor = person(role)
    if role not in killroll.THROWERS:
        with pytest.raises(NotAllowed, match="it takes the role"):
            kill.throw(plane.home, actor, reason="x", now=NOW)
        assert kill.killed(plane.home) is None
    kill.throw(plane.home, person("operator"), reason="x", now=NOW)
    # An admin alone may write no entry of a controller; the tick has entered the throw before.
    kill.reconcile(ledger, person(), home=plane.home, workload="digits", now=NOW)
    if role in kill.CLEARERS:
        kill.clear(plane.home, ledger, actor, workload="digits", reason="safe", now=NOW)
        assert kill.killed(plane.home) is None
    else:
        with pytest.raises(NotAllowed, match="may not clear"):
            kill.clear(plane.home, ledger, actor, workload="digits", reason="safe", now=NOW)
        assert kill.killed(plane.home) is not None


def test_another_key_of_the_same_name_is_nobody(plane: Plane):
    """Who throws it is proven by the key that the ledger knew, not by a name."""
    impostor = type(person())("operator", person("somebody").private_key)

    with pytest.raises(NotAllowed):
        kill.throw(plane.home, impostor, reason="x", now=NOW)

    assert kill.killed(plane.home) is None


def test_it_is_entered_once_when_the_ledger_is_back(plane: Plane, ledger: Ledger):
    """The signed request becomes one entry, however often it is reconciled, and bears its proof."""
    made = kill.throw(plane.home, person("operator"), reason="dark", now=NOW, to="a")
    for _ in range(2):
        kill.reconcile(ledger, person(), home=plane.home, workload="digits", now=NOW)

    entries = [e for e in ledger.entries("digits") if e.kind == kill.KILL]
    mine = [e.body for e in entries if e.body["id"] == made.id]
    assert len(mine) == 1
    assert (mine[0]["by"], mine[0]["to"], mine[0]["verified"]) == ("operator", "a", True)
    assert mine[0]["killed"] == ["2"]
    assert kill.unrecorded(plane.home) == []


def test_a_request_that_was_altered_is_not_vouched_for(plane: Plane, ledger: Ledger):
    """A reason that was changed in the file after it was signed shows in the ledger."""
    made = kill.throw(plane.home, person("operator"), reason="dark", now=NOW)
    path = plane.home / "serving" / "runtime" / f"kill-{made.id}.json"
    path.write_text(path.read_text().replace("dark", "fair"))

    kill.reconcile(ledger, person(), home=plane.home, workload="digits", now=NOW)

    body = next(e.body for e in ledger.entries("digits")[::-1] if e.kind == kill.KILL)
    assert (body["reason"], body["verified"]) == ("fair", False)


def test_what_is_not_in_the_ledger_is_not_cleared(plane: Plane, tmp_path: Path):
    """While the ledger cannot be written the switch stays thrown."""
    kill.throw(plane.home, person("operator"), reason="x", now=NOW)
    away = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    away.append(workload="digits", version=1, kind="note", body={}, actor=person(), now=NOW)
    away.close()
    looking = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", looking=True)

    with pytest.raises(LedgerError):
        kill.clear(plane.home, looking, person(), workload="digits", reason="safe", now=NOW)

    assert kill.killed(plane.home) is not None
    looking.close()


def test_a_link_that_is_turned_by_hand_is_enough(plane: Plane, ledger: Ledger):
    """Two shell commands throw it; the ledger then says that it was the files' owner."""
    folder = plane.home / "serving" / "runtime"
    subprocess.run("ln -s to-a now && mv -T now current", shell=True, cwd=folder, check=True)
    wait_for(lambda: in_force(plane) == "a", 5)

    assert slots_of(plane) == {"a"}
    assert killnotes.BY_HAND in plane.killed()
    kill.reconcile(ledger, person(), home=plane.home, workload="digits", now=NOW)
    body = next(e.body for e in ledger.entries("digits")[::-1] if e.kind == kill.KILL)
    assert (body["how"], body["verified"], body["killed"]) == ("file", False, ["2"])
    assert slots_of(plane) == {"a"}


def test_the_killed_version_cannot_come_back_through_the_other_slot(plane: Plane):
    """While it is thrown the slot that answers takes no killed version, nor another throw to it."""
    kill.throw(plane.home, person("operator"), reason="x", now=NOW, to="a")

    with pytest.raises(PlaneError, match="while the kill switch is thrown"):
        plane.set_slot("a", package=plane.home, digest="sha256:1", version="2")
    with pytest.raises(ValueError, match="was killed"):
        kill.throw(plane.home, person("operator"), reason="x", now=NOW, to="b")
    with pytest.raises(ValueError, match="serves nothing"):
        kill.throw(plane.home, person("operator"), reason="x", now=NOW, to="rules")


def test_a_full_disk_does_not_keep_it_from_being_thrown(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
):
    """Where the request cannot be kept the link is turned all the same."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(killnotes, "write_private", full)
    kill.throw(plane.home, person("operator"), reason="x", now=NOW)
    wait_for(lambda: in_force(plane) == "a", 5)

    assert slots_of(plane) == {"a"}


def test_it_needs_neither_supervisor_nor_ledger_and_outlives_a_restart(
    tmp_path: Path, ledger: Ledger
):
    """Thrown while the supervisor hangs, it holds, and holds when everything is started anew."""
    plane = filled(tmp_path)
    killroll.remember(plane.home, ledger)
    table(plane, 64)
    pid = plane.status()["supervisor"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    kill.throw(plane.home, person("admin"), reason="dark", now=NOW)
    wait_for(lambda: in_force(plane) == "a", 5)
    assert slots_of(plane) == {"a"}
    os.kill(pid, signal.SIGCONT)
    plane.down()

    again = Plane.up(tmp_path, model="digits", port=free_port())
    again.wait_ready("a", version="1", timeout_s=20)
    assert in_force(again) == "a"
    again.set_slot("b", package=tmp_path, digest="sha256:1", version="2")
    again.wait_ready("b", version="2", timeout_s=20)
    table(again, 64)
    wait_for(lambda: again.probe("a", INFER, b"{}")[0] == 200, 5)
    assert slots_of(again) == {"a"}
    again.down()


def test_where_the_policy_says_rules_their_server_stands_ready(tmp_path: Path, ledger: Ledger):
    """Of credit the switch leads to the rules, in a slot that came up with the first version."""
    plane = Plane.up(tmp_path, model="credit", port=free_port())
    killroll.remember(tmp_path, ledger)
    plane.set_slot("a", package=tmp_path, digest="sha256:1", version="1")
    for slot, version in (("a", "1"), ("rules", "rules")):
        plane.wait_ready(slot, version=version, timeout_s=20)
        wait_for(lambda s=slot: plane.probe(s, INFER, b"{}")[0] == 200, 5)  # type: ignore[misc]
    table(plane, 0, fallback="rules")
    assert slots_of(plane) == {"a"}

    made = kill.throw(tmp_path, person("compliance"), reason="unfair", now=NOW)
    wait_for(lambda: in_force(plane) == "rules", 5)

    assert slots_of(plane) == {"rules"}
    assert (made.to, made.killed) == ("rules", ("1",))
    plane.down()
    again = Plane.up(tmp_path, model="credit", port=free_port())
    again.wait_ready("rules", version="rules", timeout_s=20)
    wait_for(lambda: again.probe("rules", INFER, b"{}")[0] == 200, 5)
    assert slots_of(again) == {"rules"}
    again.down()


def test_over_http_a_token_throws_it_and_outlives_the_supervisor(tmp_path: Path, ledger: Ledger):
    """One call with the token throws it, also when the supervisor was killed; none without."""
    plane = Plane.up(tmp_path, model="digits", port=free_port())
    plane.set_slot("a", package=tmp_path, digest="sha256:1", version="1")
    killroll.remember(tmp_path, ledger)
    token, port = killtokens.new_token(tmp_path, "desk", person("compliance"))
    assert token not in killtokens.tokens_of(tmp_path).read_text()
    url = f"http://127.0.0.1:{port}/kill"
    wait_for(lambda: killserver.heard(port), 10)
    os.kill(plane.status()["supervisor"]["pid"], signal.SIGKILL)
    wait_for(lambda: not Plane.running(tmp_path), 5)
    with httpx.Client(headers={"authorization": f"Bearer {token}"}) as desk:
        assert httpx.post(url, json={"reason": "x"}).status_code == 401
        wrong = {"authorization": "Bearer " + "0" * 64}
        assert httpx.post(url, json={"reason": "x"}, headers=wrong).status_code == 401
        for body in (b"", b"[]", b"{}", b"nonsense", b'{"reason": " "}', b'{"reason": 3}'):
            assert desk.post(url, content=body).status_code == 400
        assert desk.post(url, json={"reason": "x", "to": "c"}).status_code == 400
        assert desk.get(url).json() == {"thrown": False}
        said = desk.post(url, json={"reason": "unfair", "to": "a"})
        assert desk.get(url).json()["by"] == "desk"
    assert said.json()["thrown"]
    assert httpx.get(url).json() == {"thrown": True}
    assert httpx.get(url, headers=wrong).json() == {"thrown": True}
    found = kill.killed(tmp_path)
    assert found is not None
    assert (found.by, found.how, found.maker) == ("desk", "token", "compliance")
    assert plane.sweep() >= 1
    assert not killserver.heard(port)


def at(**fields: object) -> TrafficTable:
    """Return a table with everybody on slot a, but for what is said."""
    same = {"sequence": 1, "salt": "s", "champion": "a", "challenger": None, "buckets": 0}
    return TrafficTable.from_dict({**same, "mirror": None, **fields})


def test_the_declared_fallback_of_any_market_is_taken():
    """Rules where one market declares them; else a slot that no market tries out."""
    assert fallback_of({"all": at()}) == "a"
    assert fallback_of({"all": at(fallback="b")}) == "b"
    assert fallback_of({"all": at(), "eu": at(market="eu", fallback="rules")}) == "rules"
    trial = at(market="eu", champion="b", challenger="a", buckets=6)
    assert fallback_of({"all": at(champion="a"), "eu": trial}) == "b"
    with pytest.raises(ValueError, match="name a slot"):
        fallback_of({})


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
