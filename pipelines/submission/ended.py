"""How a submission can end, and the errors that a server's answers become."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a submission ended; the command line has an exit code for each."""

    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    SCHEDULED = "scheduled"
    DISABLED = "disabled"
    STOPPING = "stopping"
    CHECKED = "checked"
    FAILED = "failed"
    WRONG_CALL = "wrong call"
    REJECTED = "rejected"
    DATA_REFUSED = "data refused"
    WAITING = "waiting"
    CANCELLED = "cancelled"
    STILL_RUNNING = "still running"
    NOT_ALLOWED = "not allowed"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


class Ended(Exception):
    """Nothing more is to be done; the text is the reason in one sentence."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        """End in one of the ways there are."""
        super().__init__(reason)
        self.outcome, self.reason = outcome, reason


class Trouble(Exception):
    """The server did not answer, or answered that it cannot now; it may have acted all the same."""


class Conflict(Exception):
    """Something of that name is there already."""
