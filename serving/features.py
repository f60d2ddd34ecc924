"""Features: what a request left out is looked up, or made up for as the endpoint declares."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from penstock.endpoint import Instead
from penstock.online import Found, Guarded, Lookup, OnlineError, StoreOut, UnfitKey, opened
from serving.columns import Numbers
from serving.instead import Package, StandIn
from serving.reading import Asked, Names
from serving.stored import Masks, Scalars, lists

LOOKUP_TIMEOUT_S = 0.05
"""Longest wait for one answer of the store. It is the event loop that waits."""

OUT = "features cannot be looked up now; try again, or send them"
UNREADABLE = "what the feature store holds of these entities cannot be read; send their features"

LOG = logging.getLogger("serving")


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
        self._scalars = Scalars([f for f in known if f.length is None])
        self._lists = [f for f in known if f.length is not None]
        self._known = {f.name: f for f in known}
        for name, value in self._endpoint.values.items():
            if value is not None:
                names.columns[name].of_rows([value])
        self._outcomes: dict[str, int] = {"found": 0, "unusable": 0, "failed": 0}
        self._outage: BaseException | None = None

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
            columns[feature.name], unfit_n = lists(feature, found)
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
        if isinstance(why, StoreOut):
            self._warn(why)
        for asked in batch:
            self._outcomes["failed"] += asked.rows
            if isinstance(why, UnfitKey):
                asked.refusal = (400, str(why))
                continue
            columns, unfit = self._nothing(asked.rows)
            said = OUT if isinstance(why, StoreOut) else UNREADABLE
            self._otherwise(asked, columns, unfit, (503, said))

    def _warn(self, why: StoreOut) -> None:
        """Say once an outage that there is one: what fails later names the first as its cause."""
        outage = why.__cause__ if isinstance(why.__cause__, StoreOut) else why
        if outage is not self._outage:
            LOG.warning("features are not looked up: %s", why)
        self._outage = outage

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
