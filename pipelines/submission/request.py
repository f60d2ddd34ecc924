"""What a submission asks for: one JSON document, read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.reading import Unreadable, built
from pipelines.submission.ended import Ended, Outcome

ACTIONS = ("run", "check", "schedule", "disable", "cancel", "follow")


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything a submission is told. No secret is in it: a token stays where it is kept."""

    action: str
    workload: str = ""
    pipeline: str = "train"
    profile: str | None = None
    host: str = ""
    ui: str = ""
    namespace: str | None = None
    experiment: str | None = None
    service_account: str | None = None
    parameters: tuple[str, ...] = ()
    parameters_file: str | None = None
    champion: str = ""
    """Address of whoever serves, for a pipeline that asks for it and where nobody says another."""

    revision: str | None = None
    once: str | None = None
    """What was submitted with this key before is found again."""

    wait_s: int | None = None
    every_s: int = 10
    token_file: str | None = None
    ca_cert: str | None = None
    insecure: bool = False
    cached: bool = True
    pinned: bool = True
    """Every image must be named by digest."""

    cron: str = ""
    schedule: str = ""
    run_id: str = ""
    pause_ms: int = 1_000
    """Before a failed question is asked a second time; doubled for each further one."""

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action {self.action!r} came; there is {', '.join(ACTIONS)}.")
        if self.every_s < 1:
            raise ValueError(f"every {self.every_s} s came, 1 or more was wanted.")


def parsed(text: str) -> Request:
    """Return the request in a document.

    Raises:
        Ended: It is none.
    """
    try:
        document: object = json.loads(text)
        if isinstance(document, Mapping):
            given: Mapping[str, Any] = document
            document = {name: value for name, value in given.items() if value is not None}
        return built(Request, document, "request")
    except (Unreadable, ValueError) as e:
        raise Ended(Outcome.WRONG_CALL, f"no request: {e}") from e
