"""Judge whether there is evidence at all, and whether what was answered can be answered from. Pure.

What is checked here decides how far the rest may be believed: a log that lost its records says
nothing, and a model that is asked with broken features is not wrong, its data are.
"""

from __future__ import annotations

from datetime import timedelta

from penstock.monitor.seen import Seen
from penstock.stats.intervals import exact
from penstock.verdict import Check, Outcome
from penstock.watching import Watch

ALPHA = 0.05


def evidence(seen: Seen, watch: Watch, *, max_loss: float) -> list[Check]:
    """Return whether there are requests enough, and whether the log is whole.

    Args:
        max_loss: Share of records that may be lost before what is left is no evidence.
    """
    enough = seen.users >= watch.min_users
    outcome = Outcome.PASS if enough else Outcome.INCONCLUSIVE
    reason = f"{seen.requests:,} requests of {seen.users:,} users, at least {watch.min_users:,}"
    rows = Check(
        name="rows",
        outcome=outcome if seen.requests else Outcome.ERROR,
        reason=reason
        if seen.requests
        else "nothing was predicted within the time, or nobody kept "
        "it: see who answers (penstock status) and what the log has lost (penstock predictions "
        "show)",
        value=float(seen.users),
        limit=float(watch.min_users),
    )
    return [rows, *_losses(seen, max_loss)]


def _losses(seen: Seen, most: float) -> list[Check]:
    """Return whether the log is whole, where somebody counted."""
    if seen.losses is None:
        return []
    if seen.losses.problems:
        reason = "; ".join(seen.losses.problems)
        return [Check(name="log", outcome=Outcome.ERROR, reason=reason)]
    lost = seen.losses.dropped + seen.losses.failed + seen.losses.unreadable
    share = lost / max(1, lost + seen.losses.written)
    outcome = Outcome.PASS if share <= most else Outcome.ERROR
    reason = f"{lost:,} of {lost + seen.losses.written:,} records lost, at most {most:.1%}"
    return [Check(name="log", outcome=outcome, reason=reason, value=share, limit=most)]


def quality(seen: Seen, watch: Watch) -> list[Check]:
    """Return whether answers come, and come from the model and from fresh features."""
    if not seen.requests or seen.newest is None:
        return []
    return [
        _silence(seen.until - seen.newest, watch.max_silence),
        _share("errors", seen.errors, seen, watch.max_error_share),
        _share("stand-ins", seen.stood_in, seen, watch.max_stood_in_share),
        _share("stale features", seen.stale, seen, watch.max_stale_share),
    ]


def _silence(age: timedelta, most: timedelta) -> Check:
    return Check(
        name="newest prediction",
        outcome=Outcome.PASS if age <= most else Outcome.FAIL,
        reason=f"{_short(age)} before the end of the time, at most {_short(most)}",
        value=age.total_seconds(),
        limit=most.total_seconds(),
    )


def _share(name: str, count: int, seen: Seen, most: float) -> Check:
    """Return the check of a share of requests, by users' worth of evidence."""
    share = count / seen.requests
    low, high = exact(round(share * seen.users), seen.users, alpha=ALPHA)
    outcome = Outcome.INCONCLUSIVE
    if high <= most:
        outcome = Outcome.PASS
    elif low > most:
        outcome = Outcome.FAIL
    reason = f"{count:,} of {seen.requests:,}, {share:.2%} [{low:.2%}, {high:.2%}], at most"
    return Check(name=name, outcome=outcome, reason=f"{reason} {most:.1%}", value=share, limit=most)


def _short(span: timedelta) -> str:
    seconds = span.total_seconds()
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.3g} h"
