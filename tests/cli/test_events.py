"""Laws of a pipeline's events: each way to end has its outcome, its code and its reason."""

from __future__ import annotations

import errno
import io
import os
from typing import Any

import pytest
from rich.console import Console

from penstock.cli.run import EXIT, Record, _stage
from penstock.cli.screen import Screen


def carried(*events: dict[str, Any]) -> tuple[Record, str]:
    """Return the record and the screen's text after these events."""
    out = io.StringIO()
    record = Record(run_id="r", workload="digits", title="Digits", started_at="now")
    screen = Screen(Console(file=out, width=160))
    for event in events:
        _stage(event, record, screen)
    return record, out.getvalue()


def ended(task: str, *, ok: bool, **over: Any) -> dict[str, Any]:
    """Return the event of a step's end."""
    said = {"stage": task, "outcome": "pass", "line": "made it", "fingerprint": "digits-1",
            "reused": False}  # fmt: skip
    plain = {"event": "finished", "task": task, "ok": ok, "seconds": 1.5, "said": said,
             "reason": None, "refused": False}  # fmt: skip
    return {**plain, **over}


@pytest.mark.parametrize(
    ("event", "outcome", "code", "reason"),
    [
        (ended("datachecks", ok=False, refused=True, reason="3 of 9 rows"),
         "data refused", 4, "3 of 9 rows"),
        (ended("datachecks", ok=False, reason="broke"), "failed", 1, "broke"),
        (ended("reject", ok=False, refused=True, reason="rejected: gate is fail"),
         "rejected", 3, "rejected: gate is fail"),
        (ended("register", ok=False, refused=True, reason="not signed"),
         "rejected", 3, "not signed"),
        (ended("register", ok=False, reason="broke"), "failed", 1, "broke"),
        (ended("train", ok=False, refused=True, reason="does not repeat"),
         "failed", 1, "does not repeat"),
        (ended("train", ok=False), "failed", 1, "no reason was given"),
        ({"event": "unresolved", "reason": "Could not resolve x"},
         "failed", 1, "a branch could not be decided: Could not resolve x"),
    ],
)  # fmt: skip
def test_each_way_to_end_has_its_outcome_and_code(
    event: dict[str, Any], outcome: str, code: int, reason: str
):
    """Refused data, a rejected model and a broken step are told apart."""
    record, _ = carried(event)

    assert (record.outcome, EXIT[record.outcome], record.reason) == (outcome, code, reason)


def test_a_rejection_is_said_once():
    """The gate has its row with the verdict; the step that ends the run has none."""
    gate = {**ended("gate", ok=True)["said"], "outcome": "fail", "line": "worse"}

    record, shown = carried(
        ended("gate", ok=True, said=gate), ended("reject", ok=False, reason="gate is fail: worse")
    )

    assert [s["stage"] for s in record.stages] == ["gate"]
    assert shown.count("worse") == 1


def test_a_full_disk_says_what_to_do():
    """The operating system's words alone would not."""
    reason = f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: 'model.safetensors'"

    record, shown = carried(ended("train", ok=False, reason=reason))

    assert "free some space and run again" in record.reason
    assert "free some space and run again" in shown


def test_the_first_reason_stays():
    """What fails afterwards, because something failed before, does not hide the cause."""
    record, _ = carried(
        ended("export", ok=False, reason="cause"), ended("quantize", ok=False, reason="after")
    )

    assert record.reason == "cause"


def test_what_was_reused_says_so():
    """A line for each stage, with its name, its seconds, and whether it was made now."""
    said = {**ended("train", ok=True)["said"], "reused": True}

    record, shown = carried(
        {"event": "started", "task": "train"}, ended("train", ok=True, said=said)
    )

    assert "train" in shown
    assert "1.5 s" in shown
    assert "reused digits-1: made it" in shown
    assert record.stages[0]["reused"]


def test_branches_are_not_stages():
    """KFP reports its conditions as tasks too."""
    record, shown = carried(ended("condition-promote", ok=True))

    assert record.stages == []
    assert shown == ""
