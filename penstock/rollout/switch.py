"""The kill switch as files: a link that Envoy follows, and that one rename turns.

``serving/runtime/current`` is a symbolic link to a folder whose files are Envoy's runtime keys.
``off`` has none; ``to-a``, ``to-b`` and ``to-rules`` send everybody to that slot. Nothing else
needs to run: whoever may write here can throw it with two commands, ::

    ln -s to-a serving/runtime/now && mv -T serving/runtime/now serving/runtime/current

and Envoy obeys at once, or when it starts next.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from penstock.rollout.routing import ANSWERING, KILL_KEY

OFF = "off"
_LINK = "current"


def folder_of(serving: Path) -> Path:
    """Return where the switch of a home's servers lies."""
    return serving / "runtime"


def link_of(serving: Path) -> Path:
    """Return the link that Envoy follows."""
    return folder_of(serving) / _LINK


def prepare(serving: Path) -> None:
    """Make the switch where there is none; one that was thrown stays so."""
    folder = folder_of(serving)
    (folder / OFF).mkdir(mode=0o700, parents=True, exist_ok=True)
    for slot in ANSWERING:
        fill(folder / f"to-{slot}", slot)
    if not (folder / _LINK).is_symlink():
        turn(serving, OFF)


def fill(folder: Path, slot: str) -> None:
    """Make a folder that sends everybody to a slot."""
    path = folder.joinpath(*KILL_KEY.split("."), slot)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        path.write_text("100", encoding="ascii")


def turn(serving: Path, to: str) -> None:
    """Let the link point at a folder beside it, at once."""
    folder = folder_of(serving)
    part = folder / f".{_LINK}-{uuid.uuid4().hex[:8]}"
    part.symlink_to(to)
    part.replace(folder / _LINK)


def target(serving: Path) -> str:
    """Return the name of the folder that the link points at; ``off`` where there is no switch."""
    try:
        return link_of(serving).readlink().name
    except FileNotFoundError:
        return OFF


def thrown_to(serving: Path) -> str | None:
    """Return the slot that everybody is sent to, None while the switch is off.

    Of a folder made by hand that names several slots the first counts, as in the routes.
    """
    return led_to(link_of(serving))


def led_to(folder: Path) -> str | None:
    """Return the slot that a folder sends everybody to, None of one that sends nobody."""
    named = folder.joinpath(*KILL_KEY.split("."))
    return next((slot for slot in ANSWERING if _is_on(named / slot)), None)


def _is_on(path: Path) -> bool:
    try:
        return path.read_text(encoding="ascii").strip() not in ("", "0")
    except (OSError, ValueError):
        return False
