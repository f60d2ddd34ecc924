"""Documents: one page of titled parts, as Markdown and as HTML that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, cast

from penstock.report.paper import PRINTED
from penstock.report.style import CSS

NOTHING = "no evidence yet"
"""Said wherever a document has no value; a gap is never left out."""

DAYS_OF_A_YEAR = 365.25

FOUR_DIGITS, LARGE = 1e3, 1e15
"""From where a number is shown whole, and until where."""

UNBROKEN = 24
"""Characters of a word that no narrow column has room for."""

_LONG = ' class="long"'

SIGNED = ("role", "stands for", "name", "date", "signature")

TONES = {"pass": "good", "inconclusive": "warn", "error": "bad", "fail": "bad"}


@dataclass(frozen=True)
class Says:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Listed:
    """Sentences, one below the other; of none, it is said that there are none."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and values; a value of None has no evidence yet."""

    pairs: Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Table:
    """Rows under a head; a cell of None has no evidence yet."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    folded: str = ""
    """Words of the line behind which a screen hides it; it is printed all the same."""


@dataclass(frozen=True)
class Commands:
    """Lines for a terminal."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Plot:
    """A drawing, and the sentence that stands for it where none can be shown."""

    svg: str
    text: str


@dataclass(frozen=True)
class ToSign:
    """Empty lines, one for each role, with what the signature stands for."""

    roles: Sequence[tuple[str, str]]


Block = Says | Listed | Facts | Table | Commands | Plot | ToSign


@dataclass(frozen=True, kw_only=True)
class Part:
    """A titled part of a document."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A document, its outcome first."""

    kicker: str
    title: str
    outcome: str
    """Gives the title its colour: an outcome, or anything else for none."""

    reason: str
    parts: Sequence[Part]
    warning: str = ""
    """Said loudly before anything else."""


def rehearsed(fault: str | None) -> str:
    """Return the warning of a version that was broken on purpose; nothing for the others."""
    return f"Rehearsal: deliberately broken ({fault}). Not for users." if fault else ""


def number(value: float | None, *, sign: bool = False, unit: str = "") -> str | None:
    """Return a measured number as people read it, four digits of it; None stays None.

    >>> number(0.96833), number(-0.002, sign=True), number(12220.4, unit="rows")
    ('0.9683', '-0.002', '12220 rows')
    """
    if value is None:
        return None
    whole = float(value).is_integer() or abs(value) >= FOUR_DIGITS
    form = ("+" if sign else "") + (".0f" if whole and abs(value) < LARGE else ".4g")
    text = format(value, form)
    return f"{text} {unit}".rstrip()


def estimate(found: Any, *, sign: bool = False) -> str | None:
    """Return a number with its interval and how many rows it is of.

    >>> estimate({"value": 0.9683, "low": 0.951, "high": 0.98, "n": 600})
    '0.9683 [0.951, 0.98], 600 rows'
    >>> estimate({"value": 0.5, "low": None, "high": None, "n": 8})
    '0.5, no interval, 8 rows'
    """
    if found is None:
        return None
    low, high = number(found["low"], sign=sign), number(found["high"], sign=sign)
    between = ", no interval" if low is None or high is None else f" [{low}, {high}]"
    return f"{number(found['value'], sign=sign)}{between}, {found['n']} rows"


def short(value: object) -> str | None:
    """Return a hash short enough to read, as much of it as tells versions apart.

    >>> short("sha256:999723e0cf549acd13d483c2da8e5533")
    '999723e0cf549acd'
    """
    return None if value is None else str(value).removeprefix("sha256:")[:16]


def lasting(days: float) -> str:
    """Return a time in days, and in years where it is some.

    >>> lasting(2557), lasting(365)
    ('2557 days (about 7 years)', '365 days')
    """
    years = round(days / DAYS_OF_A_YEAR)
    return f"{days} days" + (f" (about {years} years)" if years > 1 else "")


def person(who: Any) -> str | None:
    """Return the name of a person, of whom a document has the name alone or more."""
    name = cast("Mapping[str, Any]", who).get("name") if isinstance(who, Mapping) else who
    return None if name is None else str(name)


def markdown(page: Page) -> str:
    """Return a document as Markdown."""
    lines = [f"# {_flat(page.title)}", ""]
    if page.warning:
        lines += [f"**{_flat(page.warning)}**", ""]
    lines += [_flat(page.reason), "", _flat(page.kicker), ""]
    for part in page.parts:
        lines += [f"## {part.title}", ""]
        for block in part.blocks:
            lines += [*_WRITTEN[type(block)](block), ""]
    return "\n".join(lines).rstrip() + "\n"


def html(page: Page) -> str:
    """Return a document as one HTML page: styles and drawings inside, nothing fetched."""
    loud = f'<p class="loud">{escape(page.warning)}</p>' if page.warning else ""
    tone = TONES.get(page.outcome, "")
    body = "".join(
        f"<section><h2>{escape(part.title)}</h2>{blocks_html(part.blocks)}</section>"
        for part in page.parts
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(page.title)}</title><style>{CSS}{PRINTED}</style></head><body><main>"
        f'<header><p class="kicker">{escape(page.kicker)}</p>'
        f'<h1 class="{tone}">{escape(page.title)}</h1>{loud}'
        f'<p class="reason">{escape(page.reason)}</p></header>{body}</main></body></html>\n'
    )


def _flat(text: object) -> str:
    """Return text that stays in its line and opens no table, tag or emphasis of Markdown."""
    line = re.sub(r"\s+", " ", str(text))
    return re.sub(r"([\\|<>*_`\[\]#])", r"\\\1", line)


def _cell(value: object) -> str:
    return f"*{NOTHING}*" if value is None else _flat(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    ruled = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*ruled, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)]


def _written_table(block: Table) -> list[str]:
    return _table(block.head, block.rows) if block.rows else [f"*{NOTHING}*"]


_WRITTEN: dict[type, Callable[[Any], list[str]]] = {
    Says: lambda b: [_flat(b.text)],
    Listed: lambda b: [f"- {_flat(t)}" for t in b.texts] or ["- none"],
    Facts: lambda b: _table(["", ""], b.pairs),
    Table: _written_table,
    Commands: lambda b: ["```", *b.lines, "```"],
    Plot: lambda b: [_flat(b.text)],
    ToSign: lambda b: _table(SIGNED, [[*r, "", "", ""] for r in b.roles]),
}


def _shown(value: object) -> str:
    if value is None:
        return f'<span class="nothing">{NOTHING}</span>'
    text = escape(str(value))
    return f'<span class="{TONES[text]}">{text}</span>' if text in TONES else text


def _td(value: object) -> str:
    """Return a cell; what has no place to break, a hash or a path, breaks anywhere."""
    longest = max(map(len, str(value).split()), default=0)
    return f"<td{_LONG if longest >= UNBROKEN else ''}>{_shown(value)}</td>"


def _ruled(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{names}</tr>{body}</table></div>'


def blocks_html(blocks: Iterable[Block]) -> str:
    """Return what a part holds as HTML, without its title."""
    return "".join(_DRAWN[type(block)](block) for block in blocks)


def _drawn_list(block: Listed) -> str:
    return "<ul>" + "".join(f"<li>{escape(t)}</li>" for t in block.texts or ["none"]) + "</ul>"


def _drawn_facts(block: Facts) -> str:
    pairs = "".join(f"<dt>{escape(n)}</dt><dd>{_shown(v)}</dd>" for n, v in block.pairs)
    return f'<dl class="facts">{pairs}</dl>'


def _drawn_lines(block: ToSign) -> str:
    empty = ['<td class="line"></td>'] * 3
    said = [(escape(role), escape(what)) for role, what in block.roles]
    rows = [[f"<td>{role}</td>", f'<td class="long">{what}</td>', *empty] for role, what in said]
    return _ruled(SIGNED, rows)


def _drawn_table(block: Table) -> str:
    if not block.rows:
        return f"<p>{_shown(None)}</p>"
    table = _ruled(block.head, [[_td(c) for c in row] for row in block.rows])
    if not block.folded:
        return table
    return f"<details><summary>{escape(block.folded)}</summary>{table}</details>"


_DRAWN: dict[type, Callable[[Any], str]] = {
    Says: lambda b: f"<p>{escape(b.text)}</p>",
    Listed: _drawn_list,
    Facts: _drawn_facts,
    Table: _drawn_table,
    Commands: lambda b: f"<pre>{escape(chr(10).join(b.lines))}</pre>",
    Plot: lambda b: f'<figure class="wide">{b.svg}</figure>',
    ToSign: _drawn_lines,
}
