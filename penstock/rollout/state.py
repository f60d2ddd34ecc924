"""What a release is, as the ledger's entries tell it: entries in, state out, nothing else.

A release's entries, all of its workload and version, with ``release`` in their body:

``release opened``
    release, market, trigger, plan, plan_hash, challenger {version, digest, slot}, champion {the
    same} or None.
``intent``
    release, n (1, 2, … within the release), action, step (index that it leads to, or None), why,
    table (a traffic table as a dict, or None where it changes no traffic), verdict (of the step it
    leaves, or None), fingerprint (of that verdict), answers (sequence of the command or approval it
    heeds, or None), and what else the action needs. Appended with ``expect``, so that of two
    controllers one alone writes it.
``in force``
    release, n, milliseconds. The intent's effect was read back; the state after it counts from this
    entry's time.
``command``
    release, command, reason. By a person; heeded by a later intent's ``answers``.
``approval``
    release, granted, binds, expires, reason. By a person; see :mod:`penstock.rollout.approvals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from penstock.rollout.plan import Phase
from penstock.rollout.table import TrafficTable

OPENED, INTENT, IN_FORCE, COMMAND, APPROVAL = (
    "release opened",
    "intent",
    "in force",
    "command",
    "approval",
)
"""Kinds of a release's entries."""


class Act(StrEnum):
    """What an intent does."""

    ENTER = "enter"  # a step, forward
    STEP_BACK = "step back"  # one step lower, after the first strike
    ROLL_BACK = "roll back"
    AWAIT = "await"  # stay, and ask for an approval of the next step
    PAUSE = "pause"
    RESUME = "resume"
    EXTEND = "extend"  # the deadline, once more
    FINISH = "finish"
    FAIL = "fail"  # it never became ready
    KILL = "kill"  # note that the kill switch was thrown
    RESTORE = "restore"  # the table of the state, which another one has taken the place of


class Ask(StrEnum):
    """What a person may ask of a release."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a person asked and nothing has answered yet."""

    sequence: int
    """Of its entry in the ledger."""

    ask: Ask
    reason: str
    actor: str
    at: datetime
    key_id: str
    """Of the key that signed it."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """An intent whose effect was not yet read back: it is finished before anything else."""

    n: int
    act: Act
    step: int | None
    table: TrafficTable | None
    why: str
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a release stands; :func:`penstock.rollout.folding.fold` makes it from entries."""

    release: str
    workload: str
    market: str
    phase: Phase

    step: int | None
    """Index of the step whose table is in force; None before the first."""

    opened_at: datetime
    entered_at: datetime
    """When the step's table was in force: soak, deadline and evidence count from here. To restore
    the table begins it anew; extending, waiting, pausing and resuming leave it as it is."""

    n: int = 0
    """Of the last intent."""

    table: TrafficTable | None = None
    """That should be in force; None before the first."""

    strikes: int = 0
    extended: int = 0
    """Extensions used at this step; each adds the whole time of the step to its deadline."""

    within: Phase | None = None
    """Of a release that waits or is paused: the phase it is in besides."""

    awaited: int | None = None
    """Index of the step that waits for an approval."""

    asked_at: datetime | None = None
    """When it was asked for."""

    fingerprint: str = ""
    """Of the verdict with which the step that waits was passed."""

    commands: tuple[Command, ...] = ()
    """Not answered yet, oldest first."""

    pending: Pending | None = None
    reason: str = ""
    """Of the last intent."""

    last: int = 0
    """Sequence of the newest entry that this state was made of."""
