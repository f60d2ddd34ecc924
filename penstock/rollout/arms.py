"""Arms: which records are whose, joined to each other and to outcomes: the evidence of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.rollout.evidence import NO_COPIES, Answers, Copies, Evidence
from penstock.rollout.judgement import Window
from penstock.rollout.outcomes import LABEL, Value
from penstock.rollout.rows import ANSWERED, BUSY, COPY, GIVEN, LIVE, REFUSED, Rows

Array = NDArray[Any]

AHEAD_S = 5.0
"""A record may be so much later than now, as clocks differ; one that is more contradicts them."""

SETTLE_S = 2.0
"""A copy, or a late answer of the challenger's own, may be written this much later than the other
version's of the same request."""

MOST_CROSSED = 0.01
"""Share of users that may be met in both arms, as requests under way when tables change."""

RIGHT = "right"
_STRIDE = np.int64(-7046029254386353131)
"""2^64 over the golden ratio, odd: mixes a row's number into its request's."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Places of each arm's records, in order of time, and what is wrong with them."""

    one: Array
    """The champion's."""

    other: Array
    """The challenger's own."""

    rescued: Array
    """Given to the challenger and answered by another: it could not."""

    earlier: Array
    conflict: str
    anonymous: bool
    """No request names its user, so each is one of its own."""


def evidence_of(
    rows: Rows, outcomes: Mapping[str, Value], window: Window, *, now: float, alive: bool
) -> Evidence:
    """Return the evidence of a step, without what the logs say of their losses."""
    chosen = choose(rows, window, now=now)
    other = np.concatenate([chosen.other, chosen.rescued])
    other = other[np.argsort(rows.requests["at"][other], kind="stable")]
    lost = np.isin(other, chosen.rescued)
    sizes = np.cumsum([len(other), len(chosen.one)])
    users = rows.requests["user"][np.concatenate([other, chosen.one, chosen.earlier])]
    numbers = np.unique(users, return_inverse=True)[1].astype(np.int64)
    of_other, of_one, of_earlier = np.split(numbers, sizes)
    newest = rows.requests["at"][chosen.other]
    repeated = sum(np.count_nonzero(~_once(rows, arm)) for arm in (chosen.one, chosen.other))
    return Evidence(
        challenger=_answers(rows, outcomes, other, of_other, rescued=lost),
        since=window.since,
        champion=_answers(rows, outcomes, chosen.one, of_one),
        earlier=_answers(rows, outcomes, chosen.earlier, of_earlier),
        copies=_copies(rows, chosen, of_one, now=now) if window.step.shadow else NO_COPIES,
        slices=tuple(part.name for part in rows.slices),
        newest_at=float(newest.max()) if len(newest) else None,
        alive=alive,
        conflict=chosen.conflict,
        repeated=int(repeated),
        anonymous=chosen.anonymous,
    )


def choose(rows: Rows, window: Window, *, now: float) -> Chosen:
    """Return whose records are whose; users that are met in both arms are left out of both."""
    held = rows.requests
    at, kind, version = held["at"], held["kind"], held["version"]
    mine = (held["market"] == rows.code("market", window.market)) & (at >= window.opened)
    future = mine & (at > now + AHEAD_S)
    mine &= ~future
    anonymous = not held["named"][mine].any()
    if not anonymous:
        # One caller without a name would be as many users as it sends requests.
        mine &= held["named"]
    is_other = version == rows.code("version", window.challenger)
    is_one = _version(rows, window.champion, version) & (kind == LIVE)
    step = mine & (at >= window.since)
    live = mine & ((is_other & (kind != COPY)) | (kind == GIVEN))
    begun = float(at[live].min()) if live.any() else np.inf
    one = mine & is_one & (at >= _champion_from(window, at[mine & is_one]))
    other = step & is_other & ((kind == COPY) if window.step.shadow else (kind != COPY))
    # Until then the challenger's own record may come: it was late, and not the one that was heard.
    rescued = step & ~is_other & (kind == GIVEN) & (at <= now - SETTLE_S)
    rescued &= not window.step.shadow
    rescued &= ~np.isin(held["request"], held["request"][other])
    crossed = _crossed(held["user"], one & step, other | rescued, window)
    bad = np.isin(held["user"], crossed)
    share = len(crossed) / max(1, len(np.unique(held["user"][other | rescued])))
    return Chosen(
        one=_by_time(at, one & ~bad),
        other=_by_time(at, other & ~bad),
        rescued=_by_time(at, rescued & ~bad),
        earlier=_by_time(at, mine & is_one & (at < min(begun, window.since))),
        conflict=_conflict(int(future.sum()), share),
        anonymous=anonymous and bool(mine.any()),
    )


def _version(rows: Rows, name: str | None, version: Array) -> Array:
    if name is None:
        return np.zeros(len(version), bool)
    return version == rows.code("version", name)


def _champion_from(window: Window, at_n: Array) -> float:
    """Return from when the champion's users count: where it has none now, from the step before.

    Args:
        at_n: Times of its answers since the release was opened.
    """
    if window.step.percent < 100:
        return window.since
    before = window.since if window.before is None else window.before
    return before if (at_n >= before).any() else window.opened


def _crossed(user: Array, one: Array, other: Array, window: Window) -> Array:
    """Return the users of both arms; in shadow all are, as they should."""
    if window.step.shadow or window.step.percent == 100:
        return np.empty(0, np.int64)
    return np.intersect1d(user[one], user[other])


def _conflict(future: int, crossed_share: float) -> str:
    if future:
        return f"{future} records are from the future by more than {AHEAD_S:g} s: mend the clocks"
    if crossed_share > MOST_CROSSED:
        return (
            f"{crossed_share:.1%} of the challenger's users were met in both arms, at most "
            f"{MOST_CROSSED:.0%}: another table than the intended one was in force"
        )
    return ""


def _by_time(at: Array, chosen: Array) -> Array:
    places = np.flatnonzero(chosen)
    return places[np.argsort(at[places], kind="stable")]


def _once(rows: Rows, places: Array) -> Array:
    """Return which records' ids no other has: clients may send the same one again and again."""
    _, which, times = np.unique(
        rows.requests["request"][places], return_inverse=True, return_counts=True
    )
    return times[which] == 1


def _answers(
    rows: Rows,
    outcomes: Mapping[str, Value],
    places: Array,
    user_n: Array,
    *,
    rescued: Array | None = None,
) -> Answers:
    held = {name: rows.requests[name][places] for name in ("at", "state", "latency_ms", "slices")}
    state = held["state"] if rescued is None else np.where(rescued, BUSY, held["state"])
    answered = state == ANSWERED
    values, came = _outcomes(rows, outcomes, places, answered & _once(rows, places))
    return Answers(
        at_n=held["at"],
        user_n=user_n,
        failed_n=~answered & (state != REFUSED),
        refused_n=state == REFUSED,
        latency_ms_n=np.where(answered, held["latency_ms"], np.nan).astype(np.float64),
        values_n=values,
        came_at_n=came,
        slices_n=held["slices"],
    )


def _outcomes(
    rows: Rows, outcomes: Mapping[str, Value], places: Array, joins: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return what became of each request, by source, and when that was known."""
    request, label = rows.requests["request"][places], rows.requests["label"][places]
    values: dict[str, Array] = {}
    came: dict[str, Array] = {}
    for name, held in outcomes.items():
        value_n, came_n = held.of(request)
        values[name] = np.where(joins, value_n, np.nan)
        came[name] = np.where(joins, came_n, np.nan)
    if LABEL in values:
        truth_n = values[LABEL]
        # Of a request the log keeps the decision on its first row.
        first = outcomes[LABEL].row_of(request) == 0
        known = first & ~np.isnan(truth_n) & ~np.isnan(label)
        values[RIGHT] = np.where(known, truth_n == label, np.nan)
        came[RIGHT] = came[LABEL]
    return values, came


def _copies(rows: Rows, chosen: Chosen, of_one: Array, *, now: float) -> Copies:
    """Pair each copy with its original.

    What failed or was refused, while the champion answered, is not alike; what was refused for load
    says nothing of decisions.
    """
    held = rows.requests
    decided = (held["state"][chosen.one] == ANSWERED) & ~np.isnan(held["label"][chosen.one])
    decided &= _once(rows, chosen.one)
    one, user = chosen.one[decided], of_one[decided]
    state = held["state"][chosen.other]
    there = (state != BUSY) & ((state != ANSWERED) | ~np.isnan(held["label"][chosen.other]))
    other = chosen.other[there & _once(rows, chosen.other)]
    _, which, other_which = np.intersect1d(
        held["request"][one], held["request"][other], assume_unique=True, return_indices=True
    )
    by_time = np.argsort(held["at"][other[other_which]], kind="stable")
    which, copies = which[by_time], other[other_which[by_time]]
    originals = one[which]
    answered = held["state"][copies] == ANSWERED
    settled = held["at"][one] <= now - SETTLE_S
    pair_r, one_r, other_r = _ranked(rows, originals, copies)
    return Copies(
        user_n=user[which],
        alike_n=answered & (held["label"][copies] == held["label"][originals]),
        one_n=held["score"][originals].astype(np.float64),
        other_n=np.where(answered, held["score"][copies], np.nan).astype(np.float64),
        slices_n=held["slices"][originals],
        pair_r=pair_r,
        one_r=one_r,
        other_r=other_r,
        settled_n=settled[which],
        sent_slices_m=held["slices"][one[settled]],
    )


def _ranked(rows: Rows, originals: Array, copies: Array) -> tuple[Array, Array, Array]:
    """Return the scores of all rows of requests that have several: place of the pair, both."""
    empty = np.empty(0)
    if not len(rows.ranked) or not len(originals):
        return np.empty(0, np.int64), empty, empty
    found = [_rows_of(rows, places) for places in (originals, copies)]
    (one_key, pair_r, one_r), (other_key, _, other_r) = found
    _, which, other_which = np.intersect1d(
        one_key, other_key, assume_unique=True, return_indices=True
    )
    return pair_r[which], one_r[which], other_r[other_which]


def _rows_of(rows: Rows, places: Array) -> tuple[Array, Array, Array]:
    """Return of each row of these requests its key, its request's place among them, its score."""
    held, request = rows.ranked, rows.requests["request"][places]
    order = np.argsort(request)
    same = (held["version"] == rows.requests["version"][places[0]]) & (
        (held["kind"] == COPY) == (rows.requests["kind"][places[0]] == COPY)
    )
    of = np.minimum(np.searchsorted(request, held["request"], sorter=order), len(order) - 1)
    mine = np.flatnonzero(same & (request[order[of]] == held["request"]))
    with np.errstate(over="ignore"):
        key = held["request"][mine] + held["row"][mine] * _STRIDE
    return key, order[of[mine]], held["score"][mine].astype(np.float64)
