"""Follow a run to its end: what changes is told, and how it ended is judged by its steps."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Any

from pipelines.steps import STEPS
from pipelines.submission import reasons, runs
from pipelines.submission.ended import Ended, Outcome, Trouble
from pipelines.submission.service import Service, Tell

SUCCEEDED, FAILED, CANCELED, SKIPPED = "SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"
OVER = (SUCCEEDED, FAILED, CANCELED, SKIPPED)
_BEGUN = ("PENDING", "RUNNING", SUCCEEDED, FAILED, "CANCELING", CANCELED)

ENDING = {"reject": Outcome.REJECTED, "diagnose": Outcome.WAITING}
"""Steps that only fail to say something: the gate's no, and that a person must look."""

REFUSING = {"datachecks": Outcome.DATA_REFUSED, "register": Outcome.REJECTED}
"""What it means when a step says no, in place of breaking."""

OUTAGE_S = 600.0
"""Longest that a server may be away while a run is followed; the run does not need it."""

_NEVER = datetime(1970, 1, 2, tzinfo=UTC)
_DRIVER = "-driver"
_AGAIN = re.compile(r"-\d+$")


@dataclass(frozen=True, kw_only=True)
class Clock:
    """What time is, for who waits."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(kw_only=True)
class Seen:
    """What was told of a run so far."""

    state: str = ""
    steps: dict[str, str] = field(default_factory=dict[str, str])


def follow(
    service: Service,
    run_id: str,
    *,
    tell: Tell,
    wait_s: float,
    every_s: float,
    clock: Clock | None = None,
) -> Ended:
    """Return how a run ended; tell every change on the way.

    Raises:
        Ended: It goes on after ``wait_s``, or its server was away for too long or refuses.
    """
    clock = clock or Clock()
    seen, begun, heard = Seen(), clock.now(), clock.now()
    while True:
        try:
            run = runs.found(service, run_id)
        except Trouble as e:
            if clock.now() - heard > OUTAGE_S:
                raise Ended(Outcome.UNREACHABLE, f"{e}; the run goes on without us.") from e
            tell({"event": "trouble", "what": "follow", "text": str(e), "again_s": every_s})
        else:
            heard = clock.now()
            changes(run, seen, tell)
            if run.state in OVER:
                return judged(service, run)
        if clock.now() - begun >= wait_s:
            raise Ended(Outcome.STILL_RUNNING, f"it goes on after {wait_s:g} s of waiting.")
        clock.sleep(min(every_s, max(0.0, wait_s - (clock.now() - begun))))


def changes(run: Any, seen: Seen, tell: Tell) -> None:
    """Tell what is not as it was last seen."""
    state = run.state or "PENDING"
    if state != seen.state:
        seen.state = state
        tell({"event": "state", "state": state})
    for name, task in steps(run).items():
        if task.state in _BEGUN and seen.steps.get(name) != task.state:
            seen.steps[name] = task.state
            tell({"event": "task", "task": name, "state": task.state, "seconds": _took(task)})


def steps(run: Any) -> dict[str, Any]:
    """Return the newest record of each step by its name, in the order in which they began.

    The server lists drivers, executors, groups and the whole among them; those are no steps.
    """
    listed = sorted(tasks(run), key=lambda task: _moment(task.start_time))
    named = [(str(task.display_name or ""), task) for task in listed]
    return {name: task for name, task in named if _AGAIN.sub("", name) in STEPS}


def tasks(run: Any) -> Iterable[Any]:
    """Return all that the server recorded of a run's parts."""
    return (run.run_details and run.run_details.task_details) or []


def judged(service: Service, run: Any) -> Ended:
    """Return how a run that is over ended: a red run may be the gate's no, and no mishap."""
    if run.state in (SUCCEEDED, SKIPPED):
        return Ended(Outcome.SUCCEEDED, "every step succeeded")
    if run.state == CANCELED:
        return Ended(Outcome.CANCELLED, "somebody cancelled it")
    name, task = _broken(run)
    said = reasons.of(service, run, task)
    outcome = ENDING.get(_AGAIN.sub("", name), Outcome.FAILED)
    if said.refused:
        outcome = REFUSING.get(_AGAIN.sub("", name), outcome)
    where = f"step {name} failed" if name else "the run failed"
    return Ended(outcome, f"{where}: {said.line}" if said.line else f"{where}; its log says why")


def _broken(run: Any) -> tuple[str, Any | None]:
    """Return the step that decided a failed run: one that only says no, else the first to fail."""
    listed = steps(run)
    for name, task in listed.items():
        if _AGAIN.sub("", name) in ENDING and task.state in _BEGUN:
            return name, task
    failed = [(name, task) for name, task in listed.items() if task.state == FAILED]
    drivers = [
        (str(task.display_name).removesuffix(_DRIVER), task)
        for task in tasks(run)
        if str(task.display_name).endswith(_DRIVER) and task.state == FAILED
    ]
    ended = sorted([*failed, *drivers], key=lambda found: _moment(found[1].end_time))
    return ended[0] if ended else ("", None)


def _moment(when: datetime | None) -> float:
    """Return a time for comparing; what has not happened is in 1970 or before, and comes last."""
    return inf if when is None or when <= _NEVER else when.timestamp()


def _took(task: Any) -> float | None:
    begun, over = _moment(task.start_time), _moment(task.end_time)
    return round(over - begun, 1) if over < inf and begun < inf else None
