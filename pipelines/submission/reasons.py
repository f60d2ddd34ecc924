"""Why a step failed, in one line: from the run's record, else from the end of the step's log."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import urllib3
from kfp_server_api import ApiException

from pipelines.submission.service import ANSWER_S, CONNECT_S, Service

_TAIL = 200
"""Lines of a log that are looked at."""

_LONGEST = 2_000
_SHOWN = 500
LARGEST = 16_000_000
"""Bytes of a log that are read to find its end."""

# What Kubeflow's launcher and Argo's agent write after the step's own last word.
_NOT_OURS = re.compile(r"[IWEF]\d{4} \d\d:|time=\"|::penstock |\s*$|exit status \d+$")
_CLASS = re.compile(r"^[\w.]*?(\w*(?:Error|Refused|Exception|Exit|Interrupt)): ")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NUMBER = re.compile(r"-(\d+)$")


@dataclass(frozen=True)
class Reason:
    """What is known of a failure."""

    line: str = ""
    refused: bool = False
    """The step said no, by the library's own word for it."""


def of(service: Service, run: Any, task: Any | None) -> Reason:
    """Return why a task failed, as well as it can be known; nothing is no reason to fail."""
    recorded = _recorded(task) or _recorded(run)
    if recorded:
        return Reason(recorded)
    for pod in _pods(run, task):
        if said := _logged(service, run.run_id, pod):
            return said
    return Reason()


def _recorded(record: Any | None) -> str:
    if record is None:
        return ""
    errors = [record.error, *(past.error for past in reversed(record.state_history or []))]
    found = next((e.message for e in errors if e is not None and e.message), "")
    return " ".join(found.split())[:_SHOWN]


def _pods(run: Any, task: Any | None) -> Iterator[str]:
    """Yield the pods whose logs may say why: the failed ones below the task, else its own."""
    listed = list((run.run_details and run.run_details.task_details) or [])
    if task is None:
        return
    below = {_ending(child.pod_name) for child in task.child_tasks or [] if child.pod_name}
    for other in sorted(listed, key=lambda one: str(one.end_time), reverse=True):
        inner = (other.display_name or "").startswith("executor") and other.state == "FAILED"
        if inner and other.pod_name and (not below or _ending(other.pod_name) in below):
            below |= {_ending(c.pod_name) for c in other.child_tasks or [] if c.pod_name}
            yield other.pod_name
    if task.pod_name:
        yield task.pod_name


def _ending(pod: str) -> str:
    """Return the number that ends a pod's name: Argo's two ways of naming agree in it alone."""
    number = _NUMBER.search(pod)
    return number[1] if number else pod


def _logged(service: Service, run_id: str, pod: str) -> Reason | None:
    """Return the last word in a step's log.

    The address is Kubeflow's, though its published API leaves it out: the answer is no JSON. A
    server that does not know it, or does not let us, is no reason to fail.
    """
    try:
        response = service.client.call_api(
            "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log",
            "GET",
            path_params={"run_id": run_id, "node_id": pod},
            auth_settings=["Bearer"],
            _preload_content=False,
            _request_timeout=(CONNECT_S, ANSWER_S),
        )
        if "text/plain" not in (response.headers.get("content-type") or ""):
            return None
        return last_word(_lines(response))
    except (ApiException, urllib3.exceptions.HTTPError, UnicodeDecodeError):
        return None


def _lines(response: Any) -> list[str]:
    kept: deque[str] = deque(maxlen=_TAIL)
    rest, read = b"", 0
    for piece in response.stream(65_536):
        *whole, rest = (rest + piece).split(b"\n")
        kept.extend(line[:_LONGEST].decode(errors="replace") for line in whole)
        rest, read = rest[:_LONGEST], read + len(piece)
        if read > LARGEST:
            break
    response.release_conn()
    return [*kept, rest.decode(errors="replace")]


def last_word(lines: list[str]) -> Reason | None:
    """Return the last line that is the step's own: an exception's text, without its class."""
    for line in reversed(lines):
        text = _ANSI.sub("", line).strip()
        if not _NOT_OURS.match(text):
            named = _CLASS.match(text)
            refused = named is not None and named[1] == "Refused"
            return Reason(_CLASS.sub("", text)[:_SHOWN], refused)
    return None
