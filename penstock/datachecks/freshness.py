"""Judge how old features are: the newest event of each view, when the data were taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from penstock.verdict import Check, Outcome
from penstock.workload import Freshness


def judge(
    limits: Sequence[Freshness], newest: Mapping[str, datetime | None], *, as_of: datetime
) -> list[Check]:
    """Return a check per limit; a feature is stale when older than its limit, not at it.

    Args:
        newest: Of each feature, the newest event that was known at ``as_of``; None if there was
            none.
    """
    return [_check(limit, newest, as_of) for limit in limits]


def _check(limit: Freshness, newest: Mapping[str, datetime | None], as_of: datetime) -> Check:
    name = f"{limit.feature} fresh"
    most = limit.max_staleness
    if limit.feature not in newest:
        reason = f"the snapshot says of no such feature how old it is; it has {', '.join(newest)}"
        return Check(name=name, outcome=Outcome.ERROR, reason=reason)
    event = newest[limit.feature]
    if event is None:
        return Check(name=name, outcome=Outcome.FAIL, reason=f"no value was known at {as_of}")
    age = as_of - event
    fresh = age <= most
    then = f"; serving would {limit.on_stale.replace('_', ' ')}" if not fresh else ""
    told = f" and tell {', '.join(limit.channels)}" if then and limit.channels else ""
    return Check(
        name=name,
        outcome=Outcome.PASS if fresh else Outcome.FAIL,
        reason=f"newest value is {_short(age)} old, at most {_short(most)} wanted{then}{told}",
        value=age.total_seconds(),
        limit=most.total_seconds(),
    )


def _short(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours:.3g} h" if hours < 72 else f"{hours / 24:.3g} days"
