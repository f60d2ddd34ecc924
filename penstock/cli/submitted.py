"""A submission as it goes on: its process, what a person sees, what is kept for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from penstock.bundle import write_json
from penstock.cli.home import called
from penstock.cli.screen import plain

WRONG_CALL = "wrong call"
EXIT = {
    "submitted": 0,
    "succeeded": 0,
    "scheduled": 0,
    "disabled": 0,
    "stopping": 0,
    "checked": 0,
    "failed": 1,
    WRONG_CALL: 2,
    "rejected": 3,
    "data refused": 4,
    "waiting": 6,
    "cancelled": 7,
    "still running": 8,
    "not allowed": 9,
    "unreachable": 10,
    "refused": 11,
    "interrupted": 130,
}
"""Exit code of each way a submission can end; what ``penstock run`` says too has its code."""

SUMMARY = "GITHUB_STEP_SUMMARY"
TOKEN = "PENSTOCK_KFP_TOKEN"  # noqa: S105 - the name of the variable
GOOD = ("submitted", "succeeded", "scheduled", "disabled", "stopping", "checked")
_UNDECIDED = ("still running", "unreachable", "not allowed")
"""Ends of the waiting that say nothing of the run; it goes on."""

STYLES = {"SUCCEEDED": "green", "FAILED": "red", "CANCELED": "yellow", "RUNNING": "dim"}


@dataclass(kw_only=True)
class Submission:
    """What is known of a submission; written with ``--json``."""

    workload: str
    pipeline: str
    outcome: str = "failed"
    reason: str = ""
    version: str = ""
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    label: str = ""
    """Ends the run's name on the server, before anybody knows whether it was made."""

    name: str = ""
    run_id: str = ""
    recurring_run_id: str = ""
    url: str = ""
    state: str = ""
    steps: dict[str, str] = field(default_factory=dict[str, str])

    def take(self, event: Mapping[str, Any]) -> None:
        """Keep what an event says."""
        kind = event["event"]
        if kind == "run":
            # Whoever is killed from here on has submitted it.
            self.outcome, self.reason = "submitted", "it was not followed to its end"
        if kind == "task":
            self.steps[event["task"]] = event["state"]
        elif kind == "version":
            self.version = event["name"]
        elif kind != "trouble":
            for name, value in event.items():
                if name in _KEPT:
                    setattr(self, name, value)


_KEPT = frozenset(Submission.__dataclass_fields__) - {"workload", "pipeline", "steps"}


def carry(
    request: Mapping[str, Any], told: Submission, console: Console, json_file: Path | None
) -> None:
    """Submit, show what happens, and keep it; an interruption ends the waiting, not the run.

    Args:
        told: Is filled as things happen.

    Raises:
        RuntimeError: The process that submits broke.
        ValueError: What happens cannot be kept; nothing was sent.
    """
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ValueError(f"--json {json_file} came, a file in a folder that is there was wanted.")
    try:
        with _process(request) as events:
            for event in events:
                told.take(event)
                _show(event, console)
                if json_file is not None and event["event"] in ("run", "schedule", "ended"):
                    write_json(json_file, asdict(told))
    except KeyboardInterrupt:
        told.outcome, told.reason = "interrupted", _goes_on(told)
        if json_file is not None:
            write_json(json_file, asdict(told))
    _end(told, console)
    if path := os.environ.get(SUMMARY):
        with Path(path).open("a", encoding="utf-8") as summary:
            summary.write(_markdown(told))


@contextmanager
def _process(request: Mapping[str, Any]) -> Iterator[Iterator[Mapping[str, Any]]]:
    """Yield the events of the process that submits; nothing of it is left running."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as asked:
        json.dump(request, asked)
        asked.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.submit"],
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            # Ctrl-C is for us to explain.
            start_new_session=True,
        )
        try:
            if process.stdout is None:
                raise RuntimeError("the process that submits has no output to read")
            yield (json.loads(line) for line in process.stdout)
            if code := process.wait():
                said.seek(0)
                last = " ".join(said.read().strip().splitlines()[-1:])
                raise RuntimeError(f"the process that submits ended with {code}: {_hidden(last)}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _hidden(text: str) -> str:
    token = os.environ.get(TOKEN, "").strip()
    return text.replace(token, "***") if token else text


def _show(event: Mapping[str, Any], console: Console) -> None:
    kind = event["event"]
    if kind == "prepared":
        given = " ".join(f"{k}={_value(v)}" for k, v in sorted(event["parameters"].items()))
        _fact(console, event["pipeline"], f"version {event['version']}, {event['pods']} pods")
        _fact(console, "parameters", given or "none")
    elif kind == "version":
        how = "uploaded" if event["uploaded"] else "is there already"
        _fact(console, "version", f"{event['name']} {how}")
    elif kind in ("run", "schedule"):
        _fact(console, kind, event.get("name") or event.get("run_id"))
        _fact(console, "", event["url"])
        if other := event.get("other"):
            _fact(console, "", f"submitted before, with {other}", "yellow")
    elif kind == "state":
        _fact(console, "state", event["state"], STYLES.get(event["state"], ""))
    elif kind == "task":
        took = "" if event["seconds"] is None else f"  {event['seconds']:.0f} s"
        _fact(console, f"  {event['task']}", event["state"] + took, STYLES.get(event["state"], ""))
    elif kind == "trouble":
        _fact(console, "trouble", f"{event['text']}; again in {event['again_s']:g} s", "yellow")


def _fact(console: Console, name: str, what: object, style: str = "") -> None:
    console.print(plain(f"  {name:<14} "), plain(what, style=style), sep="", soft_wrap=True)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _goes_on(told: Submission) -> str:
    """Return what a person who stops waiting must know."""
    if told.run_id:
        verb = f"{called()} submit"
        return (
            f"the run goes on; follow it: {verb} --follow {told.run_id}; "
            f"end it: {verb} --cancel {told.run_id}"
        )
    if told.label:
        return f"the run may have been made; look for one whose name ends with {told.label}"
    return "nothing was submitted"


def _end(told: Submission, console: Console) -> None:
    if told.outcome == WRONG_CALL:
        return
    style = "green" if told.outcome in GOOD else "bold red"
    said = plain(f": {told.reason}")
    console.print(plain(told.outcome, style=style), said, sep="", soft_wrap=True)
    if told.outcome in _UNDECIDED and told.run_id and (told.state or told.name):
        console.print(plain(_goes_on(told)), soft_wrap=True)


def _markdown(told: Submission) -> str:
    """Return the job's summary; what a server said is shown as it is, and is no markup."""
    said = f"{told.outcome}: {told.reason}".replace("`", "'")
    named = told.name.replace("`", "'")
    where = f"[run]({told.url})" if told.url else ""
    what = f"`{told.workload}` {told.pipeline}" if told.workload else ""
    facts = [what, f"`{told.version}`" if told.version else "", where, named and f"`{named}`"]
    return f"**Penstock** {' '.join(filter(None, facts))}\n\n`{' '.join(said.split())}`\n\n"
