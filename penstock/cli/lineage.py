"""The ``lineage`` verbs: what a version is, what changed between two, and whether it repeats."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from penstock import registered
from penstock import workload as workloads
from penstock.cli import shown
from penstock.cli.home import HomeError, home
from penstock.cli.screen import Screen, terminal
from penstock.cli.transfers import bar
from penstock.ledger import REGISTERED, Entry, NoLedger
from penstock.register.differ import diff as difference
from penstock.register.differ import made
from penstock.register.lineage import incomplete
from penstock.register.openlineage import events
from penstock.register.reconcile import wanted_aliases
from penstock.register.reproduce import reproduce as make_again

app = typer.Typer(
    help="What a version is, what changed between two, and its export.", no_args_is_help=True
)

Workload = Annotated[str, typer.Argument(help="Folder below workloads/.")]
Which = Annotated[str, typer.Argument(help="Number, or champion, standby, challenger.")]


@app.command()
def show(workload: Workload, version: Which = "champion") -> None:
    """Show what a version is, why it was let through, by whom, and what made it.

    Example: penstock lineage show digits
    """
    console = terminal()
    with _entries(workload) as entries:
        number = version_of(entries, version)
        with bar(console) as heard:
            package = registered.package(entries, number, heard=heard)
    lineage = package.json("lineage.json")
    title = workloads.load_data(workload).title
    console.print(Text(f"{title}, version {number}: {shown.serves(entries, number)}", style="bold"))
    console.print(shown.facts(package, lineage))
    console.print(shown.history(entries, number))
    for missing in incomplete(lineage):
        console.print(f"missing: {missing}", style="yellow")


@app.command()
def diff(
    workload: Workload,
    first: Which,
    second: Which,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
) -> None:
    """Show what changed from one version to another, and what most likely moved the metric.

    Example: penstock lineage diff digits standby champion
    """
    with _entries(workload) as entries, bar(terminal()) as heard:
        packages = [
            made(registered.package(entries, number, heard=heard), name=f"version {number}")
            for number in (version_of(entries, given) for given in (first, second))
        ]
    found = difference(*packages)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    console = terminal()
    console.print(Text(found.headline, style="bold"))
    console.print(found.conclusion)
    if found.changes:
        console.print(shown.changes(found))
    for line in shown.commits(*(p.lineage for p in packages)):
        console.print(f"  {line}", style="dim")


@app.command()
def export(
    workload: Workload,
    version: Which,
    out: Annotated[Path, typer.Option(help="File to write, one event a line.")],
    repository: Annotated[str, typer.Option(help="Web address of the sources.")] = "",
) -> None:
    """Write a version's lineage as OpenLineage run events.

    Example: penstock lineage export digits champion --out lineage.jsonl
    """
    if out.exists():
        raise ValueError(f"{out} exists; name a file that does not.")
    with _entries(workload) as entries, bar(terminal()) as heard:
        number = version_of(entries, version)
        package = registered.package(entries, number, heard=heard)
    lines = [json.dumps(event, sort_keys=True) for event in events(package, repository=repository)]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    typer.echo(f"wrote {len(lines)} events of version {number} to {out}")


def reproduce(
    workload: Workload,
    version: Which = "champion",
    anyway: Annotated[
        bool, typer.Option(help="Go on where code, environment or data are others.")
    ] = False,
) -> None:
    """Make a version again from its lineage and compare the contents of every stage.

    Example: penstock reproduce digits 3

    Exit codes: 0 all the same; 1 something differs; 2 wrong call; 3 it cannot be made as recorded.
    """
    console = terminal()
    with _entries(workload) as entries, bar(console) as coming:
        number = version_of(entries, version)
        package = registered.package(entries, number, heard=coming)
    screen = Screen(console)

    def heard(stage: str, seconds: float | None) -> None:
        if seconds is None:
            screen.working(stage)
        else:
            screen.done(stage, seconds, "", "")

    with tempfile.TemporaryDirectory(prefix="penstock-reproduce-") as scratch:
        try:
            found = make_again(
                package.json("lineage.json"),
                root=workloads.root(),
                scratch=Path(scratch),
                anyway=anyway,
                heard=heard,
            )
        finally:
            screen.stop()
    console.print(shown.reproduced(found, number))
    for line in found.differs:
        console.print(f"not as recorded: {line}", style="yellow")
    console.print(Text(shown.said(found, number), style="green" if found.same else "red"))
    if not found.same:
        raise typer.Exit(1)


def version_of(entries: Sequence[Entry], given: str) -> int:
    """Return the number of a version that is named by it or by an alias.

    Raises:
        LookupError: There is no such version.
    """
    numbers = {e.version for e in entries if e.kind == REGISTERED and e.version is not None}
    if given.isdecimal() and int(given) in numbers:
        return int(given)
    named = wanted_aliases(entries)
    found = named.get(given)
    if found is None:
        held = ", ".join(map(str, sorted(numbers))) or "none"
        aliases = ", ".join(f"{name} {v}" for name, v in named.items() if v is not None)
        raise LookupError(
            f"there is no version {given!r}; registered are {held}"
            + (f" ({aliases})." if aliases else ".")
        )
    return found


@contextmanager
def _entries(workload: str) -> Iterator[list[Entry]]:
    """Yield the workload's ledger entries.

    Raises:
        HomeError: Nothing was ever registered here.
    """
    workloads.load_data(workload)
    nothing = f"no version of {workload} is registered; type: penstock run {workload}"
    try:
        ledger = home().ledger(looking=True)
    except NoLedger as e:
        raise HomeError(nothing) from e
    try:
        entries = ledger.entries(workload)
        if not any(e.kind == REGISTERED for e in entries):
            raise HomeError(nothing)
        yield entries
    finally:
        ledger.close()
