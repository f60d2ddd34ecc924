"""Election: which replica of the controller acts; a Lease of the API server says so.

It keeps two replicas from doing the same work, and lets another one take over within seconds of a
crash. It is not what keeps them from acting both: that is the ledger, which takes an intent from
one of them, and the sequence of the tables. Who cannot renew the lease stops acting before anybody
else may begin: what is written goes through :class:`Fenced`.

A release's own lease (:class:`penstock.rollout.ports.Leases`) is held by whoever leads. There is no
watchdog in a cluster: while nobody leads, traffic stays as it is, and the kill switch needs nobody.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from penstock.rollout.adapters.server import Missing, Object, Ref, Server, Transport
from penstock.rollout.ports import TableError

LEASE = "penstock-controller"


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long what may take; each is well below the one before."""

    lease_s: float = 15.0
    """After so long without a renewal another one may take the lease."""

    renew_s: float = 10.0
    """After so long without a renewal its holder acts no more."""

    retry_s: float = 2.0
    """Between two tries, of the holder and of who waits; each time up to a fifth longer."""

    def __post_init__(self) -> None:
        if not 0 < self.retry_s < self.renew_s < self.lease_s:
            raise ValueError(f"{self}: retry_s < renew_s < lease_s was wanted, all above 0.")


def lease_ref(namespace: str, name: str = LEASE) -> Ref:
    """Return the Lease, which a person creates, empty."""
    return Ref(
        group="coordination.k8s.io",
        version="v1",
        plural="leases",
        kind="Lease",
        name=name,
        namespace=namespace,
    )


@dataclass(frozen=True, kw_only=True)
class _Met:
    """A lease as it was met, and since when it says so, by our own clock."""

    said: Mapping[str, Any]
    since_s: float


class Election:
    """One candidate for one Lease."""

    def __init__(
        self,
        server: Server,
        ref: Ref,
        me: str,
        *,
        times: Times | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        """Lead nothing yet.

        Args:
            me: A name that no other candidate has, in this life or another.
        """
        self._server, self._ref, self.me = server, ref, me
        self._times = times or Times()
        self._monotonic, self._wall = monotonic, wall
        self._rng = rng or random.Random()  # noqa: S311 - it only keeps candidates apart
        self._until_s = float("-inf")
        self._met: _Met | None = None
        self._one = threading.Lock()
        self.problem = ""
        """Why the lease could not be read or written; empty where it could."""

    def leads(self) -> bool:
        """Return whether this candidate may act now."""
        return self._monotonic() < self._until_s

    def turn(self) -> bool:
        """Renew the lease, or take it where it is free; return whether this candidate leads."""
        with self._one:
            begun_s = self._monotonic()
            try:
                if self._try(begun_s):
                    # Counted from before the request: whoever waits counts from after it.
                    self._until_s = begun_s + self._times.renew_s
                self.problem = ""
            except TableError as e:
                self.problem = str(e)
            except Exception as e:  # noqa: BLE001 - without its thread nobody would ever lead
                self.problem = f"{type(e).__name__}: {e}"
        return self.leads()

    def pause_s(self) -> float:
        """Return how long to wait before the next turn."""
        return self._times.retry_s * (1 + 0.2 * self._rng.random())

    def give_back(self) -> None:
        """Act no more, and let another one take the lease at once."""
        with self._one:
            self._until_s = float("-inf")
            try:
                found = self._server.get(self._ref)
                said = _said(found)
                if said.get("holderIdentity") == self.me:
                    self._write(found, {**said, "holderIdentity": "", "leaseDurationSeconds": 1})
            except TableError as e:
                self.problem = str(e)

    def _try(self, now_s: float) -> bool:
        found = self._server.get(self._ref)
        said = _said(found)
        if said.get("holderIdentity") != self.me and not self._is_free(said, now_s):
            self._until_s = float("-inf")
            return False
        self._write(found, self._mine(said))
        return True

    def _is_free(self, said: Mapping[str, Any], now_s: float) -> bool:
        """Return whether nobody holds a lease, or whoever does has not renewed it for too long.

        Not by the time that it says: clocks of machines differ. What counts is how long it has
        been met unchanged here.
        """
        if self._met is None or self._met.said != said:
            self._met = _Met(said=said, since_s=now_s)
        if not said.get("holderIdentity"):
            return True
        lasts_s = float(said.get("leaseDurationSeconds") or self._times.lease_s)
        return now_s - self._met.since_s >= lasts_s

    def _mine(self, said: Mapping[str, Any]) -> dict[str, Any]:
        now = self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        held = said.get("holderIdentity") == self.me
        changes = int(said.get("leaseTransitions") or 0)
        return {
            "holderIdentity": self.me,
            "leaseDurationSeconds": max(1, round(self._times.lease_s)),
            "acquireTime": said.get("acquireTime", now) if held else now,
            "renewTime": now,
            "leaseTransitions": changes if held else changes + 1,
        }

    def _write(self, found: Object, spec: Mapping[str, Any]) -> None:
        # Of two that write at once the API server takes one: it wants the version that was read.
        version = found["metadata"]["resourceVersion"]
        self._server.apply(self._ref, {"spec": dict(spec)}, version=version)


def _said(found: Object) -> dict[str, Any]:
    return cast("dict[str, Any]", found.get("spec") or {})


def standing(election: Election, stop: threading.Event) -> None:
    """Stand for election until told to stop, then give the lease back."""
    while not stop.is_set():
        election.turn()
        stop.wait(election.pause_s())
    election.give_back()


class Fenced:
    """A way to the API server by which only who leads can change anything."""

    def __init__(self, transport: Transport, leads: Callable[[], bool]) -> None:
        """Take the way, and who knows whether we lead."""
        self._transport, self._leads = transport, leads

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Any = None,
        kind: str = "application/json",
        timeout_s: float = 10.0,
    ) -> tuple[int, bytes]:
        """Send one request.

        Raises:
            TableError: It would change something, and another replica leads by now.
            TimeoutError, ConnectionError: No answer in time, or none at all.
        """
        if method != "GET" and not self._leads():
            raise TableError(f"{method} {path} was not sent: this replica leads no more.")
        return self._transport.request(
            method, path, query=query, body=body, kind=kind, timeout_s=timeout_s
        )

    def lines(
        self, path: str, *, query: Mapping[str, str], timeout_s: float
    ) -> Iterator[tuple[int, bytes]]:
        """Follow an answer."""
        return self._transport.lines(path, query=query, timeout_s=timeout_s)


@dataclass(frozen=True)
class Led:
    """The :class:`penstock.rollout.ports.Leases` of a cluster: who leads carries every release."""

    leads: Callable[[], bool]

    def acquire(self, release: str, now: datetime) -> bool:  # noqa: ARG002 - the leader has all
        """Return whether this replica carries releases."""
        return self.leads()

    def renew(self, release: str, now: datetime, *, freeze: bool) -> bool:  # noqa: ARG002
        """Return whether it still does; nobody acts in its place, so traffic always freezes."""
        return self.leads()

    def release(self, release: str) -> None:
        """There is nothing to give back."""

    def known(self) -> Sequence[str]:
        """Return none: no release has a lease of its own."""
        return ()

    def drop(self, release: str) -> None:
        """There is nothing to remove."""

    def abandon(self, release: str) -> None:
        """Leave it to whoever leads next."""


def reachable(server: Server, ref: Ref) -> str:
    """Return why the API server cannot be asked for the Lease; empty where it can."""
    try:
        server.get(ref)
    except Missing as e:
        return f"{e} An empty one is enough: it is in manifests/."
    except TableError as e:
        return str(e)
    return ""
