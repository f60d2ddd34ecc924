"""What the files beside the kill switch tell: who threw it, where to, why, and what is over.

Each throw leaves ``kill-ID.json`` and a folder ``kill-ID`` that the link leads to. An empty
``kill-ID.entered`` beside them says that the ledger has it, ``kill-ID.cleared`` that it is over: a
link that leads to such a folder again was turned by hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.ledger.actors import signed_by
from penstock.ledger.entry import canonical
from penstock.rollout import switch
from penstock.rollout.access import write_private
from penstock.rollout.routing import ANSWERING

BY_HAND = "whoever may write the files of this home"
KEY, TOKEN, FILE = "key", "token", "file"
"""How it was thrown: signed with a key, over HTTP, or by turning the link by hand."""

_SIGNED = b"penstock kill v1\n"
_KEPT = "kill-"


@dataclass(frozen=True, kw_only=True)
class Request:
    """That the switch is thrown: by whom, where to, why."""

    id: str
    """Empty of one that was thrown by hand and is not noted yet."""

    to: str
    """Slot that answers everybody from then on."""

    reason: str
    by: str
    how: str
    """``key``, ``token`` or ``file``."""

    at: str
    version: str | None
    """That the slot serves."""

    killed: tuple[str, ...]
    """Versions that may answer nobody until it is cleared."""

    serving: Mapping[str, Any] | None = None
    """What the slot should run, so that it can be brought up again."""

    maker: str = ""
    """Of a token: who made it."""

    public_key: str = ""
    signature: str = ""

    def signing_input(self) -> bytes:
        """Return what is signed."""
        said = {k: v for k, v in asdict(self).items() if k != "signature"}
        return _SIGNED + canonical(said | {"killed": list(self.killed)}).encode("ascii")

    def is_signed(self) -> bool:
        """Return whether the signature is the named key's, of this request."""
        return signed_by(self.public_key, self.signature, self.signing_input())

    def __str__(self) -> str:
        return f"{self.by} sent everybody to slot {self.to}: {self.reason}"


def _beside(serving: Path, id_: str, ending: str) -> Path:
    return switch.folder_of(serving) / f"{_KEPT}{id_}{ending}"


def folder(serving: Path, id_: str) -> Path:
    """Return the folder to which the link leads of a request that is in force."""
    return _beside(serving, id_, "")


def keep(serving: Path, request: Request) -> None:
    """Note a request for its owner's eyes.

    Raises:
        OSError: There is no room for it.
    """
    write_private(_beside(serving, request.id, ".json"), asdict(request))


def settle(serving: Path, request: Request) -> None:
    """Have the note and the turned link outlive a power cut; after users are safe, for it waits."""
    for path in (_beside(serving, request.id, ".json"), switch.folder_of(serving)):
        with suppress(OSError):
            held = os.open(path, os.O_RDONLY)
            try:
                os.fsync(held)
            finally:
                os.close(held)


def in_force(serving: Path) -> Request | None:
    """Return the request that the link leads to, None while the switch is off.

    One that nobody noted, whose note cannot be read, or that was cleared before, was thrown by
    hand.
    """
    to = switch.thrown_to(serving)
    if to is None:
        return None
    path = switch.folder_of(serving) / f"{switch.target(serving)}.json"
    reason = "no reason was given"
    try:
        if not path.with_suffix(".cleared").exists():
            return _read(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, LookupError):
        reason = f"no reason is known, {path.name!r} cannot be read"
    return _by_hand(to, reason)


def _by_hand(to: str, reason: str) -> Request:
    return Request(
        id="", to=to, reason=reason, by=BY_HAND, how=FILE, at="", version=None, killed=()
    )


def set_aside(serving: Path) -> None:
    """Take the note of the link's folder out of the way where it cannot be read."""
    path = switch.folder_of(serving) / f"{switch.target(serving)}.json"
    with suppress(FileNotFoundError):
        try:
            _read(path)
        except (ValueError, TypeError, LookupError):
            path.replace(path.with_suffix(".unreadable"))


def _read(path: Path) -> Request:
    """Return the request of a file.

    Raises:
        OSError: It cannot be read.
        ValueError, TypeError, LookupError: It holds none, or another's.
    """
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    words = [held[name] for name in ("id", "to", "reason", "by", "how", "at")] + held["killed"]
    if not all(isinstance(word, str) for word in words) or held["to"] not in ANSWERING:
        raise ValueError(f"{path} holds no request of the kill switch.")
    made = Request(**held)
    if path.stem != f"{_KEPT}{made.id}":
        raise ValueError(f"{path} holds the request {made.id}.")
    return replace(made, killed=tuple(made.killed))


def kept(serving: Path, *, but: str = "") -> list[Request]:
    """Return the notes of requests, oldest first, also of ones that cannot be read.

    Args:
        but: Leave out those beside which lies a mark of this ending.
    """
    paths = switch.folder_of(serving).glob(f"{_KEPT}*.json")
    found = _requests(p for p in paths if not but or not p.with_suffix(but).exists())
    return sorted(found, key=lambda request: request.at)


def _requests(paths: Iterator[Path]) -> Iterator[Request]:
    for path in paths:
        try:
            yield _read(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, LookupError):
            yield _unread(path)


def _unread(path: Path) -> Request:
    """Return what is known of a request whose file tells nothing: that it was, where to, when."""
    to = switch.led_to(path.with_suffix("")) or "unknown"
    with suppress(OSError):
        at = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
        known = _by_hand(to, f"no reason is known, {path.name!r} cannot be read")
        return replace(known, id=path.stem.removeprefix(_KEPT), at=at)
    return replace(_by_hand(to, "no reason is known"), id=path.stem.removeprefix(_KEPT))


def ids(serving: Path) -> frozenset[str]:
    """Return the ids of all notes."""
    return frozenset(request.id for request in kept(serving))


def entered(serving: Path, request: Request) -> None:
    """Note that the ledger has it."""
    _beside(serving, request.id, ".entered").touch()


def over(serving: Path, request: Request, known: Collection[str]) -> None:
    """Note that a request was cleared, and with it every one before of those that are known."""
    for one in kept(serving, but=".cleared"):
        if one.id in known and one.at <= request.at:
            _beside(serving, one.id, ".cleared").touch()


def newest_not_over(serving: Path, cleared: Collection[str] = ()) -> Request | None:
    """Return the newest request that nobody cleared.

    Args:
        cleared: Ids that are known to be, besides.
    """
    found = [r for r in kept(serving, but=".cleared") if r.id not in cleared]
    return found[-1] if found else None
