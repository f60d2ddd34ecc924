"""Laws of one process of the controller: threads, probes, numbers, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.ledger import LedgerError
from penstock.rollout.adapters.probes import Numbers, answering
from penstock.rollout.adapters.replica import Replica
from penstock.rollout.adapters.rounds import LONGEST_S, Ending, Rounds, ending_sleep
from penstock.rollout.ports import TableError
from tests.rollout.adapters import published
from tests.rollout.adapters.stage import wait
from tests.rollout.controlled.world import LEASE, World, world


class Counted:
    """Counts what rounds tell."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failed: list[str] = []

    def round(self, workload: str, seconds: float, states: Any) -> None:
        self.done.append(workload)

    def error(self, workload: str) -> None:
        self.failed.append(workload)


class Bench:
    """A workload that does what a test says."""

    def __init__(self, *fails: BaseException) -> None:
        self.fails, self.opened, self.closed, self.rounds = list(fails), 0, 0, 0
        self.over = False

    @contextmanager
    def open(self) -> Iterator[Bench]:
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1

    def round(self) -> list[Any]:
        self.rounds += 1
        if self.fails:
            raise self.fails.pop(0)
        return []


def rounds(bench: Bench, counts: Counted, *, leads: bool = True, **more: Any) -> Rounds:
    """Return rounds of a bench."""
    told: list[Any] = []
    made = Rounds(
        workload="w",
        open=bench.open,
        leads=lambda: leads,
        counts=counts,
        emit=told.append,
        **more,
    )
    made.told = told  # type: ignore[attr-defined]
    return made


def test_what_passes_keeps_what_was_read_and_what_does_not_begins_anew():
    """An API server that is away costs no evidence; an error nobody thought of, all of it."""
    bench = Bench(TableError("away"), LedgerError("away"), RuntimeError("a bug"))
    counts = Counted()
    one = rounds(bench, counts)

    seen: list[tuple[int, str, float]] = []
    for _ in range(4):
        one.turn()
        seen.append((bench.opened - bench.closed, one.problem, one.pause_s()))

    assert [s[:2] for s in seen] == [
        (1, "TableError: away"),
        (1, "LedgerError: away"),
        (0, "RuntimeError: a bug"),
        (1, ""),
    ]
    assert [s[2] for s in seen] == [4.0, 8.0, 16.0, 2.0], "later each time, and no more when done"
    assert (counts.failed, counts.done) == (["w"] * 3, ["w"])


def test_the_same_failure_is_said_once():
    """A log that repeats itself every two seconds is read by nobody."""
    bench = Bench(*[TableError("away")] * 20)
    one = rounds(bench, Counted())
    for _ in range(20):
        one.turn()
    assert [e["text"] for e in one.told] == ["TableError: away"]
    assert one.pause_s() == LONGEST_S


def test_who_does_not_lead_does_nothing_and_lets_go():
    """What it had made is given up: the one that leads has its own."""
    bench, counts, leads = Bench(), Counted(), [True]
    one = rounds(bench, counts)
    one.leads = lambda: leads[0]
    one.turn()
    leads[0] = False
    one.turn()
    assert (bench.rounds, bench.opened, bench.closed) == (1, 1, 1)
    leads[0] = True
    one.turn()
    assert (bench.opened, bench.closed) == (2, 1)


def test_a_wait_is_cut_by_the_end_and_nothing_else_is():
    """The thread ends where it waits; what it held is let go."""
    stop, bench = threading.Event(), Bench()
    sleep = ending_sleep(stop)
    sleep(0.001)
    bench.round = lambda: sleep(60)  # type: ignore[method-assign,assignment]
    one = rounds(bench, Counted())
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    wait(lambda: bench.opened == 1)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert bench.closed == 1
    with pytest.raises(Ending):
        sleep(60)


def test_a_wake_is_a_round_at_once():
    """Whoever changed a route is not waited for."""
    bench, stop = Bench(), threading.Event()
    one = rounds(bench, Counted(), every_s=60.0)
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    wait(lambda: bench.rounds == 1)
    one.wake.set()
    wait(lambda: bench.rounds == 2)
    stop.set()
    one.wake.set()
    thread.join(10)
    assert not thread.is_alive()


def test_probes_say_what_is_wrong_and_nothing_else():
    """Alive and ready are two questions; whoever asks for more is told what there is."""
    wrong = {"live": "", "ready": "the ledger is away"}
    numbers = Numbers(["w"], lambda: True)
    with answering(
        "127.0.0.1",
        0,
        live=lambda: wrong["live"],
        ready=lambda: wrong["ready"],
        numbers=numbers.text,
    ) as port:
        asked = {
            path: httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)
            for path in ("/livez", "/readyz?verbose", "/metrics", "/other")
        }
    assert [a.status_code for a in asked.values()] == [200, 503, 200, 404]
    assert asked["/readyz?verbose"].text == "the ledger is away\n"
    assert "penstock_controller_leader 1.0" in asked["/metrics"].text
    assert 'rounds_total{outcome="failed",workload="w"} 0.0' in asked["/metrics"].text


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a world."""
    published.need()
    with world(tmp_path, monkeypatch) as made:
        yield made


@contextmanager
def running(held: Replica) -> Iterator[int]:
    """Let a replica run in a thread; yield the port of its probes."""
    ports: list[int] = []
    run: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "listening": ports.append}
    thread = threading.Thread(target=held.run, kwargs=run)
    thread.start()
    try:
        wait(lambda: ports)
        yield ports[0]
    finally:
        held.stop.set()
        thread.join(20)
        assert not thread.is_alive()


def holder(place: World) -> str:
    """Return who holds the Lease."""
    return place.cluster.fake.store.read(LEASE.path).get("spec", {}).get("holderIdentity", "")


def test_of_two_processes_one_acts_and_the_other_takes_over_when_told_to_end(place: World):
    """SIGTERM: the lease is given back, and the other leads at once."""
    one, two = place.replica("one"), place.replica("two")
    with running(one) as port:
        wait(one.election.leads)
        wait(lambda: place.table().trickle is None and place.slots().seen("a").state == "ready")
        assert httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False).status_code == 200
        with running(two) as other:
            url = f"http://127.0.0.1:{other}/readyz"
            wait(lambda: httpx.get(url, trust_env=False).status_code == 200)
            assert not two.election.leads()
            one.stop.set()
            wait(two.election.leads)
            wait(lambda: 'rounds_total{outcome="done"' in two.numbers.text().decode())
        assert holder(place) == ""
    assert [r.problem for r in (*one.rounds, *two.rounds)] == ["", ""]


def test_a_foreign_change_is_put_back_without_waiting_for_the_next_round(place: World):
    """Rounds are an hour apart here; the watch wakes one."""
    held = place.replica(every_s=3600.0)
    main = place.cluster.main
    with running(held):
        wait(held.election.leads)
        held.rounds[0].wake.set()
        wait(lambda: place.slots().seen("a").state == "ready")
        wait(lambda: place.cluster.plane.foreign() == "")
        requests = place.cluster.fake.requests
        wait(lambda: any("watch" in query for _, _, query in list(requests)))
        place.cluster.fake.edit(main, {"spec": {"hostnames": ["else.example.com"]}})
        wait(lambda: place.table().sequence > 0 and place.cluster.plane.foreign() == "")
    assert any(e["event"] == "foreign" and "kubectl-edit" in e["text"] for e in place.told)
    assert 'foreign_changes_total{workload="digits"} 1.0' in held.numbers.text().decode()


def test_a_turn_that_never_ends_is_not_alive(place: World):
    """Kubernetes then starts the process anew, and what it was at is in the ledger."""
    held = place.replica()
    assert held.live() == ""
    held.rounds[0].turned_s = time.monotonic() - 1000
    assert "digits" in held.live()


def test_once_does_one_round_and_gives_the_lease_back(place: World):
    """For a person, and for tests of a cluster; while another one leads it does nothing."""
    held = place.replica()
    assert held.once() == []
    assert (holder(place), place.slots().seen("a").state) == ("", "ready")
    other = place.replica("other")
    other.election.turn()
    assert held.once() == ["another replica leads"]


def test_what_is_over_is_made_anew_for_what_comes_next():
    """Nothing that a release has read is kept for as long as the process lives."""
    bench = Bench()
    one = rounds(bench, Counted())
    one.turn()
    bench.over = True
    one.turn()
    one.turn()
    assert (bench.rounds, bench.opened, bench.closed) == (3, 2, 2)


def test_who_waits_long_between_two_rounds_is_alive(place: World):
    """A restart would not make it wait any less."""
    held = place.replica(every_s=3600.0)
    held.rounds[0].turned_s = time.monotonic() - 1000
    assert held.live() == ""


def test_who_leads_no_more_tells_of_no_releases():
    """A sum over replicas counts each release once."""
    leads = [True]
    numbers = Numbers(["w"], lambda: leads[0])
    numbers.round("w", 1.0, [])
    assert 'releases{phase="CANARY",workload="w"} 0.0' in numbers.text().decode()
    leads[0] = False
    assert "releases{" not in numbers.text().decode()
