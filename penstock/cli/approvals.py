"""``penstock release approve, refuse, attach, documents``: a person's part in a release."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from penstock import registered
from penstock.cli.asked import (
    Key,
    Reason,
    Release,
    Version,
    acting,
    chosen,
    opened,
    plan_for,
    version_of,
    workload_of,
)
from penstock.cli.screen import plain, terminal
from penstock.ledger import Actor, Entry, Ledger
from penstock.rollout import approvals, prohibited
from penstock.rollout.approvals import Request
from penstock.rollout.documents import attach as keep
from penstock.rollout.documents import newest, wrong
from penstock.stage import Refused
from penstock.workload import load


def approve(release: Release, reason: Reason, key: Key = None) -> None:
    """Let a release into the step that it waits for.

    Example: penstock release approve credit/3/eu/1 --reason 'calibrated everywhere' --key ann.pem

    It binds to the evidence, package, policy and documents as they are now. Exit codes: 0 approved;
    2 wrong call; 3 nothing waits, or who acts is not independent.
    """
    _answer(release, reason, key, granted=True)


def refuse(release: Release, reason: Reason, key: Key = None) -> None:
    """Refuse the step that a release waits for: the release ends, its users go back.

    Example: penstock release refuse credit/3/eu/1 --reason 'too few over fifty' --key ann.pem
    """
    _answer(release, reason, key, granted=False)


def _answer(release: str, reason: str, key: Path | None, *, granted: bool) -> None:
    with opened() as (held, ledger):
        entries = ledger.entries(workload_of(release))
        state = chosen(entries, release)
        plan = plan_for(entries, state)
        give = approvals.grant if granted else approvals.refuse
        actor, now = acting(held, key), datetime.now(UTC)
        entry = give(ledger, state, plan, reason=reason, actor=actor, now=now)
    _show(approvals.request_of(state, plan, entries), entry)


def _show(request: Request, entry: Entry) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    until = entry.body.get("expires")
    verb = "approved" if entry.body["granted"] else "refused"
    for name, value in {
        f"{verb} by": f"{entry.actor}, entry {entry.sequence}",
        "step": f"{request.step} in {request.market}",
        "version": f"{request.workload} {request.version}, package {request.digest[7:19]}",
        "evidence": ", ".join(f[:12] for f in request.fingerprints) or "none, it is the first step",
        "plan": request.plan[:12],
        "documents": ", ".join(f"{n} {h[:12]}" for n, h in request.documents.items()) or "none",
        "until": until[:16].replace("T", " ") if until else "for good: the release ends",
    }.items():
        grid.add_row(plain(name), plain(value))
    terminal().print(grid)


def attach(
    version: Version,
    name: Annotated[str, typer.Argument(help="What it is, as the market's policy names it.")],
    file: Annotated[
        Path | None, typer.Argument(help="The document; of a check's result, leave it out.")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="Further name that no feature may have; repeatable.")
    ] = None,
    key: Key = None,
) -> None:
    """Attach a document that a market asks for; a copy is kept by its hash below the home.

    Example: penstock release attach credit/3 dpia assessment.pdf

    Example: penstock release attach credit/3 prohibited-features
    """
    workload, number = version_of(version)
    asked = {d: m.name for m in load(workload).rollout.markets for d in m.documents}
    if name not in asked:
        wanted = ", ".join(asked) or "no documents"
        raise ValueError(f"no market of {workload} asks for {name!r}; they ask for {wanted}.")
    with opened() as (held, ledger):
        actor, now = acting(held, key), datetime.now(UTC)
        if name == prohibited.NAME:
            entry = _computed(held.path, ledger, workload, number, file, also or [], actor, now)
        elif file is None:
            raise ValueError(f"{name} is a document; name its file.")
        else:
            entry = keep(held.path, ledger, workload, number, name, file, actor=actor, now=now)
    said = f", {entry.body['outcome']}" if "outcome" in entry.body else ""
    typer.echo(
        f"entry {entry.sequence}: {name} of {workload} {number}, sha256 "
        f"{entry.body['sha256'][:12]}{said}"
    )


def _computed(
    home: Path,
    ledger: Ledger,
    workload: str,
    version: int,
    file: Path | None,
    also: list[str],
    actor: Actor,
    now: datetime,
) -> Entry:
    """Carry out the check and keep its result."""
    if file is not None:
        raise Refused(f"{prohibited.NAME} is the result of a check, not a file; leave it out.")
    package = registered.package(ledger.entries(workload), version)
    found = prohibited.check(load(workload), package, also=also)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / f"{prohibited.NAME}.json"
        made.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        return keep(
            home, ledger, workload, version, prohibited.NAME, made,
            actor=actor, now=now, outcome=found["outcome"], computed=True,
        )  # fmt: skip


def documents(version: Version) -> None:
    """Show the documents that the markets ask for, and which of them lack.

    Example: penstock release documents credit/3

    Exit codes: 0 all are there; 1 one lacks; 2 wrong call.
    """
    workload, number = version_of(version)
    markets = load(workload).rollout.markets
    with opened() as (_, ledger):
        entries = ledger.entries(workload)
    registered.registration(entries, number)
    known, missing = newest(entries, number), False
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("document", "asked by", "attached", "by", "sha256", ""):
        table.add_column(column, overflow="fold")
    for name in dict.fromkeys(d for m in markets for d in m.documents):
        asked = ", ".join(m.name for m in markets if name in m.documents)
        why = wrong(entry := known.get(name))
        missing |= bool(why)
        facts = ("", "", "")
        if entry is not None:
            facts = (entry.at[:16].replace("T", " "), entry.actor, entry.body["sha256"][:12])
        table.add_row(
            *map(plain, (name, asked, *facts)), plain(why or "ok", style="red" * bool(why))
        )
    terminal().print(table)
    if missing:
        raise typer.Exit(1)
