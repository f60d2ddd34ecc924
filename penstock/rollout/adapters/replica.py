"""Replica: one process of the controller; it stands for election, and works while it leads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from penstock.ledger import Ledger, LedgerError
from penstock.rollout.adapters.cluster import ClusterPlane
from penstock.rollout.adapters.election import Election, Fenced, reachable, standing
from penstock.rollout.adapters.places import Where
from penstock.rollout.adapters.probes import Numbers, answering
from penstock.rollout.adapters.rounds import EVERY_S, Rounds
from penstock.rollout.adapters.server import Ref, Server, Transport
from penstock.rollout.adapters.watch import foreign_changes
from penstock.rollout.adapters.workplace import Desk, workplace
from penstock.rollout.journal import Told
from penstock.rollout.ports import TableError

LIVE_S = 300.0
"""Longest that a turn may take before the process is taken for stuck: a champion's pods start."""

WATCHED_S = 10.0
"""How long one watch is asked for; so long its thread may outlive the process's end."""

AGAIN_S = 5.0
GRACE_S = 20.0
"""How long rounds that are going on may take when the process is to end."""


@dataclass(kw_only=True)
class Replica:
    """Threads that carry several workloads."""

    election: Election
    rounds: Sequence[Rounds]
    numbers: Numbers
    watches: Sequence[Callable[[threading.Event], None]]
    checks: Sequence[Callable[[], str]]
    """What is wrong with what this replica needs; each returns a sentence, or nothing."""

    stop: threading.Event = field(default_factory=threading.Event)
    grace_s: float = GRACE_S
    live_s: float = LIVE_S
    led: bool = False
    """Whether :meth:`once` did rounds: no other replica leads."""

    def once(self) -> list[str]:
        """Do one round of each workload, if this replica leads; return what went wrong."""
        self.led = self.election.turn()
        if not self.led:
            return [self.election.problem or "another replica leads"]
        try:
            for one in self.rounds:
                one.turn()
        finally:
            for one in self.rounds:
                one.close()
            self.election.give_back()
        return [f"{one.workload}: {one.problem}" for one in self.rounds if one.problem]

    def run(self, *, host: str, port: int, listening: Callable[[int], None]) -> None:
        """Stand for election, do rounds and answer probes until told to stop.

        What a round was doing when that takes longer than the grace is cut between two steps, each
        of which the next replica finds in the ledger.

        Args:
            listening: Told the port.

        Raises:
            OSError: The address cannot be listened on.
        """
        retired = threading.Event()
        stands = threading.Thread(target=standing, args=(self.election, retired), daemon=True)
        works = [
            threading.Thread(target=r.run, args=(self.stop,), daemon=True) for r in self.rounds
        ]
        works += [threading.Thread(target=w, args=(self.stop,), daemon=True) for w in self.watches]
        with ExitStack() as stack:
            text = self.numbers.text
            probes = answering(host, port, live=self.live, ready=self.ready, numbers=text)
            listening(stack.enter_context(probes))
            for thread in (stands, *works):
                thread.start()
            self.stop.wait()
            for one in self.rounds:
                one.wake.set()
            end = time.monotonic() + self.grace_s
            for thread in works[: len(self.rounds)]:
                thread.join(max(0.0, end - time.monotonic()))
            # Only now: another one begins as soon as the lease is free.
            retired.set()
            stands.join(self.grace_s)

    def live(self) -> str:
        """Return which workload's turn has not ended for too long; empty where all do."""
        now_s = time.monotonic()
        rounds = self.rounds
        # Who waits for its next turn is not stuck, however long that is.
        stuck = [r.workload for r in rounds if now_s - r.turned_s > self.live_s + r.pause_s()]
        return f"no round has ended for {self.live_s:.0f} s of {', '.join(stuck)}" if stuck else ""

    def ready(self) -> str:
        """Return what this replica lacks to lead; empty where it leads, or could."""
        return "; ".join(filter(None, (check() for check in self.checks)))


def replica(
    transport: Transport,
    places: Mapping[str, Where],
    desk: Callable[[Server, Callable[[], bool], threading.Event], Desk],
    *,
    lease: Ref,
    me: str,
    every_s: float = EVERY_S,
    grace_s: float = GRACE_S,
    election: Election | None = None,
) -> Replica:
    """Return a replica that carries the workloads of some places.

    Args:
        desk: Makes what they share of the fenced server, who knows whether this replica leads, and
            what is set when the process is to end.
        me: A name that no other replica has.
    """
    free, stop = Server(transport), threading.Event()
    elected = election or Election(free, lease, me)
    shared = desk(Server(Fenced(transport, elected.leads)), elected.leads, stop)
    numbers = Numbers(list(places), elected.leads)
    rounds = [
        Rounds(
            workload=name,
            open=partial(workplace, name, where, shared),
            leads=elected.leads,
            counts=numbers,
            emit=shared.emit,
            every_s=every_s,
        )
        for name, where in places.items()
    ]
    planes = [ClusterPlane(free, where.made()) for where in places.values()]
    return Replica(
        election=elected,
        rounds=rounds,
        numbers=numbers,
        watches=[
            partial(watched, free, plane, one, numbers, shared.emit)
            for plane, one in zip(planes, rounds, strict=True)
        ],
        checks=[
            partial(reachable, free, lease),
            partial(answers, shared.ledger),
        ],
        stop=stop,
        grace_s=grace_s,
    )


def watched(
    server: Server,
    plane: ClusterPlane,
    rounds: Rounds,
    numbers: Numbers,
    emit: Callable[[Told], None],
    stop: threading.Event,
) -> None:
    """Wake a workload's rounds when another hand changes its routes, until told to stop."""

    def over() -> bool:
        return stop.is_set() or not rounds.leads()

    while not stop.is_set():
        if over():
            stop.wait(1.0)
            continue
        try:
            for said in foreign_changes(server, plane, stop=over, seconds=WATCHED_S):
                numbers.foreign(rounds.workload)
                emit({"event": "foreign", "workload": rounds.workload, "text": said})
                rounds.wake.set()
        except TableError:
            stop.wait(AGAIN_S)  # what cannot be watched is looked at every round


def answers(ledger: Ledger) -> str:
    """Return why the ledger cannot be read; empty where it can."""
    try:
        ledger.head()
    except LedgerError as e:
        return str(e)
    return ""
