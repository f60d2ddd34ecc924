"""``penstock release approve, refuse, attach, documents``: a person's part in a release."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

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
from penstock.rollout.plan import Plan
from penstock.rollout.state import State
from penstock.stage import Refused
from penstock.workload import load

Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing; for scripts on a terminal.")]


def approve(release: Release, reason: Reason, key: Key = None, yes: Yes = False) -> None:
    """Let a release into the step that it waits for.

    Example: penstock release approve credit/3/eu/1 --reason 'calibrated everywhere' --key ann.pem

    It binds to the evidence, package, policy and documents as they are shown; on a terminal you are
    asked whether that is what you mean. Exit codes: 0 approved; 1 you said no; 2 wrong call; 3
    nothing waits, or who acts is not independent.
    """
    with opened() as (held, ledger):
        state, plan, request = _asked(ledger, release)
        _confirm(request, "approve", yes=yes)
        actor, now = acting(held, key), datetime.now(UTC)
        entry = approvals.grant(
            ledger, state, plan, reason=reason, actor=actor, now=now, seen=request
        )
    _show_answer(entry)


def refuse(release: Release, reason: Reason, key: Key = None, yes: Yes = False) -> None:
    """Refuse the step that a release waits for: the release ends, its users go back.

    Example: penstock release refuse credit/3/eu/1 --reason 'too few over fifty' --key ann.pem
    """
    with opened() as (held, ledger):
        state, plan, request = _asked(ledger, release)
        _confirm(request, "refuse", yes=yes)
        actor, now = acting(held, key), datetime.now(UTC)
        entry = approvals.refuse(ledger, state, plan, reason=reason, actor=actor, now=now)
    _show_answer(entry)


def _asked(ledger: Ledger, release: str) -> tuple[State, Plan, Request]:
    """Return what a release asks for now."""
    entries = ledger.entries(workload_of(release))
    state = chosen(entries, release)
    plan = plan_for(entries, state)
    return state, plan, approvals.request_of(state, plan, entries)


def is_asked() -> bool:
    """Return whether somebody is there to answer a question."""
    return sys.stdin.isatty()


def _confirm(request: Request, verb: str, *, yes: bool) -> None:
    """Show what would be signed, and on a terminal ask for a yes.

    Raises:
        typer.Abort: It was not given.
    """
    if yes or not is_asked():
        return
    _grid(_bound(request.to_dict()))
    typer.confirm(f"{verb} this?", abort=True)


def _show_answer(entry: Entry) -> None:
    """Show what was signed: of the entry, not of what is there by now."""
    until = entry.body.get("expires")
    verb = "approved" if entry.body["granted"] else "refused"
    _grid({
        f"{verb} by": f"{entry.actor}, entry {entry.sequence}",
        **_bound(entry.body["binds"]),
        "until": until[:16].replace("T", " ") if until else "for good: the release ends",
    })  # fmt: skip


def _bound(binds: Mapping[str, Any]) -> dict[str, str]:
    """Return all that an answer binds to, for people."""
    documents = (f"{name} {sha256[:12]}" for name, sha256 in binds["documents"].items())
    evidence = ", ".join(fingerprint[:12] for fingerprint in binds["fingerprints"])
    return {
        "step": f"{binds['step']} in {binds['market']}",
        "version": f"{binds['workload']} {binds['version']}, package {binds['digest'][7:19]}",
        "evidence": evidence or "none, it is the first step",
        "plan": binds["plan"][:12],
        "documents": ", ".join(documents) or "none",
    }


def _grid(rows: Mapping[str, str]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows.items():
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
