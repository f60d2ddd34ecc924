"""The fleet: which version runs in which slot of this machine, and which must."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from penstock import registered
from penstock.ledger import Entry, serving_order
from penstock.release import Rollout
from penstock.rollout import folding
from penstock.rollout.asking import WRONG
from penstock.rollout.branches import champion_in
from penstock.rollout.opened import Opened, Placed, opened_of
from penstock.rollout.ports import DataPlane
from penstock.rollout.table import SLOTS, TrafficTable

PROBED_S = 5.0
"""How often a standby and a challenger are asked golden requests; whether they are up is known all
the time."""


class Served(DataPlane, Protocol):
    """A data plane together with the servers behind it: this machine's, or a cluster's."""

    home: Path

    def status(self) -> dict[str, Any]:
        """Return what is seen: below ``slots`` each one's state, version, error and seconds.

        Raises:
            TableError: Nobody says.
        """
        ...

    def tables(self) -> Mapping[str, TrafficTable]:
        """Return the tables that were written last, by market."""
        ...

    def set_slot(
        self,
        slot: str,
        *,
        package: str | Path,
        digest: str,
        version: str,
        fault: Mapping[str, str] | None = None,
    ) -> None:
        """Let a slot serve a package; its server refuses one that has another digest.

        Raises:
            TableError: It cannot be; the text says why.
        """
        ...

    def stop_slot(self, slot: str) -> None:
        """Let a slot serve nothing."""
        ...

    def wait_ready(self, slot: str, *, version: str, timeout_s: float) -> float:
        """Wait until a slot serves a version and return its seconds to ready.

        Raises:
            PlaneError: It does not, in time.
        """
        ...

    def verify_slot(self, slot: str) -> str:
        """Return what is wrong with a slot's golden answers, empty where they are right."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The slots of a plane, as a release needs them."""

    plane: Served
    clock: Callable[[], float] = time.monotonic
    _probed: dict[str, tuple[float, str]] = field(default_factory=dict[str, tuple[float, str]])

    def serving(self) -> Mapping[str, int | None]:
        """Return the version that each slot runs, or is starting to run."""
        slots = self.plane.status()["slots"]
        return {name: _version(slots[name]) for name in SLOTS}

    def slot_of(self, version: int) -> str | None:
        """Return the slot that runs a version, or is starting to."""
        return next((slot for slot, held in self.serving().items() if held == version), None)

    def ready(self, placed: Placed) -> bool:
        """Return whether a version is up and ready in its slot; not the one it takes the place of.

        What a slot was told a moment ago, its supervisor may not have seen yet.
        """
        return self._state(placed) == "ready"

    def refused(self, placed: Placed) -> str:
        """Return why a version's server will never be ready; empty while it may."""
        if self._state(placed) != "failed":
            return ""
        error = self.plane.status()["slots"][placed.slot]["error"]
        return f"slot {placed.slot} refused to serve: {error}"

    def ready_s(self, placed: Placed) -> float | None:
        """Return how long a version's server took to be ready, None while it is not."""
        seen = self.plane.status()["slots"][placed.slot]
        return seen["seconds"] if self.ready(placed) else None

    def _state(self, placed: Placed) -> str:
        """Return the state of a version's server; empty while its slot is another's."""
        seen = self.plane.status()["slots"][placed.slot]
        return seen["state"] if seen["version"] == str(placed.version) else ""

    def stands_by(self, slot: str) -> bool:
        """Return whether a slot could take every user: it is up and gave the golden answers."""
        return self.plane.ready(slot) and not self._asked(slot, slot)

    def wrong(self, placed: Placed) -> str:
        """Return how a version's golden answers are wrong; no answer is no wrong one."""
        said = self._asked(f"{placed.slot} {placed.version}", placed.slot)
        return said if WRONG in said else ""

    def _asked(self, whose: str, slot: str) -> str:
        """Return what is wrong with a slot's golden answers, by what was heard last of it."""
        now_s = self.clock()
        asked_s, wrong = self._probed.get(whose, (float("-inf"), ""))
        if now_s - asked_s >= PROBED_S:
            wrong = self.plane.verify_slot(slot)
            self._probed[whose] = now_s, wrong
        return wrong

    def start(
        self, placed: Placed, entries: Sequence[Entry], fault: Mapping[str, str] | None = None
    ) -> None:
        """Let a slot serve a registered version, unless it does; its server checks the digest."""
        if self.serving()[placed.slot] == placed.version:
            return
        said = registered.registration(entries, placed.version).body
        self.plane.set_slot(
            placed.slot,
            package=said["package"],
            digest=placed.digest,
            version=str(placed.version),
            fault=fault,
        )

    def tidy(self, entries: Sequence[Entry], policy: Rollout) -> list[Placed]:
        """Stop what nobody needs any more, and give its slot to the standby where there is one.

        Returns:
            The standby, where it was started just now; the supervisor may not have seen that yet.
        """
        needed = {p.version for p in _in_use(entries)} | _champions(entries, policy)
        for slot, version in self.serving().items():
            if version is not None and version not in needed | _standbys(entries):
                self.plane.stop_slot(slot)
        started = list[Placed]()
        for standby in _standbys(entries) - set(self.serving().values()):
            free = next((s for s, version in self.serving().items() if version is None), None)
            if free is not None and needed:
                digest = registered.registration(entries, standby).body["digest"]
                started.append(Placed(version=standby, digest=digest, slot=free))
                self.start(started[-1], entries)
        return started


def free_slot(
    entries: Sequence[Entry], version: int, serving: Mapping[str, int | None], policy: Rollout
) -> str | None:
    """Return the slot that a challenger takes: the one it has, or one that nobody needs."""
    in_use = _in_use(entries)
    # Another market's release of it may have been opened only just now.
    has = [placed.slot for placed in in_use if placed.version == version]
    has += [slot for slot, held in serving.items() if held == version]
    if has:
        return has[0]
    taken = {placed.slot for placed in in_use}
    champions = _champions(entries, policy)
    free = [s for s, held in serving.items() if s not in taken and held not in champions]
    # A first version takes the slot that no table points at yet: nobody sees it before its step.
    return free[-1] if free else None


def _in_use(entries: Sequence[Entry]) -> list[Placed]:
    """Return the versions of releases that go on, where they run."""
    opened = [opened_of(entries, state.release) for state in folding.active(entries)]
    return [placed for one in opened for placed in _versions(one)]


def _versions(opened: Opened) -> list[Placed]:
    return [opened.challenger, *([] if opened.champion is None else [opened.champion])]


def _champions(entries: Sequence[Entry], policy: Rollout) -> set[int]:
    found = {champion_in(entries, market, policy) for market in policy.market_names()}
    return {version for version in found if version is not None}


def _standbys(entries: Sequence[Entry]) -> set[int]:
    """Return the version that users would be returned to."""
    return set(serving_order(entries)[1:2])


def _version(seen: Mapping[str, object]) -> int | None:
    version = seen["version"]
    gone = seen["state"] in ("failed", "stopped")
    return None if version is None or gone else int(str(version))
