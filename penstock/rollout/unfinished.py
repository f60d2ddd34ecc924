"""A rehearsal that died halfway: the table to return to is written down before it begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from penstock.bundle import write_json
from penstock.rollout import written
from penstock.rollout.ports import Stale
from penstock.rollout.table import TrafficTable
from penstock.rollout.watching import alive, this_process

NOTE = "drill.json"


@contextmanager
def rehearsing(serving: Path, home: TrafficTable) -> Iterator[None]:
    """Let the block turn users away; afterwards they are home, however it ends.

    Args:
        home: The table that must be in force then.
    """
    write_json(serving / NOTE, {**this_process(), "table": home.to_dict()})
    try:
        yield
    finally:
        _return(serving, home)


def going_on(serving: Path) -> bool:
    """Return whether somebody rehearses just now; a controller waits the second that it takes."""
    held = _read(serving)
    return held is not None and alive(held["pid"], held["start"])


def finish(serving: Path) -> str:
    """Return users to where they were when whoever rehearsed has died; say so, empty where not."""
    held = _read(serving)
    if held is None or alive(held["pid"], held["start"]):
        return ""
    home = TrafficTable.from_dict(held["table"])
    _return(serving, home)
    return f"a rehearsal died: the users of {home.market} are back where they were"


def _return(serving: Path, home: TrafficTable) -> None:
    # Whoever wrote a newer one since knew better.
    with suppress(Stale):
        written.apply(serving / "routes" / "table.json", home)
    (serving / NOTE).unlink(missing_ok=True)


def _read(serving: Path) -> dict[str, Any] | None:
    try:
        return json.loads((serving / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
