"""What a person sees while a package comes from a store: a bar, on a terminal and only there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from penstock.storage import Heard, Moved


@contextmanager
def bar(console: Console, what: str = "fetching the package") -> Iterator[Heard | None]:
    """Yield who may be told how far a transfer is; None where no terminal shows it.

    The bar comes with the first bytes, so that a copy that is here already shows none, and goes
    away at the end.
    """
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    shown = Progress(*columns, console=console, transient=True)
    task = shown.add_task(what, total=None)

    def heard(moved: Moved) -> None:
        shown.start()
        shown.update(task, completed=moved.done, total=moved.total)

    try:
        yield heard
    finally:
        shown.stop()
