"""Look features up for serving: the values a training join gives at the same instant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.online.layout import KeyColumn, Layout, OnlineError, UnfitKey, ViewLayout
from penstock.online.store import Key, Store
from penstock.online.wire import key_prefix, key_value, supported_key, value
from penstock.workload import Freshness, OnStale

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The features of one entity."""

    values: dict[str, Any]
    """A value per feature of the service; None where nothing is known."""

    stale: tuple[str, ...]
    """Features older than their declared limit; their values are what was declared for that."""


@dataclass(kw_only=True)
class Counts:
    """What look-ups met; the owner exports them."""

    asked: int = 0
    """Entities looked up."""

    failed: int = 0
    """Of these, the ones the store gave no answer for."""

    unknown: Counter[str] = field(default_factory=Counter[str])
    """By view: entities of which it holds nothing, or nothing young enough."""

    stale: Counter[str] = field(default_factory=Counter[str])
    """By feature: values older than their limit."""


class Lookup:
    """Looks up one feature service."""

    def __init__(
        self,
        layout: Layout,
        store: Store,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        served: Callable[[Mapping[str, Any], Found, datetime], None] | None = None,
        aged: Callable[[str, float], None] | None = None,
    ) -> None:
        """Prepare look-ups.

        Args:
            served: Told entity, features and time of each look-up, for a log; must not wait.
            aged: Told view and age in seconds of each row that was found; must not wait.

        Raises:
            OnlineError: A view is keyed by a type that has no stored form.
        """
        self._layout, self._store, self._clock, self._served = layout, store, clock, served
        self._aged = aged
        self._views = [_View(view, layout.freshness) for view in layout.views]
        self.counts = Counts()

    @property
    def layout(self) -> Layout:
        """What is looked up."""
        return self._layout

    def get(self, entity: Mapping[str, Any]) -> Found:
        """Return the features of one entity now.

        Raises:
            UnfitKey: A key is missing or of another type.
            StoreOut: The store did not answer in time.
            OnlineError: What it holds of the entity cannot be read.
        """
        return self.get_many([entity])[0]

    def get_many(self, entities: Sequence[Mapping[str, Any]]) -> list[Found]:
        """Return the features of each entity, in order, from one exchange with the store.

        Raises:
            OnlineError: As :meth:`get`; then none is returned.
        """
        keys: list[Key] = [
            (number, view.key(entity))
            for entity in entities
            for number, view in enumerate(self._views)
        ]
        # A ranking asks for the same user with every item; the store is asked for each key once.
        wanted = list(dict.fromkeys(keys))
        self.counts.asked += len(entities)
        try:
            known = dict(zip(wanted, self._store.read(wanted), strict=True))
        except OnlineError:
            self.counts.failed += len(entities)
            raise
        stored = iter(keys)
        now = self._clock()
        now_us = (now - _EPOCH) // _MICROSECOND
        found: list[Found] = []
        for _ in entities:
            values: dict[str, Any] = {}
            stale: list[str] = []
            for view in self._views:
                event_us, held = known[next(stored)]
                age_us = None if event_us is None else now_us - event_us
                if age_us is not None and self._aged is not None:
                    self._aged(view.name, age_us / 1e6)
                view.fill(values, stale, age_us, held, self.counts)
            found.append(Found(values=values, stale=tuple(stale)))
        if self._served is not None:
            for entity, one in zip(entities, found, strict=True):
                self._served(entity, one, now)
        return found


_NOTHING = KeyColumn(name="__dummy_id", asked="", kind="STRING")
"""What Feast keys a view without entities by; its value is the empty string."""


class _View:
    """One view, prepared."""

    def __init__(self, layout: ViewLayout, freshness: Sequence[Freshness]) -> None:
        for key in layout.keys:
            if not supported_key(key.kind):
                raise OnlineError(
                    f"view {layout.name} is keyed by {key.name}, a {key.kind}; online keys are "
                    "integers, strings or bytes."
                )
        self.name, self._keys, self._features = layout.name, layout.keys, layout.features
        self._prefix = key_prefix(layout.keys)
        if not layout.keys:
            self._prefix = key_prefix([_NOTHING]) + key_value("", _NOTHING)
        self._ttl_us = None if layout.ttl_s is None else round(layout.ttl_s * 1_000_000)
        declared = [f for f in freshness if f.feature in layout.features]
        self._limits = [(f, f.max_staleness // _MICROSECOND) for f in declared]
        self._shortest_us = min((us for _, us in self._limits), default=None)

    def key(self, entity: Mapping[str, Any]) -> bytes:
        try:
            return self._prefix + b"".join([key_value(entity[k.asked], k) for k in self._keys])
        except KeyError as e:
            wanted = ", ".join(k.asked for k in self._keys)
            raise UnfitKey(
                f"view {self.name} is looked up by {wanted}; the request has "
                f"{', '.join(entity) or 'nothing'}."
            ) from e

    def fill(
        self,
        values: dict[str, Any],
        stale: list[str],
        age_us: int | None,
        held: Sequence[bytes | None],
        counts: Counts,
    ) -> None:
        # A value from the future means that this clock is behind: only what was known is here.
        if age_us is None or (self._ttl_us is not None and age_us > self._ttl_us):
            counts.unknown[self.name] += 1
            values.update(dict.fromkeys(self._features))
        else:
            for name, data in zip(self._features, held, strict=True):
                values[name] = None if data is None else value(data)
        if age_us is None or self._shortest_us is None or age_us <= self._shortest_us:
            return
        for limit, most_us in self._limits:
            if age_us > most_us:
                stale.append(limit.feature)
                counts.stale[limit.feature] += 1
                if limit.on_stale is OnStale.FALLBACK_TO_DEFAULT:
                    values[limit.feature] = copy(limit.default)
