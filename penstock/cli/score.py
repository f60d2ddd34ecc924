"""``penstock score``: how ready a workload is for production, test by test, with the evidence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock import storage
from penstock.bundle import Bundle, BundleError, write_text
from penstock.cli.home import home
from penstock.cli.screen import terminal
from penstock.ledger import Entry, LedgerError, NoLedger, package_of
from penstock.ledger.standing import Standing, Standings, standings
from penstock.register import score as scores
from penstock.report import documents
from penstock.report.score import page, scored
from penstock.workload import load_data, root

COLOURS = {1.0: "green", 0.5: "yellow", 0.0: "red"}


@dataclass
class _Found:
    """What there is to score, and what is said of what there is not."""

    entries: Sequence[Entry] = ()
    standing: Standings = field(default_factory=dict[str, Standing])
    package: Bundle | None = None
    version: int | None = None
    notes: list[str] = field(default_factory=list[str])


def score(
    workload: Annotated[str, typer.Argument(help="Folder below workloads/.")],
    package: Annotated[
        Path | None,
        typer.Option(help="Folder of a package; otherwise the champion's, or the newest."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the score as JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="HTML file to write.")] = None,
) -> None:
    """Score a workload by the ML Test Score: 28 tests, each with its evidence or what is missing.

    Example: penstock score digits --out score.html
    """
    declared = load_data(workload)
    found = _find(workload, package)
    pieces = scores.gather(
        declared, found.package, found.entries, standing=found.standing, root=root()
    )
    document = {
        "workload": workload,
        "title": declared.title,
        "version": found.version,
        "package": None if found.package is None else found.package.fingerprint,
        "notes": found.notes,
        **scores.score(pieces).to_dict(),
    }
    if as_json:
        typer.echo(json.dumps(document, indent=1))
    else:
        _print(terminal(), document)
    if out is not None:
        _write(out, document)


def _find(workload: str, package: Path | None) -> _Found:
    found = _Found()
    try:
        found.entries, found.standing = _entries(workload)
    except LedgerError as e:
        found.notes.append(f"The ledger gives no credit: {e}")
    found.version = None if package else scores.choose(found.entries)
    try:
        path = package if found.version is None else _registered(found.entries, found.version)
        if path is not None:
            found.package = scores.opened(path, found.entries, version=found.version)
    except BundleError as e:
        found.notes.append(f"The package gives no credit: {e}")
        return found
    if found.package is None:
        found.notes.append(
            f"No version of {workload} is registered here, so only its declaration and this "
            f"repository are scored; penstock run {workload} makes one."
        )
        return found
    if found.version is None:
        found.version = scores.version_of(found.package, found.entries)
    if (fault := scores.rehearsal_of(found.package)) is not None:
        found.notes.append(f"The version is a rehearsal, deliberately broken ({fault}).")
    return found


def _registered(entries: Sequence[Entry], version: int) -> Path:
    """Return the folder of the package that the ledger has of the version.

    Raises:
        BundleError: The entry names no folder.
    """
    try:
        return storage.local(package_of(entries, version))
    except (KeyError, TypeError) as e:
        raise BundleError(
            f"the entry that registered version {version} names no folder; register it anew."
        ) from e


def _entries(workload: str) -> tuple[list[Entry], Standings]:
    """Return a workload's entries after checking the whole ledger; a missing one is not made."""
    try:
        ledger = home().ledger(looking=True)
    except NoLedger:
        return [], {}
    try:
        ledger.verify()
        return ledger.entries(workload), standings(ledger)
    finally:
        ledger.close()


def _print(console: Console, document: dict[str, Any]) -> None:
    console.print()
    title = f"{document['title']}: ML Test Score {document['minimum']:g}, of the weakest section"
    console.print(_text(title, style="bold"))
    console.print(_text(scored(document), style="dim"))
    for note in document["notes"]:
        console.print(_text(note, style="yellow"))
    for section in document["sections"]:
        console.print()
        told = f"{section['name']}  {section['points']:g} of {len(section['tests'])}"
        console.print(_text(told, style="bold"))
        console.print(_table(section["tests"], inside=f"{document['package']}/"))


def _table(tests: list[dict[str, Any]], *, inside: str) -> Table:
    """Return the tests of a section; what lies in the package that is named above is short."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=3, justify="right")
    table.add_column(ratio=2)
    table.add_column(ratio=3, overflow="fold")
    table.expand = True
    for test in tests:
        mark = Text(f"{test['mark']:g}", style=COLOURS[test["mark"]])
        said = _text((test["evidence"] or "").replace(inside, ""))
        if test["earn"]:
            said.append(f"{'; ' if test['evidence'] else ''}missing: {test['earn']}", style="dim")
        table.add_row(mark, _text(test["asks"]), said)
    return table


def _text(said: str, *, style: str = "") -> Text:
    """Return what files and entries say as it is: no markup, nothing that steers a terminal."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in said), style)


def _write(out: Path, document: dict[str, Any]) -> None:
    write_text(out, documents.html(page(document)))
    typer.echo(f"wrote {out}", err=True)
