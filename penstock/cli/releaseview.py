"""One release on one screen of 80 columns: where it stands, what it rests on, who must act."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.cli.screen import plain
from penstock.report.evidence import MARKS, interval, lasting, limit, users

Told = Mapping[str, Any]

TONES = {
    "pass": "green",
    "inconclusive": "yellow",
    "error": "red",
    "fail": "red",
    "DONE": "bold green",
    "ROLLED_BACK": "bold magenta",
    "FAILED": "bold red",
    "KILLED": "bold red",
    "AWAIT": "bold yellow",
    "PAUSED": "bold yellow",
    "STEPPED_BACK": "bold yellow",
}

STAGES = {"done": "✓", "now": "▶", "to come": "·", "ended here": "✗", "not reached": "·"}

OUTCOMES = {
    "DONE": "promoted",
    "ROLLED_BACK": "rolled back",
    "FAILED": "failed",
    "KILLED": "killed",
}
"""What people call the phases that a release ends in."""


def headline(told: Told) -> str:
    """Return where a release stands in one line."""
    where = OUTCOMES.get(told["phase"]) or told["step"] or "getting ready"
    if told["phase"] in ("AWAIT", "PAUSED", "STEPPED_BACK"):
        where += {"AWAIT": ", waits for an approval", "PAUSED": ", paused",
                  "STEPPED_BACK": ", stepped back"}[told["phase"]]  # fmt: skip
    return f"{where}: {told['share_percent']:.3g} % of users"


def screen(told: Told) -> RenderableType:
    """Return everything of one release."""
    blocks: list[RenderableType] = [_title(told), _steps(told), Text(), _facts(told)]
    if told["evidence"]:
        blocks += [Text(), _evidence_head(told), _evidence(told["evidence"])]
    return Group(*blocks, Text(), _after(told))


def _title(told: Told) -> Text:
    version, before = told["challenger"]["version"], told["champion"]
    over = "the first version" if before is None else f"over version {before['version']}"
    title = plain(f"{told['release']}", style="bold")
    title.append(f"  version {version}, {over}\n")
    return title.append(headline(told), style=TONES.get(told["phase"], "bold"))


def _steps(told: Told) -> Text:
    # The share says enough of a later step, and all of them fit in a line.
    names = [s["name"].removeprefix("progressive ") for s in told["steps"]]
    marks = [f"{STAGES[s['is']]} {n}" for s, n in zip(told["steps"], names, strict=True)]
    return plain("   ".join(marks), style="dim")


def _grid(width: int) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", width=width, no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _facts(told: Told) -> Table:
    table = _grid(10)
    for name, said in _said(told):
        table.add_row(name, plain(said))
    return table


def _said(told: Told) -> Iterator[tuple[str, str]]:
    time, counted = told["time"], told["users"]
    if time is not None:
        soaked = "over" if not time["soak_left_s"] else f"{lasting(time['soak_left_s'])} left"
        yield "soak", f"{lasting(time['soak_s'])}, {soaked}"
        yield "deadline", f"in {lasting(time['deadline_left_s'])}, at {clock(time['deadline_at'])}"
    if counted is not None:
        needed = "" if not counted["needed"] else f"; {counted['needed']:,} of each are needed"
        arms = [
            f"{counted[a]:,} {a}" for a in ("challenger", "champion") if counted.get(a) is not None
        ]
        yield "users", ", ".join(arms) + needed
    yield "strikes", f"{len(told['strikes'])} of 2"
    if told["standby_ready"] is not None:
        yield "standby", "ready" if told["standby_ready"] else "NOT READY"
    yield "drill", _drill(told["drill"])
    if told["killed"]:
        yield "kill", told["killed"]


def _drill(drill: Told) -> str:
    if drill["due"]:
        return f"DUE: {drill['due']}"
    return "none yet" if drill["last_at"] is None else f"last on {drill['last_at'][:10]}"


def _evidence_head(told: Told) -> Text:
    step, ago = told["evidence_step"], told["looked_s_ago"]
    outcome = told["outcome"] or "none"
    head = Text.assemble("Evidence: ", (outcome, TONES.get(outcome, "")))
    head.append(plain(f" at {step or 'no step'}, {lasting(ago)} ago", style="dim"))
    if told["stale"]:
        head.append("\nnobody has looked since: is a controller running?", style="bold red")
    return head


def _evidence(rows: Sequence[Told]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    table.add_column("", width=1)
    table.add_column("check", overflow="fold", max_width=24)
    table.add_column(Text("found [low, high]"), overflow="fold")
    table.add_column("limit", overflow="fold")
    table.add_column("users/needed", overflow="fold", justify="right")
    for row in rows:
        tone = TONES.get(row["outcome"], "")
        found = interval(row) or str(row.get("reason") or "nothing measured")
        mark = Text(MARKS.get(row["outcome"], "·"), style=tone)
        table.add_row(mark, *map(plain, (row["name"], found, limit(row), users(row))))
    return table


def _after(told: Told) -> Table:
    table = _grid(10)
    ahead = told["next"]
    if ahead is None:
        table.add_row("because", plain(told["reason"]))
    else:
        when = "" if ahead["at"] is None else f", by {clock(ahead['at'])}"
        waits = f"; it waits for: {ahead['waits_for']}" if ahead["waits_for"] else ""
        table.add_row("next", plain(f"{ahead['decision']}{waits}{when}"))
        table.add_row("", plain(ahead["why"], style="dim"))
    for strike in told["strikes"]:
        table.add_row(
            "strike", plain(f"at {strike['left']}, {clock(strike['at'])}: {strike['why']}")
        )
    for ask in told["must_act"]:
        table.add_row(Text("must act", style="bold yellow"), plain(f"{ask['who']}: {ask['why']}"))
        table.add_row("", plain(ask["command"], style="bold"))
    for command in told["commands"]:
        asked = f"{command['command']}, asked by {command['actor']}, is heeded at the next look"
        table.add_row("asked", plain(asked))
    return table


def clock(moment: str) -> str:
    """Return a time of day in UTC, with its date."""
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M:%S}"


def decision(told: Told) -> RenderableType:
    """Return a past decision with everything it rested on."""
    table = _grid(10)
    for name, said in _decided(told):
        if said:
            table.add_row(name, plain(said))
    blocks: list[RenderableType] = [plain(told["text"], style="bold"), Text(), table]
    if told["rows"]:
        blocks += [Text(), Text("Evidence it rested on"), _evidence(told["rows"])]
    return Group(*blocks)


def _decided(told: Told) -> Iterator[tuple[str, str]]:
    yield "release", f"{told['release']}, decision {told['n']}, entry {told['sequence']}"
    yield "decided", f"{clock(told['at'])} by {told['actor']}"
    yield "action", f"{told['action']}" + (f": {told['step']}" if told["step"] else "")
    yield "verdict", told["outcome"] or "none was needed"
    yield "effect", told["effect"] or ""
    yield "why", told["why"]
    if told["critical"]:
        said = told["critical"]
        yield "critical", "it did not wait for a second strike" if said is True else str(said)
    if told["answers"]:
        heeded = told["answers"]
        yield "heeded", f"{heeded['kind']} of {heeded['actor']}, entry {heeded['sequence']}"
    before, after = told["share_before_percent"], told["share_percent"]
    if after is not None:
        yield "share", f"{0 if before is None else before:.3g} % → {after:.3g} % of users"
    took = told["milliseconds"]
    in_force = told["in_force_at"]
    back = (
        "not yet" if in_force is None else f"{clock(in_force)}" + (f", {took:g} ms" if took else "")
    )
    yield "in force", back
    yield "hash", told["hash"]
