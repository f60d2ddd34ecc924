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
    fence,
    newest,
    overtaken,
    restored,
    table_of,
    tables_of,
)
from penstock.rollout.adapters.server import Held, Moved, Object, Ref, Server
from penstock.rollout.ports import TableError
from penstock.rollout.table import TrafficTable

TRIES = 5
"""Writes of one table while branches of other markets write theirs."""

POLL_S = 0.2
SHOWN = 3
"""Differences that a sentence names."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One object, as tables make it."""

    ref: Ref
    spec: Object
    """What of its ``spec`` is ours."""

    theirs: tuple[str, ...] = ()
    """Names within ``spec`` that belong to people: never written, never compared."""

    pinned: Callable[[Object], bool] = field(default=lambda _: False)
    """Whether a person's switch holds the object as it is."""

    def wrong(self, found: Object) -> list[str]:
        """Return what of the object is otherwise than the tables say."""
        if self.pinned(found):
            return []
        spec = {k: v for k, v in found.get("spec", {}).items() if k not in self.theirs}
        return list(different(self.spec, spec, f"{self.ref} spec"))


class Dialect(Protocol):
    """How one kind of cluster says a traffic table."""

    main: Ref
    """The object whose annotation is the fence and the truth."""

    reads: tuple[Ref, ...]
    """Objects that are only looked at."""

    edges: tuple[str, ...]

    def parts(self, tables: Mapping[str, TrafficTable]) -> Sequence[Part]:
        """Return the objects of tables, the main one among them.

        Raises:
            TableError: It cannot say them.
        """
        ...

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
        """Return the table that was written last; it may not be in force yet."""
        return table_of(tables_of(self._server.get(self._dialect.main)), market)

    def observe(self, market: str) -> TrafficTable:
        """Return the table in force: kept, rendered, accepted, by the objects' own word.

        Raises:
            TableError: Somebody changed an object, or it is not in force (yet).
        """
        main = self._server.get(self._dialect.main)
        tables = tables_of(main)
        parts = self._dialect.parts(tables)
        found = {part.ref: self._server.get(part.ref) for part in parts}
        found |= {ref: self._server.get(ref) for ref in self._dialect.reads}
        if said := foreign(parts, found):
            raise TableError(said)
        if said := self._dialect.settled(found):
            raise TableError(said)
        return table_of(tables, market)

    def apply(self, table: TrafficTable) -> None:
        """Write a table; again with the same one changes nothing.

        Raises:
            Stale: A table of its sequence or a higher one was written since.
            TableError: It is refused, others hold its fields, or nobody answers.
        """
        moved: Moved | None = None
        for _ in range(TRIES):
            try:
                return self._write(table)
            except Moved as e:  # another market's branch, or somebody newer: the fence will tell
                moved = e
        raise TableError(f"{self._dialect.main} is written to all the time: {moved}") from moved

    def _write(self, table: TrafficTable) -> None:
        main = self._server.get(self._dialect.main)
        held = tables_of(main)
        fence(held, table)
        wanted = {**held, table.market: table}
        # A switch that a person threw is never in the way of a way back.
        may_take = restored(held, table) or table.buckets == 0
        parts = list(self._dialect.parts(wanted))
        first = self._dialect.before(table_of(held, table.market), table)
        parts.sort(key=lambda part: (part.ref == self._dialect.main) == first)
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
            # Another market's branch may have come here first, with what we have not read.
            wanted = newest(wanted, kept)
            part = next(p for p in self._dialect.parts(wanted) if p.ref == part.ref)
        if tables_of(found) == wanted and not part.wrong(found):
            return
        manifest = {"metadata": {"annotations": annotation(wanted)}, "spec": part.spec}
        version = found["metadata"]["resourceVersion"]
        try:
            self._server.apply(part.ref, manifest, version=version)
        except Held as e:
            if not may_take:
                raise TableError(
                    f"{e} Somebody changed what Penstock applies; the table in force is restored "
                    "first, and only then does the release go on."
                ) from e
            freed = self._server.disown(part.ref, found, tuple(part.spec))
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
        parts = self._dialect.parts(tables_of(self._server.get(self._dialect.main)))
        return foreign(parts, {part.ref: self._server.get(part.ref) for part in parts})


def foreign(parts: Sequence[Part], found: Mapping[Ref, Object]) -> str:
    """Return what of the objects is not what their tables say, and who changed it last."""
    for part in parts:
        wrong = part.wrong(found[part.ref])
        if wrong:
            more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
            return f"{'; '.join(wrong[:SHOWN])}{more} (written by {last_writer(found[part.ref])})"
    return ""


def last_writer(found: Object) -> str:
    """Return the manager that changed an object's own fields last, as the server keeps it."""
    entries = [e for e in found["metadata"].get("managedFields", []) if not e.get("subresource")]
    if not entries:
        return "nobody knows whom"
    last = max(entries, key=lambda e: str(e.get("time", "")))
    return f"{last.get('manager', '')} at {last.get('time', '')}"
