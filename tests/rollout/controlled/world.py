"""A world for the controller: a fake API server with KServe and a gateway, a ledger, users."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock.bundle import Bundle, write_json
from penstock.ledger import REGISTERED, Ledger, Stage
from penstock.predictions import files
from penstock.predictions.schema import tabled, write
from penstock.release import EVERYWHERE, Measure, Rollout, Shadow
from penstock.rollout import folding
from penstock.rollout.adapters import workplace
from penstock.rollout.adapters.annotated import tables_of
from penstock.rollout.adapters.assigned import Slots
from penstock.rollout.adapters.election import Election, Times, lease_ref
from penstock.rollout.adapters.kubernetes import Session
from penstock.rollout.adapters.places import Where
from penstock.rollout.adapters.replica import Replica, replica
from penstock.rollout.adapters.server import Server
from penstock.rollout.adapters.workplace import Desk
from penstock.rollout.journal import Told
from penstock.rollout.state import State
from penstock.rollout.table import TrafficTable, bucket_of
from penstock.storage.names import name_of
from penstock.workload import load
from tests.bundles import NOW
from tests.packages import DIGITS, make_package
from tests.people import person
from tests.rollout.adapters.fakeserver import TOKEN
from tests.rollout.adapters.stage import Stage as Cluster
from tests.rollout.adapters.stage import stage
from tests.rollout.controlled.kserve import KServe

QUICK = Rollout(
    canary_percents=(25, 50, 100),
    soak=timedelta(seconds=0.2),
    deadline=timedelta(seconds=60),
    evidence_timeout=timedelta(seconds=30),
    primary=Measure(name="right answers", source="right", margin=0.2, deviation=0.4),
    shadow=Shadow(max_disagreement_share=0.3),
    approve_triggers=(),
)
LATE_S = 0.05
"""How late a record is here."""

ALL_THE_WAY = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)
TIMES = Times(lease_s=2.0, renew_s=1.5, retry_s=0.05)
LEASE = lease_ref("penstock")
USERS = [f"user-{n}" for n in range(600)]


@dataclass(kw_only=True, repr=False)
class World:
    """Everything around a controller."""

    folder: Path
    cluster: Cluster
    kserve: KServe
    packages: dict[str, Bundle]
    right: Callable[[str], float] = lambda _version: 0.9
    """Share of right answers of a version."""

    failing: Callable[[str, bool], bool] = lambda _version, _copy: False
    """Whether a version fails, users or copies."""

    told: list[Told] = field(default_factory=list)
    _written: int = 0

    @property
    def where(self) -> Where:
        """Return where the workload is served."""
        return Where(
            place=self.cluster.place,
            dialect="gateway",
            assigned=True,
            labels={},
            predictions=str(self.folder / "predictions"),
            outcomes=str(self.folder / "outcomes"),
            copied_s=LATE_S,
            replicas=2,
            patience_s=0.3,
        )

    def ledger(self) -> Ledger:
        """Open the ledger anew, as another process does."""
        return Ledger(f"sqlite:///{self.folder / 'ledger.db'}")

    def transport(self) -> Session:
        """Return a way to the API server."""
        return Session.at(self.cluster.fake.url, token=TOKEN)

    def slots(self) -> Slots:
        """Return the slots, as another process sees them."""
        return Slots(
            server=Server(self.transport()), place=self.cluster.place, replicas=2, fresh_s=0
        )

    def replica(self, me: str = "one", *, opens: bool = False, **more: Any) -> Replica:
        """Return one replica of the controller."""
        held = self.ledger()
        election = Election(Server(self.transport(), timeout_s=1.0), LEASE, me, times=TIMES)

        def desk(server: Server, leads: Callable[[], bool], _stop: threading.Event) -> Desk:
            return Desk(
                server=server,
                ledger=held,
                actor=person(),
                home=self.folder / me,
                leads=leads,
                emit=self.told.append,
                sleep=lambda seconds: time.sleep(seconds / 20),
                opens=opens,
                look_s=0.0,
            )

        more = {"every_s": 0.05, "grace_s": 5.0, "election": election, **more}
        return replica(self.transport(), {"digits": self.where}, desk, lease=LEASE, me=me, **more)

    def register(self, version: int, *stages: Stage, over: int | None = None) -> None:
        """Register a version whose package was published."""
        compared: dict[str, dict[str, str]] = {"artifacts": {}, "digests": {}}
        if over is not None:
            other = self.packages[self.uri(over)]
            compared = {
                "artifacts": {"champion": other.fingerprint},
                "digests": {"champion": other.digest},
            }
        made = make_package(
            self.folder / f"p{version}",
            seed=version,
            more=lambda folder: write_json(folder / "lineage.json", compared),
        )
        # As it lies once it was fetched.
        kept = self.folder / "home" / "packages" / name_of(made.manifest)
        shutil.copytree(made.path, kept)
        uri = f"s3://models/digits/{kept.name}"
        (self.folder / f"uri-{version}").write_text(uri)
        self.packages[uri] = Bundle(kept, made.manifest)
        body = {"package": uri, "digest": made.digest, "fingerprint": made.fingerprint}
        named: dict[str, Any] = {"workload": "digits", "version": version, "actor": person()}
        ledger = self.ledger()
        ledger.append(**named, kind=REGISTERED, body=body, now=NOW)
        for reached in stages:
            ledger.move(**named, to=reached, reason="t", now=NOW)
        ledger.close()

    def uri(self, version: int) -> str:
        """Return where a version's package was published."""
        return (self.folder / f"uri-{version}").read_text()

    def table(self) -> TrafficTable:
        """Return everybody's table, as the route keeps it."""
        return tables_of(self.cluster.fake.store.read(self.cluster.main))[EVERYWHERE]

    def state(self, name: str = "digits/2/all/1") -> State | None:
        """Return where a release stands, None where it was never opened."""
        ledger = self.ledger()
        try:
            entries = ledger.entries("digits")
            return folding.fold(entries, name) if name in folding.releases(entries) else None
        finally:
            ledger.close()

    def phase(self, name: str = "digits/2/all/1") -> str:
        """Return the phase of a release; empty where there is none."""
        state = self.state(name)
        return "" if state is None else str(state.phase)

    def serve(self) -> None:
        """Let every user ask once; pods finish and copy their logs."""
        table, n = self.table(), self._written
        self._written += 1
        lines: list[bytes] = []
        results: list[bytes] = []
        rng = random.Random(n)
        for user in USERS:
            request = f"r-{n}-{user}"
            slot = table.slot_for(bucket_of(table.salt, user))
            arm = "challenger" if slot == table.challenger else "champion"
            lines.append(self._line(request, user, slot, arm, rng))
            if table.mirror is not None and slot == table.champion:
                lines.append(self._line(request, user, table.mirror, arm, rng, mirrored=True))
            results.append(json.dumps({"request_id": request, "label": 3}).encode())
        self.copy(b"\n".join(lines) + b"\n")
        (self.folder / "outcomes").mkdir(exist_ok=True)
        (self.folder / "outcomes" / f"{n:04}.jsonl").write_bytes(b"\n".join(results) + b"\n")

    def copy(self, lines: bytes) -> None:
        """Put a finished file where pods copy theirs."""
        folder = self.folder / "predictions" / "digits"
        folder.mkdir(parents=True, exist_ok=True)
        rows, refused = tabled(lines, DIGITS)
        assert not refused
        write(rows, folder / f"{files.new_stem('c', at=time.time())}.parquet")

    def _line(
        self,
        request: str,
        user: str,
        slot: str,
        arm: str,
        rng: random.Random,
        *,
        mirrored: bool = False,
    ) -> bytes:
        version = str(self.slots().seen(slot).version) if slot not in self._known else ""
        version = self._known.setdefault(slot, version) or version
        right = rng.random() < self.right(version)
        return json.dumps(
            {
                "at": time.time(),
                "request_id": request,
                "user": user,
                "bucket": 0,
                "arm": arm,
                "market": EVERYWHERE,
                "mirrored": mirrored,
                "slot": slot,
                "version": version,
                "status": 500 if self.failing(version, mirrored) else 200,
                "latency_ms": 5.0 + rng.random(),
                "features": {"pixels": [[0.0] * 64]},
                "label": [3 if right else 4],
                "probability": [0.8],
                "fallbacks": [],
                "stale": [],
                "spent_us": None,
            }
        ).encode()

    _known: dict[str, str] = field(default_factory=dict)
    """Version that each slot's pods say of themselves."""

    def step(self, held: Replica) -> None:
        """Let users ask, then the controller do one round."""
        self._known.clear()
        self.serve()
        time.sleep(LATE_S)
        held.election.turn()
        for one in held.rounds:
            one.turn()
        self.cluster.programming.settle()

    def until(self, held: Replica, true: Callable[[], bool], *, most: int = 120) -> None:
        """Step until something is so."""
        for _ in range(most):
            if true():
                return
            self.step(held)
        why = [one.problem for one in held.rounds]
        raise AssertionError(f"it never was so: {self.phase()}, {why}, {self._last()}")

    def _last(self) -> list[Any]:
        return [(e["event"], e.get("why") or e.get("text")) for e in self.told[-5:]]


def lease() -> Mapping[str, Any]:
    """Return the Lease that manifests bring."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LEASE.name, "namespace": LEASE.namespace},
    }


@contextmanager
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, policy: Rollout = QUICK
) -> Iterator[World]:
    """Yield a world in which version 1 was released and runs nowhere yet, and 2 waits."""
    declared = replace(load("digits"), rollout=policy)
    for module in (workplace, "penstock.rollout.running"):
        where = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{where}.load", lambda _name: declared)
    monkeypatch.setenv("PENSTOCK_HOME", str(folder / "home"))
    monkeypatch.setattr("penstock.rollout.arms.SETTLE_S", LATE_S)
    monkeypatch.setattr("penstock.rollout.judge.SETTLE_S", LATE_S)
    with stage("gateway") as cluster:
        cluster.programming.settle()
        cluster.programming.leaves.add("InferenceService")
        cluster.fake.create(dict(lease()), manager="person")
        packages: dict[str, Bundle] = {}
        kserve = KServe(cluster.fake, cluster.edges, packages)
        made = World(folder=folder, cluster=cluster, kserve=kserve, packages=packages)
        try:
            made.register(1, *ALL_THE_WAY)
            made.register(2, Stage.STAGING, over=1)
            yield made
        finally:
            kserve.end()
