"""What the release controller asks of the world, so that each part can be another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from penstock.rollout.table import TrafficTable


class TableError(RuntimeError):
    """A table could not be put in force or read back; the text says why."""


class Stale(TableError):
    """Somebody newer has written since: read again and decide again."""


class Foreign(TableError):
    """What is in force is no table of ours: somebody changed it by hand. It is to be restored."""


class DataPlane(Protocol):
    """Where traffic tables are put in force: Envoy here; a gateway or a mesh in a cluster."""

    def written(self, market: str) -> TrafficTable:
        """Return the table that was written last; it may not be in force yet."""
        ...

    def observe(self, market: str) -> TrafficTable:
        """Return the table that the data plane itself says it uses.

        Raises:
            TableError: It does not say, or uses what is no table of ours.
        """
        ...

    def apply(self, table: TrafficTable) -> None:
        """Write a table; again with the same one changes nothing.

        Raises:
            Stale: A table of its sequence or a higher one was written since.
            TableError: It is refused, or nobody answers.
        """
        ...

    def wait_applied(self, table: TrafficTable, *, timeout_s: float) -> None:
        """Wait until the data plane uses a table.

        Raises:
            TableError: It does not, in time.
        """
        ...

    def verify(self, table: TrafficTable) -> str:
        """Ask through every edge whether the table in force is this one, and answers.

        Return what is wrong, empty where nothing is.
        """
        ...

    def killed(self) -> str:
        """Return who threw the kill switch and why; empty while it is not thrown."""
        ...

    def ready(self, slot: str) -> bool:
        """Return whether a slot's server is warm, verified and answering."""
        ...


class Lease(Protocol):
    """Who carries a release now; a watchdog acts when it is not renewed."""

    def acquire(self, release: str, now: datetime) -> bool:
        """Take the lease, or say that another one holds it."""
        ...

    def renew(self, release: str, now: datetime, *, freeze: bool) -> bool:
        """Keep it; return False when it was lost.

        Args:
            freeze: A watchdog leaves the traffic as it is, instead of giving it to the champion.
        """
        ...

    def release(self, release: str) -> None:
        """Give it back."""
        ...


class Leases(Lease, Protocol):
    """Leases of several releases, as who carries them all needs them."""

    def known(self) -> Sequence[str]:
        """Return the releases of which a lease is kept, whoever holds it."""
        ...

    def drop(self, release: str) -> None:
        """Remove the lease of a release that has ended, whoever held it last."""
        ...

    def abandon(self, release: str) -> None:
        """Carry it no further, though it goes on: anybody may take it."""
        ...


class Notifier(Protocol):
    """Tells people what they must know; it never holds a release up."""

    def tell(self, event: Mapping[str, Any]) -> None:
        """Pass on one event: ``event``, ``release``, ``workload``, ``market``, ``at``, ``text``."""
        ...


class Clock(Protocol):
    """Time that does not go back."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...
