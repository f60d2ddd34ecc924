"""Features: what a request left out is looked up, or made up for as the endpoint declares."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from penstock.endpoint import Instead
from penstock.online import Found, Guarded, Lookup, OnlineError, StoreOut, UnfitKey, opened
from penstock.request import STAMP, Feature
from serving.columns import FEW, Numbers
from serving.instead import Package, StandIn
from serving.reading import Asked, Names

LOOKUP_TIMEOUT_S = 0.05
"""Longest wait for one answer of the store. It is the event loop that waits."""

OUT = "features cannot be looked up now; try again, or send them"
UNREADABLE = "what the feature store holds of these entities cannot be read; send their features"

LOG = logging.getLogger("serving")

Masks = dict[str, NDArray[np.bool_]]
"""Of features, which rows have no value that is fit."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Features:
    """Completes requests: one exchange with the store for all that came together."""

    def __init__(
        self,
        names: Names,
        lookup: Lookup,
        *,
        instead: StandIn | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what looks up, and what answers where it cannot.

        Args:
            close: Lets go of the store.

        Raises:
            ValueError: The endpoint declares a value that a request may not hold.
        """
        self._names, self._lookup, self._instead, self.close = names, lookup, instead, close
        self._endpoint = names.contract.endpoint
        known = [f for f in names.contract.features if f.name in names.looked_up]
        self._scalars = _Scalars([f for f in known if f.length is None])
        self._lists = [f for f in known if f.length is not None]
        self._known = {f.name: f for f in known}
        for name, value in self._endpoint.values.items():
            if value is not None:
                names.columns[name].of_rows([value])
        self._outcomes: dict[str, int] = {"found": 0, "unusable": 0, "failed": 0}

    @classmethod
    def open(
        cls,
        served: Package,
        address: str,
        *,
        instead: StandIn | None = None,
        aged: Callable[[str, float], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Self:
        """Return what looks a package's features up in the store at an address.

        A store that does not answer yet is waited for meanwhile.

        Args:
            address: Path of a SQLite file, or ``redis://host:port/database``.
            aged: Told view and age in seconds of each row that is found; must not wait.

        Raises:
            OnlineError: The package looks nothing up, or this is no store of its features.
        """
        layout = served.layout
        if layout is None:
            raise OnlineError(
                f"the package of {served.contract.workload!r} holds no online.json, so nothing "
                "says where its features lie; unset PENSTOCK_ONLINE, or register the model again."
            )
        store = Guarded(partial(opened, address, layout, timeout_s=LOOKUP_TIMEOUT_S))
        lookup = Lookup(layout, store, clock=clock, aged=aged)
        return cls(Names(served.contract, layout), lookup, instead=instead, close=store.close)

    @property
    def outcomes(self) -> Mapping[str, int]:
        """Rows that were looked up, by what came of it."""
        return self._outcomes

    @property
    def unknown(self) -> Mapping[str, int]:
        """By view: entities of which it holds nothing, or nothing young enough."""
        return self._lookup.counts.unknown

    def complete(self, batch: Sequence[Asked]) -> None:
        """Fill the columns that must be looked up, or answer otherwise, or say why not."""
        if needing := [asked for asked in batch if asked.needs]:
            self._complete(needing)

    def _complete(self, batch: Sequence[Asked]) -> None:
        try:
            found = self._lookup.get_many([e for asked in batch for e in _entities(asked)])
        except OnlineError as e:
            self._without(batch, e)
            return
        try:
            columns, unfit = self._columns(found)
        except (TypeError, ValueError) as e:
            self._without(batch, OnlineError(f"a value is of another type: {e}"))
            return
        at = 0
        for asked in batch:
            rows = slice(at, at + asked.rows)
            at = rows.stop
            asked.seen.stale = tuple(dict.fromkeys(n for one in found[rows] for n in one.stale))
            self._fill(asked, _part(columns, rows), _part(unfit, rows))

    def _columns(self, found: Sequence[Found]) -> tuple[dict[str, Numbers], Masks]:
        columns, unfit = self._scalars(found)
        for feature in self._lists:
            columns[feature.name], unfit_n = _lists(feature, found)
            if unfit_n.any():
                unfit[feature.name] = unfit_n
        return columns, unfit

    def _fill(self, asked: Asked, columns: dict[str, Numbers], unfit: Masks) -> None:
        unfit = {name: held_n for name, held_n in unfit.items() if held_n.any()}
        if not unfit:
            asked.columns.update(columns)
            self._outcomes["found"] += asked.rows
            return
        self._outcomes["unusable"] += asked.rows
        self._otherwise(asked, columns, unfit, _refusal(asked, columns, unfit))

    def _without(self, batch: Sequence[Asked], why: OnlineError) -> None:
        """Make up for a look-up that failed."""
        if len(batch) > 1 and not isinstance(why, StoreOut):
            # What is wrong with one entity is no matter of those who came with it.
            for asked in batch:
                self._complete([asked])
            return
        if isinstance(why, StoreOut) and not isinstance(why.__cause__, StoreOut):
            LOG.warning("features are not looked up: %s", why)  # once an outage
        for asked in batch:
            self._outcomes["failed"] += asked.rows
            if isinstance(why, UnfitKey):
                asked.refusal = (400, str(why))
                continue
            columns, unfit = self._nothing(asked.rows)
            said = OUT if isinstance(why, StoreOut) else UNREADABLE
            self._otherwise(asked, columns, unfit, (503, said))

    def _nothing(self, rows: int) -> tuple[dict[str, Numbers], Masks]:
        """Return columns in which every value is unfit."""
        kinds = {name: self._names.columns[name].dtype for name in self._known}
        columns: dict[str, Numbers] = {n: np.zeros(rows, kind) for n, kind in kinds.items()}
        return columns, {name: np.ones(rows, np.bool_) for name in columns}

    def _otherwise(
        self, asked: Asked, columns: dict[str, Numbers], unfit: Masks, refusal: tuple[int, str]
    ) -> None:
        for way in self._endpoint.lookup:
            if way is Instead.VALUES:
                if self._with_values(asked, columns, unfit):
                    return
            elif self._instead is not None and self._instead.stand_in(way, asked):
                return
        asked.refusal = refusal

    def _with_values(self, asked: Asked, columns: dict[str, Numbers], unfit: Masks) -> bool:
        """Put the declared values where there is none that is fit; the others stay."""
        for name, unfit_n in unfit.items():
            feature, value = self._known[name], self._endpoint.values.get(name)
            if feature.length is not None or (value is None and not feature.nullable):
                return False
            held = columns[name]
            made_up = np.where(unfit_n, np.nan if value is None else value, held)
            columns[name] = made_up.astype(held.dtype)
        asked.columns.update(columns)
        asked.seen.fallbacks.append(Instead.VALUES.value)
        return True


class _Scalars:
    """The looked-up features of one number a row, checked as a request's are."""

    def __init__(self, features: Sequence[Feature]) -> None:
        """Prepare their limits, each of shape [features, 1]."""
        self._features = features
        largest = np.finfo(np.float64).max
        low = [-largest if f.low is None else f.low for f in features]
        high = [largest if f.high is None else f.high for f in features]
        self._low, self._high = np.array([low]).T, np.array([high]).T
        self._needed = np.array([[not f.nullable for f in features]]).T
        self._plain = all(f.among is None and f.dtype != STAMP for f in features)
        kinds = [np.int64 if f.whole and not f.nullable else np.float64 for f in features]
        self._each = [
            (f.name, *limits, f.nullable, kind)
            for f, kind, *limits in zip(features, kinds, low, high, strict=True)
        ]

    def __call__(self, found: Sequence[Found]) -> tuple[dict[str, Numbers], Masks]:
        """Return columns, and of each feature that has unfit values where they are.

        Raises:
            TypeError, ValueError: A stored value is no number.
        """
        if not self._features:
            return {}, {}
        if self._plain and len(found) <= FEW and (columns := self._of_few(found)) is not None:
            return columns, {}
        lists = [[one.values[f.name] for one in found] for f in self._features]
        for feature, values in zip(self._features, lists, strict=True):
            if feature.dtype == STAMP:
                values[:] = map(_microseconds, values)
        held_fn = np.array(lists, np.float64)  # None becomes NaN
        unfit_fn = (held_fn < self._low) | (held_fn > self._high)
        unfit_fn |= np.isnan(held_fn) & self._needed
        columns, unfit = dict[str, Numbers](), dict[str, NDArray[np.bool_]]()
        some = unfit_fn.any()
        for at, feature in enumerate(self._features):
            columns[feature.name] = _typed(feature, held_fn[at], lists[at])
            unfit_n = unfit_fn[at]
            if feature.among is not None:
                unfit_n = unfit_n | ~(np.isin(held_fn[at], feature.among) | np.isnan(held_fn[at]))
            if (some or feature.among is not None) and unfit_n.any():
                unfit[feature.name] = unfit_n
        return columns, unfit

    def _of_few(self, found: Sequence[Found]) -> dict[str, Numbers] | None:
        """Return the columns of few rows, None where a value is unfit: numpy's calls cost more."""
        columns: dict[str, Numbers] = {}
        for name, low, high, nullable, kind in self._each:
            values = [one.values[name] for one in found]
            for value in values:
                if not (nullable if value is None else low <= value <= high):
                    return None
            columns[name] = np.array(values, kind)
        return columns


def _typed(feature: Feature, held_n: NDArray[np.float64], values: Sequence[Any]) -> Numbers:
    """Return a column of the type that the model is given; whole numbers keep every digit."""
    if not feature.whole or feature.nullable:
        return held_n
    return np.array([0 if value is None else value for value in values], np.int64)


def _lists(feature: Feature, found: Sequence[Found]) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return a list column [n, length], and which rows are missing or not as the contract says."""
    assert feature.length is not None
    held_nl = np.zeros((len(found), feature.length), np.float32)
    unfit_n = np.ones(len(found), np.bool_)
    low = -np.inf if feature.low is None else feature.low
    high = np.inf if feature.high is None else feature.high
    for at, one in enumerate(found):
        values = one.values[feature.name]
        if values is not None and len(values) == feature.length:
            held_nl[at] = values
            unfit_n[at] = not ((held_nl[at] >= low) & (held_nl[at] <= high)).all()
    return held_nl, unfit_n


def _microseconds(value: datetime | None) -> int | None:
    return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)


def _entities(asked: Asked) -> list[dict[str, Any]]:
    if not asked.keys:  # its views are the same for everybody
        return [{}] * asked.rows
    rows = zip(*asked.keys.values(), strict=True)
    return [dict(zip(asked.keys, row, strict=True)) for row in rows]


def _part(columns: Mapping[str, NDArray[Any]], rows: slice) -> dict[str, NDArray[Any]]:
    return {name: held[rows] for name, held in columns.items()}


def _refusal(asked: Asked, columns: Mapping[str, Numbers], unfit: Masks) -> tuple[int, str]:
    """Return what is said of the first value that is missing or not allowed."""
    name, unfit_n = next(iter(unfit.items()))
    row = int(np.argmax(unfit_n))
    who = ", ".join(f"{key} {values[row]}" for key, values in asked.keys.items()) or "everybody"
    value = columns[name][row]
    if columns[name].dtype.kind == "f" and not np.isnan(value).any() and value.ndim == 0:
        return 503, f"{name}: {value:g} is stored of {who}, which is not allowed; send the features"
    return 404, f"{name}: of {who} none is known, or none young enough; send the features"
