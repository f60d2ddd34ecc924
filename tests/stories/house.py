"""A house to tell stories in: real servers, a real ledger, versions to release, users who click."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from penstock.bundle import Bundle, read
from penstock.ledger import REGISTERED, Entry, Ledger, Stage, champion
from penstock.registered import registration
from penstock.release import EVERYWHERE, Measure, Rollout, Shadow, Trigger
from penstock.rollout import folding
from penstock.rollout.champions import serve
from penstock.rollout.conductor import Conductor
from penstock.rollout.fleet import Fleet
from penstock.rollout.looks import looks_folder, read_looks
from penstock.rollout.opening import Wish
from penstock.rollout.plane import Plane
from penstock.rollout.replay import Traffic, replayed
from penstock.rollout.running import conducted, servers
from penstock.rollout.state import IN_FORCE, INTENT, State
from penstock.rollout.table import bucket_of
from penstock.rollout.telling import status
from penstock.workload import load
from tests.packages import free_port, wait_for
from tests.people import person
from tests.stories import clicked
from tests.stories.clicked import NAME

RATE = 130.0
PATIENCE_S = 240.0
"""Longest time that a release is carried before its story is said to hang."""

OPERATOR, COMPLIANCE, APPROVER = "olaf", "carla", "ann"

POLICY = Rollout(
    canary_percents=(25, 50, 100),
    soak=timedelta(seconds=1),
    cool_down=timedelta(seconds=1),
    deadline=timedelta(seconds=200),
    evidence_timeout=timedelta(seconds=40),
    primary=Measure(name="clicks", source="label", margin=0.22, deviation=0.45),
    shadow=Shadow(max_disagreement_share=0.2, min_spearman=0.8),
    min_users=60,
    max_error_share=0.1,
    critical_error_share=0.6,
    max_refused_share=0.1,
    max_slow_share=0.4,
    slow_ratio=3.0,
    slow_floor_ms=500.0,
)
"""Short soaks; long patience, as the machine may be busy: no story depends on its speed."""


@dataclass(kw_only=True)
class House:
    """The home of one workload, and what happens in it."""

    path: Path
    policy: Rollout = POLICY
    rate: float = RATE
    markets: str = ""
    ledger: Ledger = field(init=False)
    plane: Plane = field(init=False)
    _snapshot: Bundle = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(f"sqlite:///{self.path / 'ledger.db'}")
        self._snapshot = clicked.snapshot(self.path / "snapshot")

    def begin(self) -> None:
        """Register version 1, which everybody has had all along, and let it answer."""
        self.register(champion=None)
        for stage in (Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION):
            self._move(1, stage)
        people = {OPERATOR: "operator", COMPLIANCE: "compliance", APPROVER: "approver"}
        for name, role in people.items():
            key = person(name).public_key
            self.ledger.enrol(
                name=name, public_key=key, roles=[role], actor=person(), now=datetime.now(UTC)
            )
        with servers(NAME, 1, self.path, self.ledger, free_port(), lambda _: None) as plane:
            self.plane = plane
        serve(Fleet(plane=self.plane), self.entries(), self.policy, lambda _: None)

    def end(self) -> None:
        """Stop all that runs."""
        Plane(self.path).down()
        self.ledger.close()

    def entries(self) -> list[Entry]:
        """Return the workload's entries."""
        return self.ledger.entries(NAME)

    def release(self, conductor: Conductor, **wish: Any) -> str:
        """Open the release of a new version; return its name."""
        opened = conductor.open(self.wish(**wish))
        assert opened is not None
        return opened.release

    def wish(self, *, fault: str = "", on: str = "live", market: str = EVERYWHERE,
             version: int | None = None) -> Wish:  # fmt: skip
        """Return the wish to release a version, a new one unless told; perhaps a broken one."""
        plain = {"kind": fault, "on": on} if fault else None
        number = self.register() if version is None else version
        return Wish(version=number, market=market, trigger=Trigger.MANUAL, fault=plain)

    def register(self, *, champion: str | None = "present") -> int:
        """Register a version as good as any other and let it in; return its number."""
        versions = [e.version for e in self.entries() if e.kind == REGISTERED and e.version]
        number = max(versions, default=0) + 1
        against = None if champion is None else self._champion()
        held = clicked.package(
            self.path / f"package-{number}", self._snapshot,
            sharpness=1 + 0.01 * number, champion=against,
        )  # fmt: skip
        body = {"package": str(held.path), "digest": held.digest, "fingerprint": held.fingerprint}
        self.ledger.append(
            workload=NAME, version=number, kind=REGISTERED, body=body, actor=person(),
            now=datetime.now(UTC),
        )  # fmt: skip
        self._move(number, Stage.STAGING)
        return number

    def _champion(self) -> Bundle | None:
        number = champion(self.entries())
        if number is None:
            return None
        return read(Path(registration(self.entries(), number).body["package"]))

    def _move(self, version: int, stage: Stage) -> None:
        self.ledger.move(
            workload=NAME, version=version, to=stage, reason="a story begins", actor=person(),
            now=datetime.now(UTC),
        )  # fmt: skip

    @contextmanager
    def users(self) -> Iterator[None]:
        """Let users come and click, as a process of its own, while the block runs."""
        traffic = Traffic(
            rows=self._snapshot.file("holdout.parquet"),
            label=load(NAME).label,
            contract=self.path / "package-1" / "serving.json",
            users=8000,
            rate=self.rate,
            markets=self.markets,
        )
        with replayed(self.plane, traffic, NAME, self.traffic):
            yield

    @property
    def traffic(self) -> Path:
        """Where users leave what they saw and what became of it."""
        return self.path / "serving" / "traffic"

    def saw(self, *, since: float = 0.0) -> list[dict[str, Any]]:
        """Return what users saw of requests sent since then (Unix seconds), as they say it."""
        lines = (self.traffic / "client.jsonl").read_text(encoding="utf-8").splitlines()
        seen = [json.loads(line) for line in lines]
        return [one for one in seen if one["at"] - one["latency_ms"] / 1000 >= since]

    @contextmanager
    def conducted(self, policy: Rollout | None = None) -> Iterator[Conductor]:
        """Yield what carries the releases of this home, by this policy; in the end it gives up."""
        with carrying(self.path, self.ledger, policy or self.policy) as made:
            try:
                yield made
            finally:
                made.abort("its story is over")

    def carry(self, conductor: Conductor, until: Callable[[], bool] = lambda: False) -> None:
        """Carry on until something is so, or nothing goes on by itself any more."""
        end = conductor.clock.now() + timedelta(seconds=PATIENCE_S)

        def goes(state: State) -> bool:
            assert conductor.clock.now() < end, self.told(state.release)
            return conductor.goes(state) and not until()

        conductor.carry(lambda: None, goes=goes)

    def releases(self) -> list[str]:
        """Return the names of all releases, in the order in which they were opened."""
        return folding.releases(self.entries())

    def goes(self) -> bool:
        """Return whether any release goes on."""
        return bool(folding.active(self.entries()))

    def users_come(self, count: int) -> None:
        """Wait until so many more users have been answered, or not."""
        seen = len(self.saw()) + count
        wait_for(lambda: len(self.saw()) >= seen, 60)

    def story(self, release: str) -> Story:
        """Return what the ledger tells of a release."""
        return Story(self, release)

    def told(self, release: str) -> str:
        """Return where a release stands, for whoever reads why a story failed."""
        looks = read_looks(looks_folder(self.path, release))
        live = looks[-1] if looks else None
        state = folding.fold(self.entries(), release)
        said = status(self.entries(), state, now=datetime.now(UTC), live=live)
        for row in said["evidence"]:
            row.pop("summary", None)
        said.pop("segments", None)
        log = (self.path / "serving" / "supervisor.log").read_text(encoding="utf-8")
        return json.dumps(said, indent=1) + "\n" + "\n".join(log.splitlines()[-12:])


@dataclass(frozen=True)
class Story:
    """A release as the ledger tells it."""

    house: House
    release: str

    @property
    def state(self) -> State:
        """Where it stands."""
        return folding.fold(self.house.entries(), self.release)

    @property
    def entries(self) -> list[Entry]:
        """Its own entries."""
        return [e for e in self.house.entries() if e.body.get("release") == self.release]

    @property
    def intents(self) -> list[Entry]:
        """Every decision that took effect, in order."""
        done = {e.body["n"] for e in self.entries if e.kind == IN_FORCE}
        return [e for e in self.entries if e.kind == INTENT and e.body["n"] in done]

    @property
    def way(self) -> list[tuple[str, str | None]]:
        """Each act with the name of the step that it led to."""
        return [(e.body["action"], self._step(e.body["step"])) for e in self.intents]

    def _step(self, index: int | None) -> str | None:
        return None if index is None else self.steps[index]["name"]

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """The steps of the plan that it was opened with."""
        return self.entries[0].body["plan"]["steps"]

    @property
    def looks(self) -> list[Mapping[str, Any]]:
        """What its controller saw at each look, in order."""
        return list(read_looks(looks_folder(self.house.path, self.release)))

    @property
    def moves(self) -> list[str]:
        """Stages of the lifecycle that its version was moved to, in order."""
        version = self.entries[0].version
        held = self.house.entries()
        return [str(e.target) for e in held if e.kind == "moved" and e.version == version]

    @property
    def strikes(self) -> list[Entry]:
        """Decisions that were a strike."""
        return [e for e in self.intents if e.body["strike"]]

    @property
    def version(self) -> str:
        """The challenger, as its answers name it."""
        return self.release.split("/")[1]

    def bucket(self, user: str) -> int:
        """Return the bucket in which this release has a user."""
        return bucket_of(self.release, user)

    def __str__(self) -> str:
        return f"{self.way}\n{self.house.told(self.release)}"


@contextmanager
def carrying(path: Path, ledger: Ledger, policy: Rollout) -> Iterator[Conductor]:
    """Yield what carries the releases of a home, as the command makes it, by another policy."""
    plane = Plane.attach(path)
    with conducted(plane, NAME, path, ledger, person(), lambda _: None) as made:
        made.policy = policy
        yield made


@contextmanager
def controller(house: House, policy: Rollout) -> Iterator[subprocess.Popen[bytes]]:
    """Carry what goes on in a process of its own, which may be killed."""
    given = house.path / "policy.pickle"
    given.write_bytes(pickle.dumps(policy))
    log = house.path / "controller.log"
    with log.open("ab") as output:
        command = [sys.executable, "-m", "tests.stories.controller", str(house.path), str(given)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


def answered(seen: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return how many answers each version gave, and of requests without one, why."""
    return Counter(
        str(one.get("version")) if one["status"] == 200 else f"{one['status']} {one.get('error')}"
        for one in seen
    )
