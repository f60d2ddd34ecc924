"""The gate's report: its verdict first, then every number with its interval, as text and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.bundle import write_text
from penstock.policy import FALLING, RISING
from penstock.report import gateplots
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
from penstock.report.gateplots import Drawing, worded
from penstock.verdict import Outcome, Verdict

Document = Mapping[str, Any]


def write(folder: Path, page: Page) -> None:
    """Write ``report.md`` and ``report.html``, each whole or not at all."""
    write_text(folder / "report.md", markdown(page))
    write_text(folder / "report.html", html(page))


def headline(verdict: Verdict) -> str:
    """Return the report's first line: whether the candidate goes on, and what decided.

    >>> from penstock.verdict import Check
    >>> headline(Verdict((Check(name="auc", outcome=Outcome.FAIL, reason="0.71, at least 0.75"),)))
    'Reject: auc: 0.71, at least 0.75'
    """
    word = "Promote" if verdict.outcome is Outcome.PASS else "Reject"
    return " ".join(f"{word}: {verdict.reason}".split())


def gate_page(
    title: str,
    verdict: Verdict,
    numbers: Document,
    behaviours: Sequence[Document],
    *,
    facts: Sequence[tuple[str, Any]],
) -> Page:
    """Return the report of a gate.

    Args:
        title: Of the workload, for people.
        numbers: What ``scores.json`` holds.
        behaviours: What ``behaviours.json`` holds.
        facts: What was judged, by name: data, graphs, champion.
    """
    return Page(
        kicker=f"Gate of {title}",
        title=headline(verdict),
        outcome=str(verdict.outcome),
        reason=against(numbers),
        parts=list(_parts(verdict, numbers, behaviours, facts)),
    )


def against(numbers: Document) -> str:
    """Return what was compared with what, in a sentence."""
    rows = f"The graph that serves, on {numbers['n']:,} holdout rows"
    if all(found["challenger"] is None for found in numbers["metrics"].values()):
        return f"{rows}: nothing could be measured."
    if not _alone(numbers):
        return f"{rows}, against the champion."
    if numbers.get("incomparable"):
        return (
            f"{rows}. A champion serves and could not be scored, so nothing was compared with it."
        )
    return f"{rows}, with no champion to compare with."


def _alone(numbers: Document) -> bool:
    return all(found["champion"] is None for found in numbers["metrics"].values())


def _parts(
    verdict: Verdict,
    numbers: Document,
    behaviours: Sequence[Document],
    facts: Sequence[tuple[str, Any]],
) -> Iterator[Part]:
    yield Part(title="What was asked", blocks=[_checks(verdict)])
    yield Part(title="Metrics", blocks=[_metrics(numbers)])
    yield Part(title="Slices", blocks=[*_drawn(gateplots.slices(numbers)), _slices(numbers)])
    drawn = _drawn(gateplots.decisions(numbers))
    yield Part(title="Probabilities and decisions", blocks=[*drawn, *_costs(numbers)])
    if numbers["fairness"]:
        blocks = [*_drawn(gateplots.groups(numbers)), _fairness(numbers)]
        yield Part(title="Fairness", blocks=blocks)
    yield Part(title="Behaviour", blocks=list(_behaviours(behaviours)))
    yield Part(title="What was judged", blocks=[Facts(facts)])


def _drawn(drawings: Sequence[Drawing]) -> list[Block]:
    return [Plot(d.svg, f"Drawn in report.html: {d.text}.") for d in drawings]


def _checks(verdict: Verdict) -> Table:
    """Return every check; those that did not pass come first."""
    order = sorted(verdict.checks, key=lambda check: check.outcome is Outcome.PASS)
    return Table(["outcome", "check", "found"], [[c.outcome, c.name, c.reason] for c in order])


def metric_rows(numbers: Document) -> tuple[list[str], list[list[str | None]]]:
    """Return the head and the rows of the table of metrics; of nothing measured, None."""
    columns = ("challenger",) if _alone(numbers) else ("challenger", "champion", "difference")
    rows = [
        [worded(metric), *(estimate(found[c], sign=c == "difference") for c in columns)]
        for metric in (*RISING, *FALLING)
        if (found := numbers["metrics"].get(metric)) is not None
    ]
    return ["metric", *columns], rows


def _metrics(numbers: Document) -> Table:
    return Table(*metric_rows(numbers))


def _slices(numbers: Document) -> Block:
    if not numbers["slices"]:
        return Says("Nothing is asked of slices.")
    columns = ("challenger",) if _alone(numbers) else ("challenger", "champion", "difference")
    rows = [
        [
            part["outcome"] or "not asked",
            part["name"],
            f"{part['n']:,}",
            worded(part["metric"]),
            *(_short(part[c], sign=c == "difference") for c in columns),
            "–" if part["margin"] is None else number(part["margin"]),
        ]
        for part in numbers["slices"]
    ]
    head = ["outcome", "slice", "rows", "metric", *columns, "margin"]
    return Table(head, rows, folded=f"the numbers of {len(rows)} slices")


def _short(found: Any, *, sign: bool = False) -> str | None:
    """Return a number with its interval, without the rows it is of."""
    said = estimate(found, sign=sign)
    return None if said is None else said.rsplit(", ", 1)[0]


def _costs(numbers: Document) -> list[Block]:
    costs = numbers["costs"]
    if not costs:
        return []
    return [
        Facts(
            [
                ("a false positive costs", number(costs["false_positive"])),
                ("a false negative costs", number(costs["false_negative"])),
                ("it decides 1 from", number(costs["threshold"])),
                ("best on validation rows", number(costs["best_threshold"])),
                ("lost a decision by not taking it", estimate(costs["regret"])),
            ]
        )
    ]


def _fairness(numbers: Document) -> Table:
    rows = [
        [
            found["attribute"],
            _short(found["adverse_impact_ratio"]),
            _short(found["equal_opportunity_difference"]),
        ]
        for found in numbers["fairness"]
    ]
    return Table(["attribute", "adverse impact ratio", "equal opportunity difference"], rows)


def _behaviours(behaviours: Sequence[Document]) -> Iterator[Block]:
    if not behaviours:
        yield Says("The workload declares no behaviour.")
        return
    head = ["outcome", "behaviour", "kind", "rows", "share that behaves", "asked"]
    yield Table(head, [_behaviour(found) for found in behaviours])
    examples = [
        [
            found["name"],
            e["row"],
            e["class"],
            "–" if e["before"] is None else number(e["before"]),
            number(e["after"]),
            e["decided"],
            "yes" if e["behaved"] else "no",
        ]
        for found in behaviours
        for e in found["examples"]
    ]
    head = ["behaviour", "row", "class", "its probability before", "after", "decided", "behaves"]
    yield Table(head, examples, folded="the worst rows of each")


def _behaviour(found: Document) -> list[Any]:
    share = found["share"]
    told = {"value": share, "low": found["low"], "high": found["high"], "n": found["n"]}
    return [
        found["outcome"],
        found["name"],
        found["kind"],
        f"{found['n']:,}",
        found["reason"] if share is None else _short(told),
        number(found["asked"]),
    ]
