"""Run the rollout stage: servers up, challenger warm, traffic on, release to its end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock import registered
from penstock.bundle import Bundle
from penstock.endpoint import Endpoint
from penstock.ledger import Actor, Entry, Ledger, Stage, champion, serving_order, stage_of
from penstock.processes import undisturbed
from penstock.registered import OPEN
from penstock.rollout.controller import PROMOTED, Controller, Result, Versions, logs_of
from penstock.rollout.evidence import LogReader
from penstock.rollout.plane import Plane, SlotFailed
from penstock.rollout.table import SLOTS, TrafficTable
from penstock.stage import Refused, require_pass
from penstock.workload import Rollout, load

READY_TIMEOUT_S = 90.0
FAILED, UNCHANGED = "failed", "unchanged"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A deliberate fault, to rehearse a rollback."""

    kind: str
    """``latency``, ``errors`` or ``accuracy``."""

    on: str
    """``live``: only answers to users, which shadow cannot see; ``all``: copies too."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The replay of real rows as many users."""

    rows: Path
    """Parquet with rows of a snapshot and their labels."""

    label: str
    """The column that holds the label."""

    contract: Path
    """``serving.json`` of the package that is released."""

    users: int = 600
    rate: float = 150.0
    """Requests per second."""

    seed: int = 1


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
    emit: Callable[[Mapping[str, Any]], None],
    skew: Path | None = None,
) -> Result:
    """Release a version over the champion, or as the first; leave the champion answering.

    Args:
        skew: Verdict on features as they are served; nothing starts unless it is a pass.

    Raises:
        Refused: The skew verdict is no pass, the version is not on its way, or it was compared
            with another champion than serves now.
        BundleError: A package is not whole, or another than was registered.
        PlaneError: The servers could not be started; the text says what to do.
    """
    declared = load(workload)
    if skew is not None:
        require_pass(skew, kind="skew-verdict")
    entries = ledger.entries(workload)
    serving = champion(entries)
    package = registered.package_to_serve(entries, version)
    if serving != version:
        refuse(entries, version, package)
    running = Plane.running(home)
    limits = promised(entries, version if serving is None else serving)
    plane = Plane.up(home, model=workload, port=port, endpoint=limits)
    try:
        if serving is not None:
            _serve(plane, entries, serving, emit)
        if serving == version:
            return _unchanged(version, emit)
        versions = _placed(plane, workload, version, serving)
        return _release(
            plane,
            package,
            versions,
            traffic=traffic,
            ledger=ledger,
            policy=declared.rollout,
            fault=fault,
            actor=actor,
            emit=emit,
        )
    except BaseException:
        if not running:
            plane.down()
        raise


def refuse(entries: Sequence[Entry], version: int, package: Bundle) -> None:
    """Refuse to release what has no way to go, or was judged against another champion.

    A version whose release was interrupted is on its way still, and begins anew.

    Raises:
        Refused: The text says what to do.
    """
    stage = stage_of(entries, version)
    if stage not in OPEN:
        raise Refused(
            f"version {version} is in {stage}; released is what the register stage has put into "
            "STAGING: run it, or the pipeline."
        )
    if lacking := registered.not_compared(entries, package.json("lineage.json")):
        raise Refused(f"version {version} cannot be released: {lacking}.")


def _unchanged(version: int, emit: Callable[[Mapping[str, Any]], None]) -> Result:
    reason = f"version {version} serves already; nothing to release"
    emit({"event": "released", "outcome": UNCHANGED, "version": version, "reason": reason})
    return Result(
        outcome=UNCHANGED, version=version, reason=reason, seconds=0.0, steps=(), timeline=()
    )


def promised(entries: Sequence[Entry], version: int) -> Endpoint | None:
    """Return what a version's package promises its callers; None of one from before it did.

    Raises:
        LookupError, BundleError: The package cannot be served.
        ValueError: It promises what nobody knows.
    """
    held = registered.package_to_serve(entries, version).json("serving.json").get("endpoint")
    return None if held is None else Endpoint.from_dict(held)


def serve_champion(plane: Plane, ledger: Ledger, workload: str) -> int | None:
    """Let the champion answer all users; return its version, or None when there is none."""
    entries = ledger.entries(workload)
    serving = champion(entries)
    if serving is not None:
        _serve(plane, entries, serving, lambda _: None)
    return serving


def _serve(
    plane: Plane,
    entries: Sequence[Entry],
    version: int,
    emit: Callable[[Mapping[str, Any]], None],
) -> None:
    """Bring the champion up where it is not, and give it all users."""
    slot = plane.slot_of(str(version))
    if slot is None:
        package = registered.package_to_serve(entries, version)
        # Whoever answers now goes on until the champion can.
        slot = next(name for name in SLOTS if not plane.ready(name) or name != plane.answering())
        emit({"event": "starting", "what": f"champion, version {version}", "slot": slot})
        plane.set_slot(slot, package=package.path, digest=package.digest, version=str(version))
    plane.wait_ready(slot, version=str(version), timeout_s=READY_TIMEOUT_S)
    held = plane.written()
    if held.champion != slot or held.buckets or held.mirror:
        table = TrafficTable(
            sequence=held.sequence + 1,
            salt=held.salt,
            champion=slot,
            challenger=None,
            buckets=0,
            mirror=None,
        )
        plane.apply(table)
        plane.wait_applied(table, timeout_s=10.0)


def _placed(plane: Plane, workload: str, version: int, serving: int | None) -> Versions:
    """Return which slot each version takes: the champion stays, the challenger gets the other."""
    champion_slot = plane.slot_of(str(serving)) if serving is not None else None
    challenger_slot = "b" if champion_slot == "a" else "a"
    return Versions(
        workload=workload,
        challenger=version,
        challenger_slot=challenger_slot,
        champion=serving,
        champion_slot=champion_slot or challenger_slot,
    )


def _release(
    plane: Plane,
    package: Bundle,
    versions: Versions,
    *,
    traffic: Traffic,
    ledger: Ledger,
    policy: Rollout,
    fault: Fault | None,
    actor: Actor,
    emit: Callable[[Mapping[str, Any]], None],
) -> Result:
    slot = versions.challenger_slot
    emit({"event": "starting", "what": f"challenger, version {versions.challenger}", "slot": slot})
    plane.hold(champion=None if versions.champion is None else versions.champion_slot)
    plane.set_slot(
        slot,
        package=package.path,
        digest=package.digest,
        version=str(versions.challenger),
        fault=None if fault is None else {"kind": fault.kind, "on": fault.on},
    )
    try:
        result = _watched(plane, versions, traffic, ledger, policy, actor, emit)
    except SlotFailed as e:
        return _failed(plane, versions, str(e), ledger=ledger, actor=actor, emit=emit)
    except BaseException:
        with undisturbed():
            _leave(plane, versions, ledger)
        raise
    plane.release()
    if result.outcome != PROMOTED:
        _withdraw(plane, versions, ledger)
    return result


def _watched(
    plane: Plane,
    versions: Versions,
    traffic: Traffic,
    ledger: Ledger,
    policy: Rollout,
    actor: Actor,
    emit: Callable[[Mapping[str, Any]], None],
) -> Result:
    """Wait until the challenger is ready, then release it under traffic."""
    slot, version = versions.challenger_slot, str(versions.challenger)
    ready_s = plane.wait_ready(slot, version=version, timeout_s=READY_TIMEOUT_S)
    emit({"event": "ready", "slot": slot, "seconds": ready_s})
    folder = plane.home / "serving" / "traffic"
    with _replayed(plane, traffic, versions.workload, folder):
        controller = Controller(
            plane=plane,
            ledger=ledger,
            reader=LogReader(
                logs=logs_of(plane), outcomes=folder / "outcomes.jsonl", since=time.time()
            ),
            policy=policy,
            versions=versions,
            actor=actor,
            emit=emit,
        )
        return controller.release(ready_s=ready_s)


def _failed(
    plane: Plane,
    versions: Versions,
    reason: str,
    *,
    ledger: Ledger,
    actor: Actor,
    emit: Callable[[Mapping[str, Any]], None],
) -> Result:
    """End a release whose server never became ready; no user ever saw it."""
    plane.release()
    _withdraw(plane, versions, ledger)
    ledger.move(
        workload=versions.workload,
        version=versions.challenger,
        to=Stage.ARCHIVED,
        reason=reason,
        actor=actor,
        now=datetime.now(UTC),
    )
    emit({"event": "released", "outcome": FAILED, "version": versions.challenger, "reason": reason})
    return Result(
        outcome=FAILED,
        version=versions.challenger,
        reason=reason,
        seconds=0.0,
        steps=(),
        timeline=(),
    )


def _leave(plane: Plane, versions: Versions, ledger: Ledger) -> None:
    """Clear up after a release that was interrupted.

    While users may still be on the challenger, its server is left alone and the ownership kept: the
    supervisor returns them when this process has ended.
    """
    if champion(ledger.entries(versions.workload)) == versions.challenger:
        plane.release()
        return
    table = plane.written()
    if versions.champion is not None and versions.challenger_slot in (
        table.challenger, table.mirror, table.champion
    ):  # fmt: skip
        return
    plane.release()
    _withdraw(plane, versions, ledger)


def _withdraw(plane: Plane, versions: Versions, ledger: Ledger) -> None:
    """Stop the challenger's server and give its slot back to the standby, where there is one.

    Without a champion there is nothing left to keep up.
    """
    if versions.champion is None:
        plane.down()
        return
    plane.stop_slot(versions.challenger_slot)
    entries = ledger.entries(versions.workload)
    for standby in serving_order(entries)[1:2]:
        said = registered.registration(entries, standby).body
        # Not read here: its own server refuses another package, and the release has ended well.
        plane.set_slot(
            versions.challenger_slot,
            package=Path(said["package"]),
            digest=said["digest"],
            version=str(standby),
        )


@contextmanager
def _replayed(plane: Plane, traffic: Traffic, workload: str, folder: Path) -> Iterator[None]:
    """Replay rows as users while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jsonl"):
        old.unlink()
    command = [sys.executable, "-m", "penstock.rollout.traffic", "--url", "http://penstock"]
    command += ["--socket", str(plane.inside)]
    command += ["--model", workload, "--contract", str(traffic.contract), "--out", str(folder)]
    command += ["--rows", str(traffic.rows), "--label", traffic.label]
    command += ["--users", str(traffic.users), "--rate", str(traffic.rate)]
    command += ["--seed", str(traffic.seed)]
    with (folder / "traffic.log").open("w") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
