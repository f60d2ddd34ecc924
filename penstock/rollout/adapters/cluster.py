"""The data plane of a cluster: tables become objects of an API server, and are read back.

What the objects look like is a dialect's: :mod:`gateway`, :mod:`istio`, :mod:`knative`. Here is
what they have in common: the fence, the order of writes, and when a table counts as in force.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penstock.rollout.adapters.annotated import (
    Tables,
    annotation,
    different,
    exposes_nobody,
    fence,
    newest,
    overtaken,
    table_of,
    tables_of,
)
from penstock.rollout.adapters.server import Held, Moved, Object, Ref, Server, Unanswered
from penstock.rollout.ports import Foreign, Stale, TableError
from penstock.rollout.table import TrafficTable

TRIES = 5
"""Writes of one table while branches of other markets write theirs."""

POLL_S = 0.2
SHOWN = 3
"""Differences that a sentence names."""

WRITTEN = " (written by "
"""Between what is different and who did it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One object that tables are said with."""

    ref: Ref
    render: Callable[[Mapping[str, TrafficTable]], Object]
    """What of its ``spec`` is ours; raises TableError where it cannot say the tables."""

    theirs: tuple[str, ...] = ()
    """Names within ``spec`` that belong to people: never written, never compared."""

    pinned: Callable[[Object], bool] = field(default=lambda _: False)
    """Whether a person's switch holds the object as it is."""

    def wrong(self, found: Object) -> list[str]:
        """Return what of the object is otherwise than the tables that it keeps say.

        Raises:
            TableError: It keeps none.
        """
        if self.pinned(found):
            return []
        spec = {k: v for k, v in found.get("spec", {}).items() if k not in self.theirs}
        return list(different(self.render(tables_of(found)), spec, f"{self.ref} spec"))

    def differs(self, found: Object, table: TrafficTable) -> bool:
        """Return whether a table makes the object another one than the tables that it keeps."""
        kept = tables_of(found)
        return self.render({**kept, table.market: table}) != self.render(kept)


class Dialect(Protocol):
    """How one kind of cluster says a traffic table."""

    main: Ref
    """The object whose annotation is the fence and the truth."""

    reads: tuple[Ref, ...]
    """Objects that are only looked at."""

    parts: tuple[Part, ...]
    """The objects that are written, the main one among them."""

    def settled(self, objects: Mapping[Ref, Object]) -> str:
        """Return why the objects as they are do not count as in force; empty where they do."""
        ...

    def before(self, now: TrafficTable, then: TrafficTable, /) -> bool:
        """Return whether the objects beside the main one are written before it.

        Raises:
            TableError: Neither order is safe.
        """
        ...

    def killed(self, server: Server) -> str:
        """Return who threw the kill switch and why; empty while it is not thrown."""
        ...

    def ready(self, server: Server, slot: str) -> bool:
        """Return whether a slot's server is warm, verified and answering."""
        ...

    def ask(self, table: TrafficTable) -> str:
        """Ask through every edge; return what answers otherwise than a table says."""
        ...


class ClusterPlane:
    """A :class:`penstock.rollout.ports.DataPlane` behind an API server."""

    def __init__(
        self,
        server: Server,
        dialect: Dialect,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the server, what is written there, and a clock that does not go back."""
        self._server, self._dialect = server, dialect
        self._monotonic, self._sleep = monotonic, sleep

    @property
    def dialect(self) -> Dialect:
        """What is written."""
        return self._dialect

    def written(self, market: str) -> TrafficTable:
        """Return the table that was written last, be it to one object of several.

        It may not be in force yet. Its sequence is what the next one must be above.
        """
        tables: Tables = {}
        for part in self._dialect.parts:
            tables = newest(tables, tables_of(self._server.get(part.ref)))
        return table_of(tables, market)

    def observe(self, market: str) -> TrafficTable:
        """Return the table in force: kept, rendered, accepted, by the objects' own word.

        What another market's branch has begun and not finished is its own affair.

        Raises:
            Foreign: Somebody changed an object.
            TableError: The table is not in force (yet), or nobody says.
        """
        refs = [*(part.ref for part in self._dialect.parts), *self._dialect.reads]
        found = {ref: self._server.get(ref) for ref in refs}
        tables = tables_of(found[self._dialect.main])
        if said := foreign(self._dialect.parts, found):
            raise Foreign(said)
        if said := self._unfinished(tables, found, market) or self._dialect.settled(found):
            raise TableError(said)
        return table_of(tables, market)

    def _unfinished(self, tables: Tables, found: Mapping[Ref, Object], market: str) -> str:
        """Return which object says something else of a market than the main one does."""
        held = table_of(tables, market)
        for part in self._dialect.parts:
            if not part.pinned(found[part.ref]) and part.differs(found[part.ref], held):
                kept = table_of(tables_of(found[part.ref]), market).sequence
                return f"{part.ref} is at table {kept} of {market!r}, not at {held.sequence}"
        return ""

    def apply(self, table: TrafficTable) -> None:
        """Write a table; again with the same one changes nothing.

        Raises:
            Stale: A table of its sequence or a higher one was written since, or somebody changed
                what would be written over.
            TableError: It is refused, or nobody answers.
        """
        unanswered = 0
        for _ in range(TRIES):
            try:
                return self._write(table)
            except Moved:  # another market's branch, or somebody newer: the fence will tell
                continue
            except Unanswered:  # read again once: what was written and not answered is no failure
                unanswered += 1
                if unanswered > 1:
                    raise
        raise TableError(f"{self._dialect.main} is written to all the time; try again.")

    def _write(self, table: TrafficTable) -> None:
        main = self._server.get(self._dialect.main)
        held = tables_of(main)
        fence(held, table)
        wanted = {**held, table.market: table}
        # What cannot be said is refused before anything is written.
        for part in self._dialect.parts:
            part.render(wanted)
        first = self._dialect.before(table_of(held, table.market), table)
        parts = sorted(self._dialect.parts, key=lambda p: (p.ref == self._dialect.main) == first)
        # Whatever others changed, what should be is restored and users can always be taken back.
        may_take = exposes_nobody(table_of(held, table.market), table)
        for part in parts:
            found = main if part.ref == self._dialect.main else self._server.get(part.ref)
            self._put(part, found, wanted, table, may_take=may_take)

    def _put(
        self, part: Part, found: Object, wanted: Tables, table: TrafficTable, *, may_take: bool
    ) -> None:
        """Bring one object to what tables make of it, if it is not so already."""
        if part.pinned(found):
            if part.ref == self._dialect.main:
                raise TableError(f"{part.ref} is held by a person: {self.killed()}")
            return
        if part.ref != self._dialect.main:
            kept = tables_of(found)
            overtaken(kept, table)
            # Most steps change nothing beside the routes: they are one write, whole or not at all.
            if not part.differs(found, table) and not part.wrong(found):
                return
            # Another market's branch may have come here first, with what the main one lacks yet.
            wanted = newest(wanted, kept)
        if tables_of(found) == wanted and not part.wrong(found):
            return
        spec = part.render(wanted)
        manifest = {"metadata": {"annotations": annotation(wanted)}, "spec": spec}
        version = found["metadata"]["resourceVersion"]
        try:
            self._server.apply(part.ref, manifest, version=version)
        except Held as e:
            if not may_take and not part.wrong(found):
                raise TableError(
                    f"{e} It says the same as Penstock does, so there is nothing to restore; as "
                    "long as it does, nobody moves forward."
                ) from e
            if not may_take:
                raise Stale(
                    f"{e} Somebody changed what Penstock applies; the table in force is restored "
                    "first, and only then does the release go on."
                ) from e
            freed = self._server.disown(part.ref, found, tuple(spec))
            version = freed["metadata"]["resourceVersion"]
            self._server.apply(part.ref, manifest, version=version)

    def wait_applied(self, table: TrafficTable, *, timeout_s: float) -> None:
        """Wait until the cluster says that a table is in force.

        Raises:
            TableError: It does not, in time; the text is the last reason.
        """
        end = self._monotonic() + timeout_s
        while True:
            why = self._lacks(table)
            if not why:
                return
            if self._monotonic() >= end:
                raise TableError(f"not in force within {timeout_s:g} s: {why}")
            self._sleep(POLL_S)

    def _lacks(self, table: TrafficTable) -> str:
        try:
            seen = self.observe(table.market)
        except TableError as e:
            return str(e)
        return "" if seen == table else f"table {seen.sequence} is there, not {table.sequence}"

    def verify(self, table: TrafficTable) -> str:
        """Ask through every edge; return what is wrong, empty where nothing is."""
        if lacks := self._lacks(table):
            return lacks
        if said := self.killed():
            return f"the kill switch answers everybody: {said}"
        return self._dialect.ask(table)

    def killed(self) -> str:
        """Return who threw the kill switch and why; empty while it is not thrown."""
        return self._dialect.killed(self._server)

    def ready(self, slot: str) -> bool:
        """Return whether a slot's server is warm, verified and answering."""
        return self._dialect.ready(self._server, slot)

    def foreign(self) -> str:
        """Return what somebody else changed, empty where nothing is.

        Raises:
            TableError: It cannot be read.
        """
        parts = self._dialect.parts
        return foreign(parts, {part.ref: self._server.get(part.ref) for part in parts})


def foreign(parts: Sequence[Part], found: Mapping[Ref, Object]) -> str:
    """Return what of the objects is not what their tables say, and who changed it last."""
    for part in parts:
        wrong = part.wrong(found[part.ref])
        if wrong:
            more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
            return f"{'; '.join(wrong[:SHOWN])}{more}{WRITTEN}{last_writer(found[part.ref])})"
    return ""


def last_writer(found: Object) -> str:
    """Return the manager that changed an object's own fields last, as the server keeps it."""
    entries = [e for e in found["metadata"].get("managedFields", []) if not e.get("subresource")]
    if not entries:
        return "nobody knows whom"
    last = max(entries, key=lambda e: str(e.get("time", "")))
    return f"{last.get('manager', '')} at {last.get('time', '')}"
