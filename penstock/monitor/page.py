"""The monitor's report: its verdict first, then every number, and the feature that moved most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from penstock.bundle import Bundle, write_text
from penstock.monitor.look import Found
from penstock.monitor.performance import Realized
from penstock.report import plots
from penstock.report.documents import (
    Block,
    Facts,
    Page,
    Part,
    Plot,
    Says,
    Table,
    estimate,
    html,
    markdown,
    number,
)
from penstock.verdict import Outcome, Verdict
from penstock.workload import Workload

WORDS = {
    Outcome.PASS: "Nothing is worse",
    Outcome.INCONCLUSIVE: "Not known",
    Outcome.ERROR: "Could not look",
    Outcome.FAIL: "Something is worse",
}


def write(folder: Path, page: Page) -> None:
    """Write ``report.md`` and ``report.html``, each whole or not at all."""
    write_text(folder / "report.md", markdown(page))
    write_text(folder / "report.html", html(page))


def of(declared: Workload, package: Bundle, found: Found, diagnosis: str) -> Page:
    """Return the report of a look at a champion."""
    verdict = found.verdict
    return Page(
        kicker=f"Watch of {declared.title}",
        title=headline(verdict),
        outcome=str(verdict.outcome),
        reason=f"Of what is asked and what is right: {diagnosis}.",
        parts=list(_parts(package, found, verdict)),
    )


def headline(verdict: Verdict) -> str:
    """Return the report's first line.

    >>> headline(Verdict(()))
    'Could not look: nothing was checked'
    """
    return " ".join(f"{WORDS[verdict.outcome]}: {verdict.reason}".split())


def _parts(package: Bundle, found: Found, verdict: Verdict) -> Iterator[Part]:
    yield Part(title="What was asked", blocks=[_checks(verdict)])
    yield Part(title="What it was asked about, p(x)", blocks=list(_moved(found)))
    yield Part(title="What became of it, p(y given x)", blocks=list(_realized(found)))
    yield Part(title="What was looked at", blocks=[_facts(package, found)])


def _checks(verdict: Verdict) -> Table:
    """Return every check; those that did not pass come first, the worst before the others."""
    order = sorted(verdict.checks, key=lambda check: -list(Outcome).index(check.outcome))
    return Table(["outcome", "check", "found"], [[c.outcome, c.name, c.reason] for c in order])


def _moved(found: Found) -> Iterator[Block]:
    moved = found.moved
    if moved is None or not moved.psi:
        yield Says("No feature could be compared with the training rows.")
        return
    most = max(moved.psi, key=lambda name: moved.psi[name])
    told = f"{most} moved most, by a PSI of {moved.psi[most]:.3f}"
    yield Plot(
        plots.moved(moved.bars[most], title=f"{most}: training rows and now"),
        f"Drawn in report.html: {told}.",
    )
    yield Says(f"{told}. Features one by one say nothing of how they go together.")


def _realized(found: Found) -> Iterator[Block]:
    if not found.realized:
        yield Says("No outcomes were named, so nothing is known of what is right now.")
        return
    yield Table(
        ["outcome", "part", "metric", "now", "on the holdout", "change"],
        [_row(one) for one in found.realized],
    )
    if (told := found.told) is not None:
        counted = vars(told).items()
        yield Facts([(f"outcomes: {name}", f"{count:,}") for name, count in counted])


def _row(one: Realized) -> Sequence[Any]:
    return [
        one.check.outcome,
        one.part,
        one.metric,
        estimate(one.now),
        estimate(one.registered),
        None if one.change is None else number(one.change[0], sign=True),
    ]


def _facts(package: Bundle, found: Found) -> Facts:
    asked, seen = found.asked, found.seen
    losses = None if seen is None else seen.losses
    lost = None if losses is None else losses.dropped + losses.failed + losses.unreadable
    return Facts(
        [
            ("version", f"{found.version}, {package.digest[7:19]}"),
            ("from", f"{asked.since:%Y-%m-%d %H:%M} UTC"),
            ("until", f"{asked.until:%Y-%m-%d %H:%M} UTC"),
            ("requests", None if seen is None else f"{seen.requests:,}"),
            ("users", None if seen is None else f"{seen.users:,}"),
            ("newest", None if seen is None or seen.newest is None else seen.newest.isoformat()),
            ("records lost", "a copy of a log does not say" if lost is None else f"{lost:,}"),
        ]
    )
