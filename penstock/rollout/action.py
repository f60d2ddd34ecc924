"""What a release does next, as a value: an act or a hold, its reason, what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock.rollout.state import Act

GIVES_BACK = frozenset({Act.ROLL_BACK, Act.FAIL, Act.KILL})
"""What gives every user to the champion. Of a kill: behind the switch, which goes before any table,
so that nobody is on the killed version either when a person clears it."""

MOVES_TRAFFIC = GIVES_BACK | {Act.ENTER, Act.STEP_BACK, Act.FINISH, Act.RESTORE}
"""What puts a table in force; everything else leaves the traffic as it is."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """What is to be done, and why; ``act`` None is a hold."""

    act: Act | None
    why: str
    step: int | None = None
    """Index of the step that it leads to, or that waits for an approval."""

    strike: bool = False
    critical: bool = False
    """It did not wait for a second strike."""

    answers: int | None = None
    """Sequence of the command or approval that it heeds."""

    waits_for: str = ""
    """``soak``, ``cool-down``, ``users``, ``evidence``, ``approval``, ``person``, ``standby``,
    ``drill``, ``documents`` or ``server``; of a hold."""

    until: datetime | None = None
    """When it is decided otherwise at the latest; None where nothing ends the wait by itself."""


def lasting(duration: timedelta) -> str:
    """Return a duration for people: the two largest units that are not 0."""
    seconds = duration.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    parts: list[str] = []
    for size, name in units:
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])
