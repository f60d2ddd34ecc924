"""The one-machine data plane, as the rest of the library uses it: servers, and who gets whom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock.release import EVERYWHERE
from penstock.rollout import admin, asking, kill, written
from penstock.rollout.admin import Inside
from penstock.rollout.ports import TableError
from penstock.rollout.routing import PROBE
from penstock.rollout.servers import PlaneError, Servers, SlotFailed
from penstock.rollout.table import SLOTS, TrafficTable

__all__ = ["Plane", "PlaneError", "SlotFailed"]


class Plane(Servers):
    """The :class:`penstock.rollout.ports.DataPlane` of one machine: Envoy before its servers."""

    def apply(self, table: TrafficTable) -> None:
        """Put a market's table into Envoy's route file, by rename; needs nobody else to run.

        Raises:
            Stale: A table with this sequence or a higher one was written since.
        """
        written.apply(self._routes, table)

    def observe(self, market: str = EVERYWHERE) -> TrafficTable:
        """Return the table of a market that Envoy itself uses."""
        return written.of_market(admin.in_force(self._admin), market)

    def written(self, market: str = EVERYWHERE) -> TrafficTable:
        """Return the table of a market that was written last; Envoy may not use it yet."""
        return written.written(self._routes, market)

    def tables(self) -> Mapping[str, TrafficTable]:
        """Return the tables that were written last, by market."""
        return written.tables(self._routes)

    def answering(self) -> str:
        """Return the slot that answers the users whom no release has taken."""
        return self.written().champion

    def wait_applied(self, table: TrafficTable, *, timeout_s: float) -> None:
        """Wait until Envoy uses a table.

        Raises:
            PlaneError: It does not, in time.
        """
        self._until(lambda: self.observe(table.market) == table, timeout_s)

    def verify(self, table: TrafficTable) -> str:
        """Return what is wrong with a table that should be in force, empty where nothing is.

        It is read back, a user of each arm is sent through the edge, and slots that no market's
        table names must be sent nothing any more.
        """
        if thrown := self.killed():
            return f"the kill switch is thrown: {thrown}"
        try:
            used = self.observe(table.market)
        except TableError as e:
            return str(e)
        if used != table:
            return f"table {used.sequence} is in force in {table.market}, not {table.sequence}"
        return asking.misled(self._folder, table, self.status()["model"]) or self._loud()

    def _loud(self) -> str:
        tables = written.tables(self._routes).values()
        asked = {s for t in tables for s in (t.champion, t.challenger, t.mirror, t.trickle)}
        try:
            return asking.still_asked(self._admin, set(SLOTS) - asked)
        except TableError as e:
            return str(e)

    def verify_slot(self, slot: str) -> str:
        """Return what is wrong with a slot's golden answers, empty where it answers them right."""
        wanted = self._desired()["slots"].get(slot)
        if wanted is None:
            return f"slot {slot} serves nothing"
        model = self.status()["model"]
        return asking.golden(self._folder, slot, Path(wanted["package"]), model)

    def switch_in_force(self) -> str | None:
        """Return the slot that Envoy itself sends everybody to, None where the switch is off."""
        return admin.switched(self._admin)

    def killed(self) -> str:
        """Return who threw the kill switch and why; empty while it is not thrown."""
        return str(kill.killed(self.home) or "")

    def probe(self, slot: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Ask one slot through Envoy, whatever the table says; return status and body."""
        connection = Inside(self._folder)
        headers = {PROBE: slot, "content-type": "application/json"}
        try:
            connection.request("POST" if body else "GET", path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
