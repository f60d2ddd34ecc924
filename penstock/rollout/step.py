"""Run the rollout stage: servers up, a release opened in each market, carried to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from penstock.ledger import Actor, Entry, Ledger
from penstock.processes import undisturbed
from penstock.release import Trigger
from penstock.rollout import folding
from penstock.rollout.asks import acting
from penstock.rollout.branches import champion_in
from penstock.rollout.champions import champions, promised, serve_champion
from penstock.rollout.conductor import Conductor
from penstock.rollout.journal import Told
from penstock.rollout.looks import looks_folder, read_looks
from penstock.rollout.opening import Wish, enqueue, queue, refuse, refuse_stage
from penstock.rollout.past import past_of
from penstock.rollout.plan import ENDED, Phase
from penstock.rollout.plane import Plane
from penstock.rollout.replay import Traffic, replayed
from penstock.rollout.result import (
    FAILED,
    PROMOTED,
    ROLLED_BACK,
    UNCHANGED,
    WAITING,
    Branch,
    Result,
    branch_of,
    worst,
)
from penstock.rollout.running import conducted, servers
from penstock.rollout.state import State
from penstock.rollout.telling import timeline
from penstock.stage import require_pass
from penstock.workload import load

__all__ = [
    "FAILED",
    "PROMOTED",
    "ROLLED_BACK",
    "UNCHANGED",
    "WAITING",
    "Fault",
    "Result",
    "Traffic",
    "ask_for",
    "carry_on",
    "champions",
    "promised",
    "run",
    "serve_champion",
    "start",
]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A deliberate fault, to rehearse a rollback."""

    kind: str
    """``latency``, ``errors``, ``accuracy``, or a longer spec such as ``errors:share=0.1``."""

    on: str
    """``live``: only answers to users, which shadow cannot see; ``all``: copies too."""


def run(
    *,
    workload: str,
    version: int,
    traffic: Traffic,
    home: Path,
    ledger: Ledger,
    fault: Fault | None,
    actor: Actor,
    port: int,
    emit: Callable[[Told], None],
    skew: Path | None = None,
    trigger: Trigger = Trigger.MANUAL,
) -> Result:
    """Release a version in every market, under replayed traffic; leave the champions answering.

    Args:
        skew: Verdict on features as they are served; nothing starts unless it is a pass.

    Raises:
        Refused: The skew verdict is no pass, the version is not on its way, it was compared with
            another champion than serves now, or its market is busy.
        BundleError: A package is not whole, or another than was registered.
        PlaneError: The servers could not be started; the text says what to do.
    """
    if skew is not None:
        require_pass(skew, kind="skew-verdict")
    wishes = wishes_for(ledger, workload, version, fault=fault, trigger=trigger)
    with servers(workload, version, home, ledger, port, emit) as plane:
        if not wishes:
            return _unchanged(version, emit)
        with conducted(plane, workload, home, ledger, actor, emit) as conductor:
            opened = _opened(conductor, wishes)
            if not opened:
                return _queued(version, emit)
            with undisturbed() as heed:
                _driven(conductor, plane, traffic, heed)
            result = _result(conductor, version, opened)
        emit({"event": "released", "outcome": result.outcome, "reason": result.reason})
        return result


def start(
    *,
    workload: str,
    version: int,
    market: str | None,
    trigger: Trigger,
    home: Path,
    ledger: Ledger,
    actor: Actor,
    port: int,
    emit: Callable[[Told], None],
) -> list[str]:
    """Open a release in a market, or in all; return their names, none where they are queued.

    Raises:
        Refused, BundleError, PlaneError: As :func:`run`.
    """
    wishes = wishes_for(ledger, workload, version, trigger=trigger, market=market)
    with (
        servers(workload, version, home, ledger, port, emit) as plane,
        conducted(plane, workload, home, ledger, actor, emit) as conductor,
    ):
        return _opened(conductor, wishes)


def ask_for(
    *,
    workload: str,
    version: int,
    market: str | None,
    trigger: Trigger,
    ledger: Ledger,
    actor: Actor,
) -> list[str]:
    """Queue a release in a market, or in all that it does not serve; return which.

    It needs the ledger alone: whoever carries the workload's releases, on whatever machine, opens
    it when its turn comes, and refuses it then where its package says so.

    Raises:
        Refused: The version is not on its way, or serves already; nothing was queued.
    """
    entries, policy = ledger.entries(workload), load(workload).rollout
    markets = policy.market_names() if market is None else (market,)
    others = [name for name in markets if champion_in(entries, name, policy) != version]
    wishes = [Wish(version=version, market=m, trigger=trigger) for m in others or markets]
    for wish in wishes:
        refuse_stage(entries, wish, policy)
    for wish in wishes:
        enqueue(ledger, workload, wish, actor=actor, now=datetime.now(UTC))
    return [wish.market for wish in wishes]


def carry_on(
    *,
    workload: str,
    home: Path,
    ledger: Ledger,
    actor: Actor,
    port: int,
    emit: Callable[[Told], None],
) -> list[Branch]:
    """Carry on every release of a home to its end, and return how each of them ended.

    It stays while a person is waited for: without anybody who carries a release its users of shadow
    and canary are given back, and what was asked of the person with them. Whoever asks this process
    to end leaves the releases to the one that carries on next; the champion goes on answering.

    Raises:
        LookupError: None goes on, and none is queued.
        KeyboardInterrupt, SystemExit: It was asked to end.
    """
    entries = ledger.entries(workload)
    going, waiting = _going(entries), queue(entries)
    if not going and not waiting:
        raise LookupError(f"no release of {workload} goes on; begin one: penstock release start")
    version = int(going[0].split("/")[1]) if going else waiting[0].version
    stop: BaseException | None = None
    with (
        servers(workload, version, home, ledger, port, emit) as plane,
        conducted(plane, workload, home, ledger, actor, emit) as conductor,
        undisturbed() as heed,
    ):
        try:
            conductor.carry(heed, goes=conductor.is_ours)
        except (KeyboardInterrupt, SystemExit) as e:
            stop = e
        finally:
            conductor.leave()
        names = list(dict.fromkeys([*going, *_going(ledger.entries(workload))]))
        branches = [_branch(conductor, name) for name in names]
    if stop is not None:
        raise stop
    return branches


def wishes_for(
    ledger: Ledger,
    workload: str,
    version: int,
    *,
    fault: Fault | None = None,
    trigger: Trigger = Trigger.MANUAL,
    market: str | None = None,
) -> list[Wish]:
    """Return the releases of a version that are to begin: of each market that it does not serve.

    Raises:
        Refused: One of them may not; nothing was begun.
    """
    entries, policy = ledger.entries(workload), load(workload).rollout
    markets = policy.market_names() if market is None else (market,)
    plain = None if fault is None else asdict(fault)
    wishes = [
        Wish(version=version, market=name, trigger=trigger, fault=plain)
        for name in markets
        if champion_in(entries, name, policy) != version
    ]
    for wish in wishes:
        refuse(entries, wish, policy)
    return wishes


def _going(entries: Sequence[Entry]) -> list[str]:
    return [state.release for state in folding.active(entries)]


def _opened(conductor: Conductor, wishes: Sequence[Wish]) -> list[str]:
    opened = [conductor.open(wish) for wish in wishes]
    return [one.release for one in opened if one is not None]


def _driven(conductor: Conductor, plane: Plane, traffic: Traffic, heed: Callable[[], None]) -> None:
    """Wait until the servers are ready, then carry the releases under traffic.

    Whatever ends this before them, Ctrl-C too, is an abort: users return to the champion.
    """
    try:
        conductor.carry(heed, goes=_preparing(conductor))
        markets = conductor.policy.markets
        if markets and not traffic.markets:
            alike = ",".join(f"{m.name}={1 / len(markets):.6f}" for m in markets)
            traffic = replace(traffic, markets=alike)
        folder = conductor.home / "serving" / "traffic"
        going = any(s.step is not None for s in folding.active(conductor.entries()))
        used = replayed(plane, traffic, conductor.workload, folder)
        with used if going else nullcontext():
            conductor.carry(heed)
    except BaseException as e:
        conductor.abort(_cause(e))
        raise
    if _going(conductor.entries()):
        conductor.leave()


def _cause(e: BaseException) -> str:
    """Return why a release is aborted, for whoever reads of it."""
    if isinstance(e, KeyboardInterrupt):
        return "the run was interrupted"
    if isinstance(e, SystemExit):
        return "the run was asked to end"
    return f"the run ended by {type(e).__name__}: {e}"


def _preparing(conductor: Conductor) -> Callable[[State], bool]:
    return lambda state: state.phase is Phase.PREPARE and conductor.goes(state)


def _result(conductor: Conductor, version: int, opened: Sequence[str]) -> Result:
    branches = [_branch(conductor, name) for name in opened]
    first, ended = worst(branches), conductor.clock.now()
    entries = conductor.entries()
    begun = min(folding.fold(entries, name).opened_at for name in opened)
    slot = past_of(entries, opened[0]).opened.body["challenger"]["slot"]
    return Result(
        outcome=first.outcome,
        version=version,
        reason=first.reason,
        seconds=round((ended - begun).total_seconds(), 2),
        steps=first.steps,
        told=first.told,
        id=first.id,
        market=first.market,
        markets=tuple(asdict(branch) for branch in branches),
        ready_s=conductor.ready_s.get(slot),
        detected_s=first.detected_s,
        rollback_ms=first.rollback_ms,
    )


def _branch(conductor: Conductor, release: str) -> Branch:
    entries = conductor.entries()
    looks, now = read_looks(looks_folder(conductor.home, release)), conductor.clock.now()
    state, why = folding.fold(entries, release), ""
    if state.phase not in ENDED:
        live = looks[-1] if looks else None
        asked = acting(past_of(entries, release), state, live, now)
        why = conductor.waits(release)
        if asked:
            wants, command = asked[0]["why"], asked[0]["command"]
            why = f"{wants}; carry it on with penstock release run, and meanwhile: {command}"
    told = timeline(entries, release, looks, now=now)
    return branch_of(entries, release, told, why)


def _unchanged(version: int, emit: Callable[[Told], None]) -> Result:
    reason = f"version {version} serves already; nothing to release"
    emit({"event": "released", "outcome": UNCHANGED, "version": version, "reason": reason})
    return Result(outcome=UNCHANGED, version=version, reason=reason, seconds=0.0)


def _queued(version: int, emit: Callable[[Told], None]) -> Result:
    reason = f"version {version} is queued; whoever carries the release before it opens it then"
    emit({"event": "released", "outcome": WAITING, "version": version, "reason": reason})
    return Result(outcome=WAITING, version=version, reason=reason, seconds=0.0)
