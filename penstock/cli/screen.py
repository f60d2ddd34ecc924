"""What a person sees while a run goes on: one line a stage, then one line a release step."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from penstock.release import EVERYWHERE

COLOURS = {
    "pass": "green",
    "inconclusive": "yellow",
    "error": "red",
    "fail": "red",
    "passed": "green",
    "strike": "magenta",
    "waiting": "yellow",
    "promoted": "green",
    "unchanged": "green",
    "rolled back": "magenta",
    "rejected": "red",
    "data refused": "red",
    "failed": "red",
    "interrupted": "yellow",
}

PIPED = 160
"""Columns of output that no terminal shows."""


def terminal() -> Console:
    """Return a console; what goes into a file or a pipe is not folded for a narrow screen."""
    plain = Console(highlight=False)
    if plain.is_terminal or "COLUMNS" in os.environ:
        return plain
    return Console(highlight=False, width=PIPED)


def plain(text: object, *, style: str = "", lines: bool = False) -> Text:
    """Return what others wrote as it is: no markup, and what would steer a terminal is spelt out.

    Args:
        lines: Line ends are kept.
    """
    kept = "\n" if lines else ""
    seen = (c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in str(text))
    return Text("".join(seen), style=style)


def coloured(outcome: str) -> Text:
    """Return an outcome in its colour."""
    return Text(outcome, style=COLOURS.get(outcome, ""))


def row(name: str, seconds: float | None, outcome: str, line: str) -> Table:
    """Return one aligned line: name, seconds, outcome, what was found."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=20, no_wrap=True)
    table.add_column(width=8, justify="right", no_wrap=True)
    table.add_column(width=12, no_wrap=True)
    table.add_column()
    took = "" if seconds is None else f"{seconds:.1f} s"
    table.add_row(plain(f"  {name}"), took, coloured(outcome), plain(line, lines=True))
    return table


class Screen:
    """Shows events as they come; on a terminal the current line moves, elsewhere it is left out."""

    def __init__(self, console: Console) -> None:
        """Write to a console."""
        self._console = console
        self._live: Live | None = None
        self._name, self._since = "", 0.0

    def heading(self, text: str) -> None:
        """Begin a part of the run."""
        self.stop()
        self._console.print()
        self._console.print(Text(text, style="bold"))

    def working(self, name: str, text: str = "") -> None:
        """Show what is being done now, with a clock that runs."""
        if name != self._name:
            self._name, self._since = name, time.monotonic()
        if not self._console.is_terminal:
            return
        shown = Spinner("dots", text=_Clock(name, self._since, text))  # pyright: ignore[reportArgumentType]
        if self._live is None:
            self._live = Live(shown, console=self._console, transient=True, refresh_per_second=8)
            self._live.start()
        else:
            self._live.update(shown)

    def done(self, name: str, seconds: float | None, outcome: str, line: str) -> None:
        """Show how something ended."""
        self.stop()
        self._console.print(row(name, seconds, outcome, line), soft_wrap=False)

    def stop(self) -> None:
        """Take the moving line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._name = ""

    def print(self, *what: Any) -> None:
        """Print below what is there."""
        self.stop()
        self._console.print(*what)


class _Clock:
    """The moving line's text; its seconds are those of the moment it is drawn."""

    def __init__(self, name: str, since: float, text: str) -> None:
        self._name, self._since, self._text = name, since, text

    def __rich__(self) -> Text:
        waited = time.monotonic() - self._since
        return Text(
            f"{self._name:<14} {waited:6.1f} s  {self._text}", no_wrap=True, overflow="ellipsis"
        )


def tick_text(event: Mapping[str, Any]) -> str:
    """Return one look at a release in a line: what its version answered, what is waited for."""
    arm: Mapping[str, Any] = event["summary"].get("challenger") or {}
    counted = f"{arm.get('requests', 0)} requests, {arm.get('errors', 0)} errors, " if arm else ""
    return f"{counted}{event['why'] or event['act']}"


def show_release(event: Mapping[str, Any], screen: Screen) -> None:
    """Show an event of a release that is being carried."""
    kind = event["event"]
    if kind == "starting":
        screen.working("prepare", f"{event['what']} in slot {event['slot']}")
    elif kind == "ready":
        line = "hashes verified, warm, golden answers right"
        screen.done("prepare", event["seconds"], "pass", line)
    elif kind == "look" and event["step"] is not None:
        screen.working(_named(event, event["step"]), tick_text(event))
    elif kind == "asked":
        screen.done(_named(event, "waits"), None, "waiting", event["text"])
    elif kind == "left":
        screen.done(_named(event, event["name"]), event["seconds"], event["outcome"], event["line"])


def _named(event: Mapping[str, Any], step: str) -> str:
    """Return a step's name, with its market where there are several."""
    market = event["release"].split("/")[2]
    return step if market == EVERYWHERE else f"{market} {step}"
