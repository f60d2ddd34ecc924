"""What a version is, what changed and what was made again, as tables for a screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from penstock import workload as workloads
from penstock.bundle import Bundle
from penstock.cli.screen import coloured, plain
from penstock.ledger import Entry, Stage, serving_order, stage_of
from penstock.machine import commits_between
from penstock.register.differ import Difference
from penstock.register.reproduce import Reproduction
from penstock.verdict import Verdict

SHOWN = 12
"""Changes on the screen; ``--json`` has all."""

LAST = 8
"""Ledger entries on the screen."""


def serves(entries: Sequence[Entry], number: int) -> str:
    """Return what a version serves now."""
    stage, order = stage_of(entries, number), serving_order(entries)
    if number in order:
        place = order.index(number)
        said = ("champion, it serves users", "standby, ready to take over")
        return said[place] if place < len(said) else "kept deployable, serves nobody"
    waiting = {
        Stage.NONE: "registered, not admitted; serves nobody",
        Stage.STAGING: "admitted, waits for its release; serves nobody",
        Stage.SHADOW: "in shadow; gets copies of requests, answers nobody",
        Stage.CANARY: "in canary; serves a share of users",
    }
    return waiting.get(stage, "archived; serves nobody any more")


def facts(package: Bundle, lineage: Mapping[str, Any]) -> Table:
    """Return why it was let through, and the fields that made it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    gate = Verdict.from_dict(package.json("verdicts/gate.json"))
    table.add_row("gate", Text.assemble(coloured(gate.outcome), plain(f": {gate.reason}")))
    for name, score in _scores(package.json("scores.json")):
        table.add_row(plain(name), score)
    profile, code = package.json("profile.json"), lineage["code"]
    period = " to ".join(profile["period"]) if profile["period"] else "of no known time"
    training = ", ".join(f"{k} {v}" for k, v in lineage["hyperparameters"].items() if v)
    here = lineage["environment"]
    libraries = ", ".join(f"{n} {v}" for n, v in here.get("libraries", {}).items())
    place = f"Python {here.get('python')} on {here.get('machine')}, {here.get('gpu') or 'no GPU'}"
    features = f"{lineage['feature_service']}, {len(lineage['features'])} definitions"
    for name, value in {
        "code": code["git"] or f"no commit; sources {code['sources']}",
        "data": f"{lineage['data']}, {profile['rows']} training rows, {period}",
        "features": f"{features} {lineage['feature_definitions'][7:19]}",
        "training": training,
        "seed": str(lineage["seed"]),
        "image": lineage["image"] or "made in no image",
        "environment": f"{place}; {libraries}",
        "trained by": lineage["trained_by"] or "not recorded",
        "owner": lineage["owner"],
        "package": f"{package.fingerprint}, {package.digest[7:19]}, graph {lineage['model'][7:19]}",
    }.items():
        table.add_row(name, plain(value))
    return table


def _scores(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, judged in scores["metrics"].items():
        if (own := judged["challenger"]) is not None:
            known = own["low"] is not None
            between = f" [{own['low']:.4f}, {own['high']:.4f}]" if known else ""
            yield name.replace("_", " "), f"{own['value']:.4f}{between} on {own['n']} rows"


def history(entries: Sequence[Entry], number: int) -> Table:
    """Return what was done with a version, by whom and why."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("at", "who", "what", "why"):
        table.add_column(name, overflow="fold")
    for entry in [e for e in entries if e.version == number][-LAST:]:
        what = entry.kind if entry.target is None else f"{entry.kind} to {entry.target}"
        why = str(entry.body.get("reason") or entry.body.get("why") or "")
        table.add_row(*map(plain, (entry.at[:19], entry.actor, what, why[:90])))
    return table


def changes(found: Difference) -> Table:
    """Return the table of what changed, what most likely matters first."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "what", "was → now", "as a cause"):
        table.add_column(name, overflow="fold")
    for place, change in enumerate(found.changes[:SHOWN], start=1):
        rank = str(place) if change.weight else "-"
        style = "" if change.weight else "dim"
        told = (f"{change.kind}: {change.what}", f"{change.was} → {change.now}", change.reason)
        table.add_row(rank, *map(plain, told), style=style)
    if (more := len(found.changes) - SHOWN) > 0:
        table.add_row("", f"and {more} more, see --json", "", "")
    return table


def commits(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    """Return the commits between two versions that changed sources of the workload."""
    old, new = ((side["code"]["git"] or "").partition("+")[0] for side in (one, two))
    if not old or not new or old == new:
        return []
    paths = ("penstock", "feature_repo", f"workloads/{two['workload']}")
    return commits_between(workloads.root(), old, new, paths)


def reproduced(found: Reproduction, number: int) -> Table:
    """Return the table of what was made again."""
    title = plain(f"version {number} again, from {found.sources}", style="table.title")
    table = Table(box=None, padding=(0, 2, 0, 0), title=title)
    for name in ("artifact", "recorded", "rebuilt", "same?", ""):
        table.add_column(name, overflow="fold")
    for row in found.rows:
        hashes = [h[7:19] if h else "-" for h in (row.recorded, row.rebuilt)]
        table.add_row(plain(row.artifact), *hashes, _same(row.same), plain(row.note))
    return table


def _same(found: bool | None) -> Text:
    if found is None:
        return Text("not compared")
    return Text("same", style="green") if found else Text("differs", style="red")


def said(found: Reproduction, number: int) -> str:
    """Return in a line whether it came out the same."""
    compared = [row for row in found.rows if row.same is not None]
    if found.same:
        return f"version {number} was made again: {len(compared)} artifacts, every content the same"
    first = next((row.artifact for row in compared if not row.same), "nothing was compared")
    return f"version {number} did not come out the same; first {first}"
