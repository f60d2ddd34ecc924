"""Who may throw the kill switch: a roll copied out of the ledger, for when that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from penstock.ledger import Actor, Ledger
from penstock.rollout.access import write_private

THROWERS = frozenset({"compliance", "operator", "admin"})
ROLL = "kill-roll.json"


class NotAllowed(PermissionError):
    """Whoever asks may not do this to the switch; the text says why and what to do."""


def remember(home: Path, ledger: Ledger) -> None:
    """Copy who may throw the switch out of the ledger.

    Raises:
        LedgerError: It cannot be read now; the copy of before stays.
        OSError: The copy cannot be written.
    """
    people = [
        {"name": a.name, "public_key": a.public_key, "roles": sorted(a.roles)}
        for a in ledger.actors()
        if not a.revoked and a.roles & THROWERS
    ]
    serving = home / "serving"
    serving.mkdir(parents=True, exist_ok=True)
    write_private(serving / ROLL, people)


def people(home: Path) -> dict[str, str]:
    """Return the public key of everybody who may throw the switch, by name.

    Raises:
        NotAllowed: There is no copied roll, or it cannot be read.
    """
    try:
        held: list[dict[str, Any]] = json.loads((home / "serving" / ROLL).read_text("utf-8"))
        return {p["name"]: p["public_key"] for p in held}
    except (OSError, ValueError, LookupError, TypeError) as e:
        raise NotAllowed(
            f"nobody is known here yet ({e}); start the servers once while the ledger can be read: "
            "penstock up. By hand: docs/runbooks/kill.md"
        ) from e


def check_person(home: Path, actor: Actor) -> None:
    """Refuse whom the copied roll does not know in a role that may throw the switch.

    Raises:
        NotAllowed: It does not.
    """
    if people(home).get(actor.name) != actor.public_key:
        raise NotAllowed(
            f"{actor.name}, with this key, may not throw the kill switch; it takes the role "
            f"{' or '.join(sorted(THROWERS))}. An admin gives roles: penstock ledger enrol."
        )
