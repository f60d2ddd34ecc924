"""Site: a workload's tables and slots in a cluster, as a fleet needs them of one plane."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock.bundle import Bundle, BundleError
from penstock.rollout.adapters import replicas
from penstock.rollout.adapters.annotated import Tables, newest, tables_of
from penstock.rollout.adapters.assigned import Slots
from penstock.rollout.adapters.cluster import POLL_S, ClusterPlane, Dialect
from penstock.rollout.adapters.server import Server
from penstock.rollout.ports import TableError
from penstock.rollout.servers import SlotFailed
from penstock.rollout.table import RULES, SLOTS, TrafficTable

Packages = Callable[[int], Bundle]
"""Returns a version's package; raises LookupError or BundleError."""


class Site(ClusterPlane):
    """The :class:`penstock.rollout.fleet.Served` of a cluster."""

    def __init__(
        self,
        server: Server,
        dialect: Dialect,
        slots: Slots,
        *,
        home: Path,
        packages: Packages,
        rules: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the parts.

        Args:
            home: Of the controller; nothing in it is needed by the next one.
            rules: The policy falls back on rules, so a slot of them is kept up, too.
            sleep: Waits; raises where this process is to end.
        """
        super().__init__(server, dialect, monotonic=monotonic, sleep=sleep)
        self.home = home
        self._site, self._slots, self._packages, self._rules = server, slots, packages, rules
        self._bundles: dict[str, Bundle] = {}

    def tables(self) -> Mapping[str, TrafficTable]:
        """Return the tables that were written last, by market.

        Raises:
            TableError: They cannot be read.
        """
        found: Tables = {}
        for part in self._dialect.parts:
            found = newest(found, tables_of(self._site.get(part.ref)))
        return found

    def status(self) -> dict[str, Any]:
        """Return what each slot does.

        Raises:
            TableError: The API server does not say.
        """
        return {"slots": {slot: self._of(slot) for slot in SLOTS}}

    def _of(self, slot: str) -> dict[str, Any]:
        seen = self._slots.seen(slot)
        took = None if seen.version is None else self._slots.took_s(slot, seen.version)
        return {
            "state": seen.state,
            "version": seen.version,
            "error": seen.error,
            "seconds": took if seen.state == "ready" else None,
        }

    def ready(self, slot: str) -> bool:
        """Return whether every pod of a slot is up and serves the version it was told to."""
        try:
            return self._slots.seen(slot).state == "ready"
        except TableError:
            return False

    def set_slot(
        self,
        slot: str,
        *,
        package: str | Path,
        digest: str,
        version: str,
        fault: Mapping[str, str] | None = None,
    ) -> None:
        """Let a slot serve a package.

        Raises:
            TableError: No pod could fetch it, a fault is asked for, or the API server refuses.
        """
        if "://" not in str(package):
            raise TableError(
                f"version {version} lies in {package}, a folder that no pod of a cluster sees; set "
                "PENSTOCK_PACKAGES where it is registered, and register it anew."
            )
        if fault is not None:
            raise TableError(f"fault {fault.get('kind')}: faults are rehearsed on one machine.")
        if thrown := self.killed():
            raise TableError(f"the kill switch is thrown, so slots stay as they are: {thrown}")
        said = {"uri": str(package), "digest": digest}
        self._slots.assign(slot, **said, version=version)
        if self._rules and self._slots.seen(RULES).version is None:
            self._slots.assign(RULES, **said, version=RULES)

    def stop_slot(self, slot: str) -> None:
        """Let a slot serve nothing.

        Raises:
            TableError: The API server refuses.
        """
        self._slots.stop(slot)

    def wait_ready(self, slot: str, *, version: str, timeout_s: float) -> float:
        """Wait until a slot serves a version and return its seconds to ready.

        Raises:
            SlotFailed: Its model does not load, or was not ready in time.
        """
        end = self._monotonic() + timeout_s
        while True:
            seen = self._slots.seen(slot)
            if seen.version == version and seen.state == "ready":
                return self._slots.took_s(slot, version)
            if seen.version == version and seen.state == "failed":
                raise SlotFailed(f"slot {slot} refused to serve: {seen.error}")
            if self._monotonic() >= end:
                why = seen.error or f"it serves version {seen.version}"
                raise SlotFailed(f"slot {slot} was not ready within {timeout_s:.0f} s: {why}")
            self._sleep(POLL_S)

    def verify_slot(self, slot: str) -> str:
        """Return what is wrong with the golden answers of any pod of a slot."""
        try:
            seen = self._slots.seen(slot)
            if seen.version is None:
                return f"slot {slot} serves nothing"
            bundle = self._bundle(seen.version)
        except (TableError, LookupError, BundleError, OSError) as e:
            return f"slot {slot} cannot be verified: {e}"
        return replicas.golden(seen.urls, slot, bundle, self._slots.place.model)

    def _bundle(self, version: str) -> Bundle:
        """Return a version's package; all of its bytes are hashed once, not at each question."""
        if version not in self._bundles:
            self._bundles = {version: self._packages(int(version)), **self._bundles}
        return self._bundles[version]
