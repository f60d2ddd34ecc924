"""What happened in a release, and why each time, as its ledger entries tell it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from penstock.ledger.entry import Entry
from penstock.rollout.branches import BACK
from penstock.rollout.drill import DRILL
from penstock.rollout.kill import CLEARED, KILL
from penstock.rollout.killnotes import FILE, TOKEN
from penstock.rollout.past import PAGED, Past, past_of, share_percent
from penstock.rollout.state import APPROVAL, COMMAND, INTENT, OPENED, Act

Told = dict[str, Any]

EVENTS: Mapping[str, str] = {
    Act.ENTER: "step entered",
    Act.STEP_BACK: "strike",
    Act.ROLL_BACK: "rolled back",
    Act.AWAIT: "approval wanted",
    Act.PAUSE: "paused",
    Act.RESUME: "resumed",
    Act.EXTEND: "deadline extended",
    Act.FINISH: "promoted",
    Act.FAIL: "failed",
    Act.KILL: "killed",
    Act.RESTORE: "table restored",
}
"""What an intent's action is called when it is told."""


def history(entries: Sequence[Entry], release: str) -> list[Told]:
    """Return what happened in a release, oldest first; an intent and its read-back are one event.

    Each has ``sequence``, ``at``, ``actor``, ``event``, ``text`` and ``hash``; those of a decision
    also ``n``, ``action``, ``step``, ``left``, ``why``, ``outcome``, ``strike``, ``share_percent``,
    ``in_force_at`` and ``milliseconds``.

    Raises:
        LookupError: There is no such release.
    """
    past = past_of(entries, release)
    return [told for e in past.entries if (told := event_of(past, e)) is not None]


def event_of(past: Past, entry: Entry) -> Told | None:
    """Return what an entry of a release tells; None of one that is told with another."""
    if entry.kind in _OF_WORKLOAD:
        return told_of_workload(entry)
    tell = _TELLERS.get(entry.kind)
    return None if tell is None else _stamp(entry) | tell(past, entry)


def told_of_workload(entry: Entry) -> Told:
    """Return what an entry of the kill switch or of a rehearsed rollback tells."""
    return _stamp(entry) | _OF_WORKLOAD[entry.kind](entry)


def _stamp(entry: Entry) -> Told:
    stamp = ("sequence", "at", "actor", "hash")
    return {name: getattr(entry, name) for name in stamp} | {"version": entry.version}


def _opened(_past: Past, entry: Entry) -> Told:
    body = entry.body
    champion = body["champion"]
    over = "as the first" if champion is None else f"over version {champion['version']}"
    text = f"version {body['challenger']['version']} {over}, by {body['trigger']} training"
    return {"event": "opened", "text": text, "plan_hash": body["plan_hash"]}


def _decided(past: Past, entry: Entry) -> Told:
    body, back = entry.body, past.backs.get(entry.body["n"])
    after = body.get("table") or past.table_before(entry)
    step, left = past.step_name(body.get("step")), past.step_name(past.step_before(entry))
    event = EVENTS[body["action"]]
    said = _SAYINGS.get(body["action"], event)
    return {
        "event": event,
        "n": body["n"],
        "action": body["action"],
        "step": step,
        "left": left,
        "why": body["why"],
        "outcome": (body.get("verdict") or {}).get("outcome"),
        "strike": struck(body),
        "share_percent": share_percent(after, past.opened.body["challenger"]["slot"]),
        "in_force_at": None if back is None else back.at,
        "milliseconds": None if back is None else back.body.get("milliseconds"),
        "text": f"{said.format(step=step, left=left)}: {body['why']}",
    }


_SAYINGS: Mapping[str, str] = {
    Act.ENTER: "{step} entered",
    Act.STEP_BACK: "strike at {left}, back to {step}",
    Act.ROLL_BACK: "rolled back at {left}",
    Act.AWAIT: "{step} waits for an approval",
    Act.EXTEND: "deadline of {left} extended",
}


def struck(body: Mapping[str, Any]) -> bool:
    """Return whether an intent is a strike: it says so, and a step back always is one."""
    return bool(body.get("strike")) or body["action"] == Act.STEP_BACK


def _commanded(_past: Past, entry: Entry) -> Told:
    asked = entry.body["command"]
    reason = entry.body["reason"]
    return {"event": "command", "command": asked, "text": f"{asked}, by {entry.actor}: {reason}"}


def _answered(_past: Past, entry: Entry) -> Told:
    body = entry.body
    granted = bool(body["granted"])
    event = "approved" if granted else "approval refused"
    binds, expires = body.get("binds"), body.get("expires")
    text = f"{event} by {entry.actor}: {body.get('reason') or 'no reason given'}"
    return {"event": event, "granted": granted, "binds": binds, "expires": expires, "text": text}


def _paged(_past: Past, entry: Entry) -> Told:
    return {"event": PAGED, "text": str(entry.body["why"]), "cause": entry.body["cause"]}


def _kill_switch(entry: Entry) -> Told:
    body = entry.body
    text = f"kill switch thrown {_proven(body, entry)}: {body.get('reason')}"
    return {"event": "kill switch", "text": f"{text}; everybody is sent to {body.get('to')}"}


def _proven(body: Mapping[str, Any], entry: Entry) -> str:
    """Return who threw the switch, and how far that is proven."""
    by, how = body.get("by") or entry.actor, body.get("how")
    if how == FILE:
        return f"by hand, by {by}"
    if how == TOKEN:
        made = f", which {body['maker']} made" if body.get("maker") else ""
        return f"by token of {by}{made}"
    return f"by {by}" if body.get("verified", True) else f"by {by} (signature wrong)"


def _cleared(entry: Entry) -> Told:
    text = f"kill switch cleared by {entry.actor}: {entry.body.get('reason')}"
    return {"event": "kill cleared", "text": text}


def _drilled(entry: Entry) -> Told:
    took = entry.body.get("milliseconds")
    good = "passed" if entry.body.get("passed") else f"failed: {entry.body.get('why')}"
    return {"event": "drill", "text": f"rehearsed rollback {good}", "milliseconds": took}


def _returned(entry: Entry) -> Told:
    body = entry.body
    text = f"version {body['to']} answers {body['market']} again, not {body['from']}"
    took = body.get("milliseconds")
    return {"event": "returned", "text": f"{text}: {body['reason']}", "milliseconds": took}


_OF_WORKLOAD = {KILL: _kill_switch, CLEARED: _cleared, DRILL: _drilled, BACK: _returned}
_TELLERS = {
    OPENED: _opened,
    INTENT: _decided,
    COMMAND: _commanded,
    APPROVAL: _answered,
    PAGED: _paged,
}


def explain(
    entries: Sequence[Entry], release: str, at: int | str | datetime | None = None
) -> dict[str, Any]:
    """Return a decision with everything it rested on, as the ledger keeps it.

    Args:
        at: Its number within the release; or a step's name: the last decision made there; or a
            time: the last decision before it; None: the last one.

    Raises:
        LookupError: There is no such release or decision; the text names what there is.
    """
    past = past_of(entries, release)
    entry = _chosen(past, at)
    body, before = entry.body, past.table_before(entry)
    slot = past.opened.body["challenger"]["slot"]
    kept = ("verdict", "rows", "segments", "effect", "critical", "summary", "fingerprint")
    return {
        "release": release,
        **_stamp(entry),
        **_decided(past, entry),
        **{name: body.get(name) for name in kept},
        "answers": _heeded(entries, body.get("answers")),
        "table_before": before,
        "table_after": body.get("table"),
        "share_before_percent": share_percent(before, slot),
        "plan_hash": past.opened.body["plan_hash"],
    }


def _heeded(entries: Sequence[Entry], sequence: int | None) -> Told | None:
    """Return the command or approval that a decision heeds."""
    found = next((e for e in entries if e.sequence == sequence), None)
    return None if found is None else {**_stamp(found), "kind": found.kind, "body": found.body}


def _chosen(past: Past, at: int | str | datetime | None) -> Entry:
    found = [e for e in past.intents if _is_meant(past, e, at)]
    if found:
        return found[-1]
    numbers = ", ".join(_numbered(past)) or "none was made yet"
    raise LookupError(f"no decision {at!r} in {past.release}; there are: {numbers}.")


def _is_meant(past: Past, entry: Entry, at: int | str | datetime | None) -> bool:
    if at is None:
        return True
    if isinstance(at, datetime):
        return datetime.fromisoformat(entry.at) <= at
    if isinstance(at, int):
        return entry.body["n"] == at
    return past.step_name(past.step_before(entry)) == at


def _numbered(past: Past) -> Iterator[str]:
    for entry in past.intents:
        left = past.step_name(past.step_before(entry))
        at = "before the first step" if left is None else f"at {left}"
        yield f"{entry.body['n']} {entry.body['action']} ({at})"
