"""Carry one workload from features to live traffic: pipeline, release, aliases, report."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock import registered
from penstock.bundle import write_json
from penstock.cli.home import DISK_FULL, Home
from penstock.cli.screen import Screen, show_release
from penstock.datachecks.served import run as run_skew
from penstock.ledger import REGISTERED, Actor, Ledger, champion, serving_order
from penstock.register.reconcile import try_to_follow
from penstock.register.step import mlflow
from penstock.release import Trigger
from penstock.rollout import step as rollout
from penstock.rollout.plane import Plane
from penstock.stage import Refused
from penstock.verdict import Outcome
from penstock.workload import load

EXIT = {
    "promoted": 0,
    "unchanged": 0,
    "registered": 0,
    "failed": 1,
    "rejected": 3,
    "data refused": 4,
    "rolled back": 5,
    "waiting": 6,
    "interrupted": 130,
}
"""Exit code of each way a run can end; 2 is a mistake in the call or a home that is in use."""

REJECT = "reject"
"""The pipeline's step that fails a run whose gate is no pass."""

REFUSED = {"datachecks": "data refused", "register": "rejected"}
"""How a run ends when a stage says no."""

OUTPUTS = {
    "snapshot": "features/snapshot",
    "data_verdict": "datachecks/data_verdict",
    "model": "train/model",
    "onnx": "export/onnx",
    "int8": "quantize/int8",
    "engine": "engine/engine",
    "ladder": "equivalence/ladder",
    "verdict": "gate/verdict",
    "package": "register/package",
    "infra": "register/infra_verdict",
}
"""Where kfp.local leaves each stage's bundle below a run's folder."""


@dataclass(kw_only=True)
class Record:
    """What happened in a run; written to ``run.json`` and drawn by the report."""

    run_id: str
    workload: str
    title: str
    started_at: str
    seconds: float = 0.0
    outcome: str = "failed"
    reason: str = ""
    stages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    bundles: dict[str, str] = field(default_factory=dict[str, str])
    version: int | None = None
    champion: int | None = None
    release: dict[str, Any] | None = None
    url: str | None = None
    report: str | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for."""

    workload: str
    seed: int
    fault: rollout.Fault | None
    port: int
    actor: Actor
    release: bool = True
    served: Path | None = None
    """Log of served features that must not be skewed before a release begins."""

    trigger: Trigger = Trigger.MANUAL
    """Why the version is trained; what it asks of people hangs on it."""

    markets: str = ""
    """Share of the replayed users in each market; empty shares them alike."""


def carry(request: Request, held: Home, run_id: str, screen: Screen, *, now: datetime) -> Record:
    """Run the pipeline, release what it registered, and return the record; never half a record."""
    declared = load(request.workload)
    record = Record(
        run_id=run_id,
        workload=declared.name,
        title=declared.title,
        started_at=now.isoformat(),
    )
    begun = time.monotonic()
    os.environ.update(held.environment(run_id=run_id))
    root = held.runs() / run_id
    ledger, first = held.ledger(), None
    try:
        _carried(request, record, held, root, ledger, screen)
    except KeyboardInterrupt:
        record.outcome, record.reason = "interrupted", "stopped by the operator"
    except Refused as e:
        record.outcome, record.reason = "rejected", str(e)
    except BaseException as e:  # noqa: BLE001 - raised again when the record is written
        record.outcome, record.reason, first = "failed", str(e) or type(e).__name__, e
    record.seconds = round(time.monotonic() - begun, 1)
    try:
        _finish(request, record, root, ledger, screen)
    finally:
        ledger.close()
        if first is not None:
            raise first
    return record


def _carried(
    request: Request, record: Record, held: Home, root: Path, ledger: Ledger, screen: Screen
) -> None:
    # A run that was cut after its release has left the aliases behind.
    _aliases(request, record, ledger, screen)
    record.champion = champion(ledger.entries(record.workload))
    screen.heading(f"{record.title}: from features to a registered version")
    _pipeline(request, record, root, ledger, screen)
    if record.version is not None and request.release:
        screen.heading("Release")
        _release(request, record, held, root, ledger, screen)


def _aliases(request: Request, record: Record, ledger: Ledger, screen: Screen) -> str:
    """Let MLflow's aliases follow the ledger; return what to do where they could not."""
    screen.working("aliases")
    moment = datetime.now(UTC)
    return try_to_follow(record.workload, mlflow, ledger, actor=request.actor, now=moment)


def _pipeline(request: Request, record: Record, root: Path, ledger: Ledger, screen: Screen) -> None:
    entries = ledger.entries(record.workload)
    serving = ""
    if record.champion is not None:
        serving = str(registered.package(entries, record.champion).path)
    arguments = {
        "seed": request.seed,
        "champion": serving,
        "rehearsal": "" if request.fault is None else request.fault.kind,
        "trigger": str(request.trigger),
    }
    with _process(root, record.workload, arguments) as events:
        for event in events:
            _stage(event, record, screen)
    record.bundles = {
        name: str(found)
        for name, where in OUTPUTS.items()
        for found in root.glob(f"*/{where}")
        if (found / "manifest.json").exists()
    }
    passed = [s for s in record.stages if s["stage"] == "register" and s["outcome"] == "pass"]
    if passed:
        record.version = _version(ledger, record.workload, passed[0]["fingerprint"])
        record.outcome = "registered"
        record.reason = passed[0]["line"]


def _version(ledger: Ledger, workload: str, fingerprint: str) -> int | None:
    found = [
        e.version
        for e in ledger.entries(workload)
        if e.kind == REGISTERED and e.body["fingerprint"] == fingerprint
    ]
    return found[-1] if found else None


@contextmanager
def _process(
    root: Path, workload: str, arguments: Mapping[str, Any]
) -> Iterator[Iterator[Mapping[str, Any]]]:
    """Yield the events of a pipeline process; whatever happens, nothing of it is left running."""
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pipelines.local", workload, "--root", str(root)]
    command += ["--arguments", json.dumps(arguments)]
    with (root / "stderr.log").open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        if process.stdout is None:
            raise RuntimeError("the pipeline process has no output to read")
        ended = list[Mapping[str, Any]]()
        yield _until_ended(process.stdout, ended)
        code = process.wait()
        if code not in (0, 1) or not ended:
            tail = (root / "stderr.log").read_text().strip().splitlines()[-1:]
            raise RuntimeError(f"the pipeline process ended with {code}: {' '.join(tail)}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _until_ended(
    lines: Iterable[str], ended: list[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Yield what a pipeline process says, and keep its last word, without which it broke down."""
    for line in lines:
        event = json.loads(line)
        if event["event"] == "ended":
            ended.append(event)
        yield event


def _stage(event: Mapping[str, Any], record: Record, screen: Screen) -> None:
    if event["event"] == "started":
        screen.working(event["task"])
    elif event["event"] == "unresolved":
        record.reason = f"a branch could not be decided: {event['reason']}"
    elif event["event"] == "finished":
        _finished(event, record, screen)


def _finished(event: Mapping[str, Any], record: Record, screen: Screen) -> None:
    task, said = event["task"], event["said"]
    if task.startswith("condition-"):
        return
    line = said["line"] if said and event["ok"] else _reason(event["reason"])
    # The step that ends a rejected run repeats the gate's verdict; a row of it would be a second.
    if task != REJECT:
        outcome = said["outcome"] if said else "error"
        reused = bool(said and said["reused"])
        record.stages.append(
            {
                "stage": task,
                "seconds": event["seconds"],
                "outcome": outcome,
                "line": line,
                "reused": reused,
                "fingerprint": said["fingerprint"] if said else None,
            }
        )
        note = f"reused {said['fingerprint']}: " if said and reused else ""
        screen.done(task, event["seconds"], outcome, note + line)
    if not event["ok"] and not record.reason:
        record.reason = line
        refused = REFUSED.get(task, "failed") if event["refused"] else "failed"
        record.outcome = "rejected" if task == REJECT else refused


def _reason(said: str | None) -> str:
    """Return why a stage failed, in words that say what to do where they are known."""
    if said is not None and os.strerror(errno.ENOSPC) in said:
        return DISK_FULL
    return said or "no reason was given"


def _release(
    request: Request, record: Record, held: Home, root: Path, ledger: Ledger, screen: Screen
) -> None:
    if record.version is None:
        raise ValueError("there is no version to release")
    traffic = rollout.Traffic(
        rows=Path(record.bundles["snapshot"]) / "holdout.parquet",
        label=load(record.workload).label,
        contract=Path(record.bundles["package"]) / "serving.json",
        markets=request.markets,
    )
    skew = None
    if request.served is not None:
        skew = _skew(request.served, record, root, screen)
        if record.outcome == "data refused":
            return
    result = rollout.run(
        workload=record.workload,
        version=record.version,
        traffic=traffic,
        home=held.path,
        ledger=ledger,
        fault=request.fault,
        actor=request.actor,
        port=request.port,
        emit=lambda event: show_release(event, screen),
        skew=skew,
        trigger=request.trigger,
    )
    record.release = asdict(result)
    record.outcome, record.reason = result.outcome, result.reason
    if serving_order(ledger.entries(record.workload)):
        record.url = answering_at(held, record.workload)


def answering_at(held: Home, workload: str) -> str | None:
    """Return where users ask, None where no servers run."""
    if not Plane.running(held.path):
        return None
    return f"{Plane.attach(held.path).url}/v2/models/{workload}/infer"


def _skew(served: Path, record: Record, root: Path, screen: Screen) -> Path:
    """Hold a log of served features against the training rows; only a pass lets a release begin."""
    screen.working("skew")
    begun, out = time.monotonic(), root / "skew"
    bundle = run_skew(
        workload=record.workload,
        snapshot=Path(record.bundles["snapshot"]),
        served=served,
        out=out,
        now=datetime.now(UTC),
    )
    line, outcome = bundle.summary.line, bundle.summary.outcome
    screen.done("skew", time.monotonic() - begun, outcome, line)
    record.bundles["skew"] = str(out)
    if outcome != Outcome.PASS:
        why = "features are served otherwise" if outcome == Outcome.FAIL else f"skew is {outcome}"
        record.outcome, record.reason = "data refused", f"{why}: {line}"
    return out


def _finish(request: Request, record: Record, root: Path, ledger: Ledger, screen: Screen) -> None:
    """Write the record, mirror the ledger into MLflow's aliases, draw the report.

    What happened is on disk before anything here can fail, and again with what came of it.
    """
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / "run.json", asdict(record))
    if aside := _aliases(request, record, ledger, screen):
        record.reason = f"{record.reason}; {aside}" if record.reason else aside
    screen.working("report")
    from penstock.report.page import write_page  # noqa: PLC0415 - draws with matplotlib: seconds

    record.report = str(write_page(asdict(record), root / "report.html"))
    write_json(root / "run.json", asdict(record))
    screen.stop()


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)
