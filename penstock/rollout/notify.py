"""Notifications: events of releases, derived from the ledger and sent until somebody takes them.

Nothing is queued but the ledger itself: a cursor file holds the last entry that was dealt with, so
an event is sent at least once, whatever dies in between. Its idempotency key, the entry's hash,
lets the receiver drop the second one. A thread of its own sends; a release never waits for it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from penstock.bundle import write_json
from penstock.ledger.entry import Entry, LedgerError
from penstock.rollout.history import event_of, told_of_workload
from penstock.rollout.past import MEANWHILE, Past, past_of
from penstock.rollout.ports import Notifier
from penstock.rollout.state import IN_FORCE, INTENT, Act
from penstock.rollout.webhook import Rejected, Undelivered, Webhook, WebhookError

URL_VARIABLE, SECRET_VARIABLE = "PENSTOCK_WEBHOOK", "PENSTOCK_WEBHOOK_SECRET"
"""Environment variables: where events are sent, and the file of the secret that signs them."""

CURSOR = "notified.json"
"""File below ``serving``: the last entry dealt with, and what hinders the next."""

TOLD = frozenset({
    "opened", "step entered", "strike", "approval wanted", "paged", "rolled back", "promoted",
    "failed", "killed", "kill switch", "kill cleared", "drill", "returned",
})  # fmt: skip
"""Events that are sent."""

TRIES = 5
"""Times that an event is sent in a row; then the next entry, or the next process, begins anew."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Wait after the first try that failed, doubled each time, and the longest one."""

LINGERING_S = 3.0
"""Longest that a command waits for its last event to be taken."""

_GOOD_NEWS = (Act.ENTER, Act.FINISH)
"""Told when they are read back, as nothing is true before; bad news is told when it is decided."""

Event = dict[str, Any]


def events_after(entries: Sequence[Entry], sequence: int) -> Iterator[Event]:
    """Yield what is to be told of the entries after one, in their order.

    Each event has ``event``, ``release`` (None of a kill or a drill), ``workload``, ``version``,
    ``market``, ``at``, ``text``, ``actor``, ``sequence`` and ``hash``.

    Args:
        entries: The ledger from its beginning: what an entry tells may lie in an earlier one.
    """
    pasts: dict[str, Past] = {}
    for entry in entries:
        if entry.sequence > sequence and (told := _told(entries, entry, pasts)) is not None:
            yield told


def _told(entries: Sequence[Entry], entry: Entry, pasts: dict[str, Past]) -> Event | None:
    if entry.kind in MEANWHILE:
        return _event(entry, told_of_workload(entry), None)
    release = entry.body.get("release")
    if not isinstance(release, str):
        return None
    try:
        past = pasts[release] if release in pasts else past_of(entries, release)
        pasts[release] = past
        teller = _teller(past, entry)
        told = None if teller is None else event_of(past, teller)
    except (LookupError, TypeError, StopIteration):
        # Whatever else an entry may be, it must not keep those after it from being told.
        return None
    return None if told is None or told["event"] not in TOLD else _event(entry, told, past)


def _teller(past: Past, entry: Entry) -> Entry | None:
    """Return the entry whose words tell this one; None where it is told by another."""
    if entry.kind == IN_FORCE:
        intent = next(e for e in past.intents if e.body["n"] == entry.body["n"])
        return intent if intent.body["action"] in _GOOD_NEWS else None
    if entry.kind == INTENT and entry.body["action"] in _GOOD_NEWS:
        return None
    return entry


def _event(entry: Entry, told: Mapping[str, Any], past: Past | None) -> Event:
    return {
        "event": told["event"],
        "release": None if past is None else past.release,
        "workload": entry.workload,
        "version": entry.version,
        "market": None if past is None else past.opened.body["market"],
        "at": entry.at,
        "text": told["text"],
        "actor": entry.actor,
        "sequence": entry.sequence,
        "hash": entry.hash,
    }


class Outbox:
    """Sends what the ledger tells, in its order, in a thread of its own."""

    def __init__(
        self,
        notifier: Notifier,
        read: Callable[[], Sequence[Entry]],
        cursor: Path,
        *,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        """Begin with what is entered from now on, or where the cursor file stands.

        Args:
            read: Returns the ledger's entries, all of them.
        """
        self._notifier, self._read, self._cursor = notifier, read, cursor
        self._first_wait_s, self._behind = first_wait_s, False
        self._woken, self._closing = threading.Event(), threading.Event()
        if not cursor.exists():
            self._keep({"sequence": _end(read()), "lost": 0, "problem": ""})
        # A daemon: what is not sent when the process ends is sent by the next one.
        self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
        self._thread.start()
        self.wake()

    def wake(self) -> None:
        """Say that something was entered; returns at once."""
        self._woken.set()

    def close(self, *, timeout_s: float) -> None:
        """Send what there is for so long, then stop; what is left waits in the ledger."""
        self._closing.set()
        self._woken.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            # What nobody took is tried again now and then, though nothing new was entered.
            self._woken.wait(LONGEST_WAIT_S if self._behind else None)
            self._woken.clear()
            self._burst()
            if self._closing.is_set() and not self._woken.is_set():
                return

    def _burst(self) -> None:
        """Send everything that is due; give up for now after a few failures in a row."""
        failures, wait_s = 0, self._first_wait_s
        while failures < TRIES:
            self._behind = bool(self._turn())
            if not self._behind:
                return
            failures += 1
            if self._closing.wait(wait_s):
                return
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _turn(self) -> str:
        """Send what is due, unless another process is at it; return why it ended early."""
        try:
            with FileLock(self._cursor.with_suffix(".lock"), timeout=0):
                return self._send()
        except Timeout:
            return "another process sends"
        except (LedgerError, OSError, ValueError) as e:
            return f"{type(e).__name__}: {e}"

    def _send(self) -> str:
        entries, noted = self._read(), delivery(self._cursor)
        for event in events_after(entries, noted["sequence"]):
            try:
                self._notifier.tell(event)
                noted["problem"] = ""
            except Undelivered as e:
                self._keep({**noted, "problem": f"entry {event['sequence']}: {e}"})
                return str(e)
            except Rejected as e:
                # Sent again it would hold up all that follow, for ever.
                noted["problem"] = f"entry {event['sequence']} is given up: {e}"
                noted["lost"] += 1
            noted["sequence"] = event["sequence"]
            self._keep(noted)
        self._keep({**noted, "sequence": max(noted["sequence"], _end(entries))})
        return ""

    def _keep(self, noted: Mapping[str, Any]) -> None:
        self._cursor.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._cursor, noted)


def _end(entries: Sequence[Entry]) -> int:
    return entries[-1].sequence if entries else 0


def delivery(cursor: Path) -> dict[str, Any]:
    """Return how far notifications have come: ``sequence``, ``lost`` ones, and the ``problem``.

    A file that is missing or unreadable says 0: what was sent is then sent again.
    """
    try:
        found = json.loads(cursor.read_text(encoding="utf-8"))
        sequence, lost = int(found["sequence"]), int(found["lost"])
        return {"sequence": sequence, "lost": lost, "problem": str(found["problem"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"sequence": 0, "lost": 0, "problem": ""}


def notifier_of(
    home: Path,
    read: Callable[[], Sequence[Entry]],
    environment: Mapping[str, str] = os.environ,
) -> Outbox | None:
    """Return the outbox that the environment asks for; None where it names no webhook.

    Raises:
        WebhookError: It names one that cannot be used.
    """
    url = environment.get(URL_VARIABLE)
    if not url:
        return None
    secret = environment.get(SECRET_VARIABLE)
    if not secret:
        raise WebhookError(
            f"{URL_VARIABLE} is set but {SECRET_VARIABLE}, the secret's file, is not."
        )
    return Outbox(Webhook(url, Path(secret)), read, home / "serving" / CURSOR)


@contextmanager
def notifying(
    home: Path,
    read: Callable[[], Sequence[Entry]],
    environment: Mapping[str, str] = os.environ,
) -> Iterator[None]:
    """Tell people what is entered within, as by one command; what hinders it is said on stderr.

    It hinders nothing else. What is not sent in time is sent by the next process that carries a
    release.
    """
    box: Outbox | None = None
    try:
        box = notifier_of(home, read, environment)
    except (WebhookError, LedgerError, OSError) as e:
        sys.stderr.write(f"penstock: nobody is notified: {e}\n")
    try:
        yield
    finally:
        if box is not None:
            box.close(timeout_s=LINGERING_S)
