"""What the model must do to impressions changed on purpose, and to plain ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIOR_CLICKS, PRIOR_IMPRESSIONS = 1, 10
"""What the rates are smoothed with: a rate is (clicks + 1) / (impressions + 10)."""

CLICKS = 20
"""Clicks an item gets more of the same impressions in :func:`a_better_item`."""

HOUR_US = 3_600_000_000
"""Microseconds, the unit of the event timestamps."""


def a_better_item(rows: pa.Table) -> pa.Table:
    """Return the impressions with an item that was clicked more often when it was shown as often.

    Items of which nothing is known, or that were shown too seldom for it, stay.
    """
    shown, clicked = (_floats(rows, f"item_{n}_24h") for n in ("impressions", "clicks"))
    more = np.where(shown - clicked >= CLICKS, clicked + CLICKS, clicked)
    return _with(rows, _rated(rows, shown, more))


def a_better_match(rows: pa.Table) -> pa.Table:
    """Return the impressions with a user who clicks half as much again in the item's category.

    Where the taste is not known it stays so.
    """
    return _with(rows, {"taste": np.minimum(_floats(rows, "taste") * 1.5, 1.0)})


def an_hour_later(rows: pa.Table) -> pa.Table:
    """Return the impressions one hour later, with all that is known of user and item as it was."""
    instant = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    moved = pa.array(instant + HOUR_US).cast(rows.schema.field("event_timestamp").type)
    index = rows.schema.get_field_index("event_timestamp")
    return rows.set_column(index, rows.schema.field(index), moved)


def shown_once_more(rows: pa.Table) -> pa.Table:
    """Return the impressions with an item that was shown once more, and was not clicked.

    Items that were shown fewer than fifty times stay: for those it is news.
    """
    shown, clicked = (_floats(rows, f"item_{n}_24h") for n in ("impressions", "clicks"))
    return _with(rows, _rated(rows, np.where(shown >= 50, shown + 1, shown), clicked))


def plain_impressions(rows: pa.Table) -> pa.Table:
    """Return holdout impressions made plain: a beloved item of a beloved category, or neither.

    Who, where and when stay as they were. The one user clicks three times out of five, of the item
    and of its category; the other never did, and nobody clicks the item.
    """
    known = pc.and_(pc.is_valid(rows["user_rate_24h"]), pc.is_valid(rows["taste"]))
    held = rows.filter(known).slice(0, 50)
    loved = _everywhere(held, rate=0.6, clicked=1)
    unloved = _everywhere(held, rate=0.0, clicked=0)
    return pa.concat_tables([loved, unloved])


def _everywhere(rows: pa.Table, *, rate: float, clicked: int) -> pa.Table:
    """Return the rows with user, item and taste all of one click rate, over many impressions."""
    shown = np.full(len(rows), 200.0)
    clicks = np.round(rate * shown)
    smoothed = (clicks + PRIOR_CLICKS) / (shown + PRIOR_IMPRESSIONS)
    made: dict[str, NDArray[Any]] = {"clicked": np.full(len(rows), clicked), "taste": smoothed}
    for whose in ("user", "item"):
        made |= {
            f"{whose}_impressions_24h": shown,
            f"{whose}_clicks_24h": clicks,
            f"{whose}_rate_24h": smoothed,
        }
    return _with(rows, made)


def _rated(rows: pa.Table, shown: Floats, clicked: Floats) -> dict[str, Floats]:
    """Return an item's counts and the rate that follows from them; unchanged where they are."""
    was = _floats(rows, "item_impressions_24h"), _floats(rows, "item_clicks_24h")
    more = (shown > was[0]) | (clicked > was[1])
    rate = (clicked + PRIOR_CLICKS) / (shown + PRIOR_IMPRESSIONS)
    return {
        "item_impressions_24h": shown,
        "item_clicks_24h": clicked,
        "item_rate_24h": np.where(more, rate, _floats(rows, "item_rate_24h")),
    }


def _floats(rows: pa.Table, name: str) -> Floats:
    """Return a column, missing values as NaN."""
    return rows[name].cast(pa.float64()).to_numpy()


def _with(rows: pa.Table, changed: Mapping[str, NDArray[Any]]) -> pa.Table:
    """Return the rows with these columns replaced, NaN as missing, the types kept."""
    for name, values in changed.items():
        index = rows.schema.get_field_index(name)
        made = pa.array(values, from_pandas=True).cast(rows.schema.field(name).type)
        rows = rows.set_column(index, rows.schema.field(name), made)
    return rows
