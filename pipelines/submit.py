"""Submit a compiled pipeline to a Kubeflow server, follow it, and say how it ended.

Runs as a process of its own (``python -m pipelines.submit``): it reads one JSON request on standard
input and writes events, one JSON document a line; the last one says how it ended.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.processes import die_with_parent
from pipelines.submission import connection, following, parameters, runs, schedules, versions
from pipelines.submission.ended import Ended, Outcome
from pipelines.submission.request import Request, parsed
from pipelines.submission.service import Patience, Service, Tell
from pipelines.submission.tokens import Tokens

CHAMPION = "champion"
DATA = "data_version"
"""The parameter that is part of the cache's key: a fresh value, and nothing stale is found."""

SCHEDULED = "[[ScheduledTime]]"
"""Filled in for each run of a schedule, by those servers that do. Kubeflow 2 leaves it as it is
for compiled pipelines (kubeflow/pipelines issue 12494), so a schedule is never cached besides."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A compiled and checked pipeline with its arguments; nothing was sent yet."""

    text: str
    name: str
    version: str
    arguments: dict[str, Any]
    label: str
    namespace: str | None
    service_account: str | None


def prepare(request: Request, folder: Path, *, now: datetime, tell: Tell) -> Prepared:
    """Compile, check and type everything that can be wrong before a server is asked.

    Raises:
        Ended: Something is wrong.
    """
    # kfp takes seconds to import, which cancelling and following need not wait for.
    from pipelines import check, compiling, profile  # noqa: PLC0415

    label = runs.label(request.once)
    try:
        placed = profile.read(Path(request.profile)) if request.profile else None
        made = folder / "compiled.yaml"
        compiling.compile_to(
            made, workload=request.workload, pipeline=request.pipeline, profile=placed
        )
        text = made.read_text(encoding="utf-8")
        if request.action == "schedule" or not request.cached:
            text = versions.uncached(text)
        arguments = _arguments(request, check.parameters(text), label, now)
        found = [*check.check(text, pinned=request.pinned), *check.check_arguments(text, arguments)]
    except (ValueError, LookupError, OSError) as e:
        raise Ended(Outcome.WRONG_CALL, str(e)) from e
    if found:
        raise Ended(Outcome.WRONG_CALL, f"it would be refused: {'; '.join(map(str, found))}")
    here = Path(__file__).parent
    revision = request.revision or versions.git_revision(here)
    prepared = Prepared(
        text=text,
        name=versions.name_of(text),
        version=versions.version_name(text, revision),
        arguments=arguments,
        label=label,
        namespace=request.namespace or (placed.namespace if placed else None),
        service_account=request.service_account or (placed.service_account if placed else None),
    )
    told = {"version": prepared.version, "parameters": arguments, "pods": check.pods(text)}
    tell({"event": "prepared", "pipeline": prepared.name, **told})
    return prepared


def _arguments(
    request: Request, kinds: Mapping[str, str], label: str, now: datetime
) -> dict[str, Any]:
    file = request.parameters_file
    document = parameters.read(Path(file)) if file else None
    given = parameters.gather(kinds, document, request.parameters)
    if request.champion and CHAMPION in kinds:
        given.setdefault(CHAMPION, request.champion)
    if DATA in kinds and not given.get(DATA):
        fresh = f"{now:%Y%m%d-%H%M%S}-{label}" if request.once is None else label
        given[DATA] = SCHEDULED if request.action == "schedule" else fresh
    return given


def carry(request: Request, tokens: Tokens, *, now: datetime, tell: Tell) -> Ended:
    """Do what is asked and return how it ended.

    Raises:
        Ended: It ended early.
    """
    with tempfile.TemporaryDirectory() as folder:
        if request.action in ("cancel", "follow", "disable"):
            return _at_once(request, _service(request, tokens, tell), tell)
        if request.action == "schedule":
            schedules.checked(request.cron)
        prepared = prepare(request, Path(folder), now=now, tell=tell)
        if request.action == "check":
            return Ended(Outcome.CHECKED, "nothing was sent")
        service = _service(request, tokens, tell)
        namespace = runs.namespace_of(service, prepared.namespace)
        file = Path(folder) / f"{prepared.name}.yaml"
        file.write_text(prepared.text, encoding="utf-8")
        version = versions.ensured(
            service,
            name=prepared.name,
            version=prepared.version,
            file=file,
            namespace=namespace,
            about=f"Penstock: {request.pipeline} {request.workload}",
        )
        tell({"event": "version", "name": version.name, "uploaded": version.uploaded})
        group = versions.experiment(service, request.experiment or request.workload, namespace)
        if request.action == "schedule":
            return _scheduled(request, service, prepared, version, group, namespace, tell)
        return _run(request, service, prepared, version, group, now, tell)


def _service(request: Request, tokens: Tokens, tell: Tell) -> Service:
    if not request.host:
        reason = "no server is named; say --host, or set PENSTOCK_KFP_HOST."
        raise Ended(Outcome.WRONG_CALL, reason)
    if request.ui:
        connection.page(request.ui)
    return Service(
        request.host,
        tokens,
        tell=tell,
        ca_cert=Path(request.ca_cert) if request.ca_cert else None,
        insecure=request.insecure,
        patience=Patience(pause_s=request.pause_ms / 1_000),
    )


def _at_once(request: Request, service: Service, tell: Tell) -> Ended:
    if request.action == "cancel":
        runs.stop(service, request.run_id)
        return Ended(Outcome.STOPPING, f"run {request.run_id} is being ended")
    if request.action == "disable":
        namespace = runs.namespace_of(service, request.namespace)
        count = schedules.disable(service, request.schedule, namespace)
        return Ended(Outcome.DISABLED, f"{count} of the name {request.schedule} disabled")
    tell({"event": "run", "run_id": request.run_id, "url": _page(request, request.run_id)})
    return _followed(request, service, request.run_id, tell)


def _run(
    request: Request,
    service: Service,
    prepared: Prepared,
    version: versions.Version,
    experiment_id: str,
    now: datetime,
    tell: Tell,
) -> Ended:
    from pipelines.compiling import run_name  # noqa: PLC0415 - kfp is there by now

    named = run_name(request.pipeline, request.workload, differs=_differs(prepared), now=now)
    wanted = runs.Wanted(
        name=f"{named} {prepared.label}",
        label=prepared.label,
        version=version,
        experiment_id=experiment_id,
        arguments=prepared.arguments,
        service_account=prepared.service_account,
    )
    tell({"event": "asking", "name": wanted.name, "label": wanted.label})
    run, new = runs.made(service, wanted)
    told = {"run_id": run.run_id, "url": _page(request, run.run_id), "name": run.display_name}
    if not new:
        told |= _as_it_was(run, wanted)
    tell({"event": "run", **told, "created": new})
    if request.wait_s is None:
        return Ended(Outcome.SUBMITTED, "it runs" if new else "it was submitted before")
    return _followed(request, service, run.run_id, tell)


def _as_it_was(run: Any, wanted: runs.Wanted) -> dict[str, Any]:
    """Return what an earlier run was really given, and what of it is not as it is wanted now."""
    given = (run.runtime_config and run.runtime_config.parameters) or {}
    reference = run.pipeline_version_reference
    version = reference and reference.pipeline_version_id
    same = {
        "other parameters": given == wanted.arguments,
        "another version": version == wanted.version.version_id,
    }
    return {"parameters": given, "other": " and ".join(what for what in same if not same[what])}


def _differs(prepared: Prepared) -> str:
    """Return what tells a run from its neighbours, in the few characters that a page shows."""
    seed = prepared.arguments.get("seed")
    return f"seed {seed}" if seed is not None else prepared.version[:8]


def _scheduled(
    request: Request,
    service: Service,
    prepared: Prepared,
    version: versions.Version,
    experiment_id: str,
    namespace: str | None,
    tell: Tell,
) -> Ended:
    wanted = schedules.Schedule(
        name=request.schedule or f"{request.workload}-{request.pipeline}",
        cron=schedules.checked(request.cron),
        version=version,
        experiment_id=experiment_id,
        arguments=prepared.arguments,
        service_account=prepared.service_account,
    )
    made, new = schedules.ensured(service, wanted, namespace)
    page = schedules.url(request.ui or request.host, made.recurring_run_id)
    told = {"recurring_run_id": made.recurring_run_id, "url": page, "created": new}
    tell({"event": "schedule", "name": wanted.name, "cron": wanted.cron, **told})
    return Ended(Outcome.SCHEDULED, "it is new" if new else "it was there")


def _followed(request: Request, service: Service, run_id: str, tell: Tell) -> Ended:
    wait_s = float(request.wait_s) if request.wait_s is not None else 0.0
    every_s = float(request.every_s)
    return following.follow(service, run_id, tell=tell, wait_s=wait_s, every_s=every_s)


def _page(request: Request, run_id: str) -> str:
    return runs.url(request.ui or request.host, run_id)


def main() -> int:
    """Carry out the request on standard input; return 0 once it is said how that ended."""
    die_with_parent()
    out, tokens = sys.stdout, None
    # What libraries print is for people; events alone are for the caller.
    sys.stdout = sys.stderr

    def tell(event: Mapping[str, Any]) -> None:
        shown = event if tokens is None else tokens.hidden(event)
        out.write(json.dumps(shown) + "\n")
        out.flush()

    try:
        request = parsed(sys.stdin.read())
        file = Path(request.token_file) if request.token_file else None
        tokens = Tokens(file, os.environ)
        ended = carry(request, tokens, now=datetime.now(UTC), tell=tell)
    except Ended as e:
        ended = e
    tell({"event": "ended", "outcome": str(ended.outcome), "reason": ended.reason})
    return 0


if __name__ == "__main__":
    sys.exit(main())
