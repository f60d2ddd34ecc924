"""Drills: the whole way back and the return, on the live configuration, timed, in the ledger.

A way back that was never taken is a hope. The users of one market are turned to whom they would be
returned to, by the very table that a rollback would write, and then back again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from penstock.ledger import Actor, Entry, Ledger
from penstock.release import EVERYWHERE, Rollout
from penstock.rollout import admin, branches, unfinished
from penstock.rollout.plane import Plane
from penstock.rollout.ports import Stale
from penstock.rollout.table import SLOTS, TrafficTable
from penstock.rollout.turning import Asking, Turned, refuse_another, turn
from penstock.stage import Refused

DRILL, BEGUN = "drill", "drill begun"
"""Kinds of the entries: what came of one, and the tables that one is about to put in force."""

STAY_S = 0.5
"""How long users are on the standby: long enough that it is seen to answer them."""


@dataclass(frozen=True, kw_only=True)
class Drill:
    """What came of a rehearsal."""

    market: str
    serving: str
    standby: str
    passed: bool
    why: str
    """Why it failed; empty where it passed."""

    back: float | None
    """Milliseconds until the standby was known to answer everybody, and until all was as before."""

    home: float | None
    requests: int
    """Of users and of the rehearsal itself, while it went on."""

    failures: int

    def body(self) -> dict[str, Any]:
        """Return what the ledger keeps."""
        said = {k: v for k, v in asdict(self).items() if k not in ("back", "home")}
        return said | {"milliseconds": {"back": self.back, "return": self.home}}


def run(
    plane: Plane,
    ledger: Ledger,
    *,
    workload: str,
    actor: Actor,
    market: str = EVERYWHERE,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], None] = time.sleep,
) -> Drill:
    """Rehearse the rollback of a market; a failed one is in the ledger too.

    Raises:
        Refused: There is nobody to return to, the servers serve another workload, the kill switch
            is thrown, or somebody else changed the traffic meanwhile: nothing is known of the way
            back then.
        LedgerError: What is to be done cannot be written down; nothing was done.
    """
    refuse_another(plane, workload)
    held = plane.written(market)
    away, standby = _way_back(plane, held)
    home = replace(held, sequence=away.sequence + 1)
    if wrong := plane.verify_slot(standby):
        done = _failed(held, standby, wrong)
    else:
        tables = {"away": away.to_dict(), "home": home.to_dict()}
        body = {"market": market, **tables}
        ledger.append(
            workload=workload, version=None, kind=BEGUN, body=body, actor=actor, now=clock()
        )
        done = _rehearsed(plane, held, (away, home), standby, sleep)
    ledger.append(
        workload=workload, version=None, kind=DRILL, body=done.body(), actor=actor, now=clock()
    )
    return done


def _way_back(plane: Plane, held: TrafficTable) -> tuple[TrafficTable, str]:
    """Return the table of a rollback and the slot that answers everybody under it."""
    if thrown := plane.killed():
        raise Refused(f"the kill switch is thrown, so there is no traffic to turn: {thrown}")
    released = bool(held.buckets) or held.mirror is not None
    slot = held.champion if released else next(s for s in SLOTS if s != held.champion)
    if plane.status()["slots"][slot]["version"] is None:
        raise Refused(
            f"nobody stands by for market {held.market}: slot {slot} serves nothing. A second "
            "version must have served before there is a way back."
        )
    away = replace(
        held,
        sequence=held.sequence + 1,
        champion=slot,
        challenger=None,
        buckets=0,
        mirror=None,
        trickle=None,
    )
    return away, slot


def _rehearsed(
    plane: Plane,
    held: TrafficTable,
    tables: tuple[TrafficTable, TrafficTable],
    standby: str,
    sleep: Callable[[float], None],
) -> Drill:
    folder, seen = plane.home / "serving", plane.status()
    away, home = tables
    before = admin.answered(seen["admin"])
    try:
        with (
            Asking(folder, seen["model"], held.market) as asking,
            unfinished.rehearsing(folder, home),
        ):
            sleep(STAY_S / 2)
            back = turn(plane, away)
            turned = time.monotonic()
            if not back.wrong:
                sleep(STAY_S)
            until = time.monotonic()
            there = turn(plane, home)
            sleep(STAY_S / 2)
    except Stale as e:
        raise Refused(f"somebody else changed the traffic during the rehearsal: {e}") from e
    late = [s for at, _, s in asking.answers if turned < at < until and s != standby]
    after = admin.answered(seen["admin"])
    failures = asking.failures + _grown(before, after, "failed")
    why = _why(back, there, failures, late, standby)
    return Drill(
        market=held.market,
        serving=held.slot_for(0),
        standby=standby,
        passed=not why,
        why=why,
        back=back.milliseconds,
        home=there.milliseconds,
        requests=len(asking.answers) + _grown(before, after, "requests"),
        failures=failures,
    )


def _why(back: Turned, there: Turned, failures: int, late: Sequence[str], standby: str) -> str:
    if back.wrong:
        return f"on the way back: {back.wrong}"
    if there.wrong:
        return f"on the return: {there.wrong}"
    if late:
        return f"slot {late[0]} answered when everybody was on slot {standby}"
    return f"{failures} requests failed" if failures else ""


def _failed(held: TrafficTable, standby: str, why: str) -> Drill:
    return Drill(
        market=held.market, serving=held.slot_for(0), standby=standby, passed=False, why=why,
        back=None, home=None, requests=0, failures=0,
    )  # fmt: skip


def _grown(before: dict[str, int], after: dict[str, int], name: str) -> int:
    return max(0, after.get(name, 0) - before.get(name, 0))


def refuse(plane: Plane, entries: Sequence[Entry], policy: Rollout, market: str) -> None:
    """Refuse a rehearsal that would show users of a market what they have never had.

    Raises:
        Refused: There is no such market, or who stands by never answered there.
    """
    if market not in (*policy.market_names(), EVERYWHERE):
        names = ", ".join(policy.market_names())
        raise Refused(f"there is no market {market!r}; there are {names}.")
    held = plane.written(market)
    order = branches.order_in(entries, market, policy)
    if held.buckets or held.mirror is not None or not order:
        return
    slot = next(s for s in SLOTS if s != held.champion)
    version = plane.status()["slots"][slot]["version"]
    if version is not None and version not in {str(v) for v in order[1:]}:
        raise Refused(
            f"nobody stands by for market {market}: slot {slot} serves version {version}, which "
            "never answered there."
        )


AGAIN = "rehearse again: "
"""What stands before the command in what :func:`due` says."""


def due(entries: Sequence[Entry], policy: Rollout, now: datetime) -> str:  # noqa: ARG001 - see overdue
    """Return why forward steps wait for a rehearsal: the last one of a market failed."""
    found = (failed(entries, market) for market in dict.fromkeys([*_markets(policy), EVERYWHERE]))
    return next(filter(None, found), "")


def failed(entries: Sequence[Entry], market: str) -> str:
    """Return what was wrong with the last rehearsal of a market, and the command for the next."""
    last = [e for e in entries if e.kind == DRILL and e.body["market"] == market]
    if not last or last[-1].body["passed"]:
        return ""
    return (
        f"the last rehearsed rollback of {market} failed: {last[-1].body['why']}; {AGAIN}"
        f"penstock release drill {last[-1].workload} --market {market}"
    )


def overdue(
    entries: Sequence[Entry], policy: Rollout, now: datetime, market: str | None = None
) -> str:
    """Return why a rehearsal is due; empty while the last good ones are young. It stops nobody.

    Args:
        market: Of this one alone; None of every declared one.
    """
    markets = _markets(policy) if market is None else (market,)
    found = (_overdue(entries, policy, now, name) for name in markets)
    return next(filter(None, found), "")


def _overdue(entries: Sequence[Entry], policy: Rollout, now: datetime, market: str) -> str:
    where = "" if market == EVERYWHERE else f" of {market}"
    good = [
        e for e in entries if e.kind == DRILL and e.body["passed"] and e.body["market"] == market
    ]
    if not good:
        return f"no rollback{where} was ever rehearsed"
    age = now - datetime.fromisoformat(good[-1].at)
    if age <= policy.drill_every:
        return ""
    return (
        f"the last rehearsed rollback{where} is {age.days} days old, "
        f"{policy.drill_every.days} allowed"
    )


def _markets(policy: Rollout) -> tuple[str, ...]:
    return tuple(policy.market_names())
