"""Short ways to say what is appended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from penstock.ledger import REGISTERED, Actor, Entry, Ledger, Stage
from tests.people import person

NOW = datetime(2026, 1, 5, tzinfo=UTC)
ALL_THE_WAY = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)


def register(ledger: Ledger, version: int, *, actor: Actor | None = None, **body: Any) -> Entry:
    """Register a version."""
    return ledger.append(
        workload="digits",
        version=version,
        kind=REGISTERED,
        body={"package": f"packages/{version}", **body},
        actor=actor or person(),
        now=NOW,
    )


def move(ledger: Ledger, version: int, *stages: Stage, override: str = "") -> None:
    """Move a version through stages."""
    for stage in stages:
        ledger.move(
            workload="digits", version=version, to=stage, reason="test", actor=person(), now=NOW,
            override=override,
        )  # fmt: skip


def promote(ledger: Ledger, *versions: int) -> None:
    """Register versions and carry each to production."""
    for version in versions:
        register(ledger, version)
        move(ledger, version, *ALL_THE_WAY)


def note(ledger: Ledger, text: str = "", *, actor: Actor | None = None, **named: Any) -> Entry:
    """Append an entry that moves nothing."""
    return ledger.append(
        workload="digits", version=1, kind="note", body={"text": text},
        actor=actor or person(), now=NOW, **named,
    )  # fmt: skip
