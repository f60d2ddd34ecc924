"""Laws of the bar: on a terminal while bytes come, nothing of it elsewhere or afterwards."""

from __future__ import annotations

import io

from rich.console import Console

from penstock.cli.transfers import bar
from penstock.storage import Moved


def drawn(*, terminal: bool, told: bool) -> str:
    """Return all that was written."""
    out = io.StringIO()
    with bar(Console(file=out, force_terminal=terminal, width=100)) as heard:
        if told and heard is not None:
            for done in (0, 500_000, 1_000_000):
                heard(Moved(done, 1_000_000))
    return out.getvalue()


def test_a_terminal_shows_how_far_it_is():
    """How much of how much, until the line is taken away."""
    assert "fetching the package" in (shown := drawn(terminal=True, told=True))
    assert "1.0/1.0 MB" in shown
    assert shown.endswith(("\x1b[2K", "\x1b[?25h", "\x1b[1A\x1b[2K"))


def test_nothing_is_shown_where_nothing_comes_or_nobody_looks():
    """A copy that is here, a file, a pipe."""
    assert drawn(terminal=True, told=False).strip() == ""
    assert drawn(terminal=False, told=True) == ""
