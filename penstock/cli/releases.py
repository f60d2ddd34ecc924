"""Seeing releases: where they stand, why anything was decided, their timeline, all there were."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from penstock.bundle import write_text
from penstock.cli.home import Home, home, shown
from penstock.cli.releaseview import OUTCOMES, clock, decision, headline, screen
from penstock.cli.screen import plain, terminal
from penstock.ledger import Entry, Ledger
from penstock.report.documents import html
from penstock.report.release import release_page
from penstock.rollout import folding, telling
from penstock.rollout.history import explain as explained
from penstock.rollout.looks import looks_folder, read_looks
from penstock.rollout.notify import CURSOR, delivery
from penstock.workload import UnknownWorkload, load

NO_RELEASE, ENDED_BADLY, PERSON = 1, 5, 6
"""Exit codes of ``status``, besides 0: it goes on by itself, or was promoted."""

BAD = frozenset(OUTCOMES) - {"DONE"}

TICKING = frozenset({"looked_at", "looked_s_ago", "in_step_s", "soak_left_s", "deadline_left_s"})
"""What of a release changes though nothing happens."""

NONE = "no release yet; begin one: penstock run WORKLOAD"

EVERY_S = 1.0
"""Between two looks of ``--watch``."""

Told = dict[str, Any]
Name = Annotated[str | None, typer.Argument(help="Workload; all where none is named.")]
Market = Annotated[str | None, typer.Option(help="Of this market alone.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]


def status(
    workload: Name = None,
    market: Market = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option(help="Go on until every release has ended.")] = False,
) -> None:
    """Show where releases stand: evidence, time left, what comes next, who must act.

    Example: penstock release status digits --watch

    Exit codes: 0 goes on by itself, or was promoted; 1 there is no release; 2 wrong call; 5 the
    newest was rolled back, failed or killed; 6 a person must act.
    """
    held, console = home(), terminal()
    ledger = held.ledger(looking=True)
    try:

        def look() -> list[Told]:
            return _statuses(held, ledger, workload, market)

        found = _watched(console, look, as_json=as_json) if watch else look()
        if not watch:
            _print(console, found, held, as_json=as_json)
    finally:
        ledger.close()
    raise typer.Exit(_code(found))


def _statuses(held: Home, ledger: Ledger, workload: str | None, market: str | None) -> list[Told]:
    """Return what each release on its way is doing; where none is, of each market the newest."""
    entries = ledger.entries(workload)
    now = datetime.now(UTC)
    found: list[Told] = []
    for name in folding.releases(entries):
        state = folding.fold(entries, name)
        if market in (None, state.market):
            looks = read_looks(looks_folder(held.path, name))
            live = looks[-1] if looks else None
            own = [e for e in entries if e.workload == state.workload]
            found.append(telling.status(own, state, now=now, live=live))
    going = [told for told in found if not told["ended"]]
    newest = {(told["workload"], told["market"]): told for told in found}
    return going or list(newest.values())


def _watched(console: Console, look: Callable[[], list[Told]], *, as_json: bool) -> list[Told]:
    """Show releases until all have ended; an interrupt ends the watching alone."""
    found = look()
    with suppress(KeyboardInterrupt):
        if console.is_terminal and not as_json:
            with _live(console, found) as live:
                while not all(told["ended"] for told in found):
                    time.sleep(EVERY_S)
                    found = look()
                    live.update(_screens(found), refresh=True)
            return found
        if not found:
            typer.echo(NONE, err=True)
        said: list[Told] = []
        while found:
            steady = [_steady(told) for told in found]
            if steady != said:
                typer.echo("\n".join(_line(told, as_json=as_json) for told in found))
            said = steady
            if all(told["ended"] for told in found):
                break
            time.sleep(EVERY_S)
            found = look()
    return found


def _steady(told: Told) -> Told:
    """Return what is told of a release without what only the clock changes."""
    time_ = told["time"] and {k: v for k, v in told["time"].items() if k not in TICKING}
    return {k: v for k, v in told.items() if k not in TICKING} | {"time": time_}


def _live(console: Console, found: Sequence[Told]) -> Live:
    """Return the screen that is drawn anew; one that is longer than the terminal is not cut."""
    return Live(_screens(found), console=console, auto_refresh=False, vertical_overflow="visible")


def _line(told: Told, *, as_json: bool) -> str:
    """Return one release in one line: for programs all of it, for people where it stands."""
    if as_json:
        return json.dumps(told, allow_nan=False)
    ahead = told["next"]
    after = told["reason"] if ahead is None else f"waits for {ahead['waits_for'] or 'nothing'}"
    return plain(f"{told['release']}  {headline(told)}  {after}").plain


def _print(console: Console, found: Sequence[Told], held: Home, *, as_json: bool) -> None:
    notified = delivery(held.path / "serving" / CURSOR)
    if as_json:
        document = {"format": telling.FORMAT, "releases": found, "notifications": notified}
        typer.echo(json.dumps(document, indent=1, allow_nan=False))
        return
    console.print(_screens(found))
    if notified["problem"]:
        console.print(plain(f"notifications: {notified['problem']}", style="bold red"))


def _screens(found: Sequence[Told]) -> RenderableType:
    if not found:
        return Text(NONE)
    blocks: list[RenderableType] = []
    for told in found:
        blocks += [screen(told), Text()]
    return Group(*blocks[:-1])


def _code(found: Sequence[Told]) -> int:
    if not found:
        return NO_RELEASE
    if any(told["must_act"] for told in found):
        return PERSON
    return ENDED_BADLY if any(told["phase"] in BAD for told in found) else 0


def explain(
    workload: Annotated[str, typer.Argument(help="Workload, or a release as digits/2/all/1.")],
    version: Annotated[int | None, typer.Argument(help="The newest release where none.")] = None,
    at: Annotated[
        str | None, typer.Option(help="Number of a decision, a step's name, or a time in UTC.")
    ] = None,
    market: Market = None,
    as_json: AsJson = False,
) -> None:
    """Tell a past decision with the numbers it rested on; the last one where none is named.

    Example: penstock release explain digits 2 --at 'canary 10 %'

    Exit codes: 0 told; 2 there is no such release or decision.
    """
    entries = _entries(workload.split("/")[0])
    name = chosen(entries, workload, version, market)
    told = explained(entries, name, _moment(at))
    if as_json:
        typer.echo(json.dumps(told, indent=1, allow_nan=False))
        return
    terminal().print(decision(told))


def _moment(at: str | None) -> int | str | datetime | None:
    """Return what is meant: a decision's number, a time, or a step's name."""
    if at is None or at.isdecimal():
        return None if at is None else int(at)
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return at
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _entries(workload: str | None) -> list[Entry]:
    ledger = home().ledger(looking=True)
    try:
        return ledger.entries(workload)
    finally:
        ledger.close()


def chosen(entries: Sequence[Entry], workload: str, version: int | None, market: str | None) -> str:
    """Return the newest release of a workload, as narrow as it is asked for.

    Args:
        workload: Or a release's whole name.

    Raises:
        LookupError: There is none; the text names what there is.
    """
    names = folding.releases(entries)
    if "/" in workload:
        return workload
    found = [n for n in names if _fits(n, version, market)]
    if not found:
        known = ", ".join(names) or f"none yet; begin one: penstock run {workload}"
        raise LookupError(f"no such release of {workload}; there are: {known}.")
    return found[-1]


def _fits(name: str, version: int | None, market: str | None) -> bool:
    _, number, branch, _ = name.split("/")
    return version in (None, int(number)) and market in (None, branch)


def timeline(
    workload: Annotated[str, typer.Argument(help="Workload, or a release as digits/2/all/1.")],
    version: Annotated[int | None, typer.Argument(help="The newest release where none.")] = None,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("release.html"),
    market: Market = None,
) -> None:
    """Write a release as one page: plots of its evidence, every step and decision, who approved.

    Example: penstock release timeline digits 2 --out release.html

    Exit codes: 0 written; 2 there is no such release.
    """
    held = home()
    entries = _entries(workload.split("/")[0])
    name = chosen(entries, workload, version, market)
    looks = read_looks(looks_folder(held.path, name))
    told = telling.timeline(entries, name, looks, now=datetime.now(UTC))
    write_text(out, html(release_page(told, title=_title(name))))
    typer.echo(f"wrote {shown(str(out))}")


def _title(release: str) -> str:
    """Return the name of a release's workload for people; its own where none is declared now."""
    workload = release.split("/", maxsplit=1)[0]
    try:
        return load(workload).title
    except UnknownWorkload:
        return workload


def list_(workload: Name = None, as_json: AsJson = False) -> None:
    """List releases, the oldest first.

    Example: penstock release list digits

    Exit codes: 0 listed; 1 there is none.
    """
    entries = _entries(workload)
    rows = [telling.listed(entries, name) for name in folding.releases(entries)]
    if as_json:
        typer.echo(json.dumps({"format": telling.FORMAT, "releases": rows}, indent=1))
    else:
        _draw_list(rows)
    if not rows:
        raise typer.Exit(NO_RELEASE)


def _draw_list(rows: Sequence[Told]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("release", "opened", "", "share", "strikes"):
        table.add_column(name, overflow="fold")
    for row in rows:
        where = OUTCOMES.get(row["phase"]) or row["step"] or "getting ready"
        share, strikes = f"{row['share_percent']:.3g} %", row["strikes"]
        table.add_row(*map(plain, (row["release"], clock(row["opened_at"]), where, share, strikes)))
    terminal().print(table if rows else Text(NONE))
