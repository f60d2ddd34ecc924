"""A release on one page: its verdict first, then how it went, and what every decision rested on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from penstock.report import releaseplots
from penstock.report.documents import Block, Facts, Page, Part, Plot, Says, Table, number
from penstock.report.evidence import interval, lasting, limit, users
from penstock.report.gateplots import Drawing

Told = Mapping[str, Any]

ENDS = {
    "DONE": ("Promoted", "pass"),
    "ROLLED_BACK": ("Rolled back", "fail"),
    "FAILED": ("Failed", "fail"),
    "KILLED": ("Killed", "fail"),
}
"""Word and colour of the phases that a release ends in."""

AGREEMENT = ("spearman", "kendall", "overlap", "divergence", "decided_otherwise", "psi")
"""Numbers of a shadow step, in the order of the table."""


def release_page(told: Told, *, title: str) -> Page:
    """Return the page of a release.

    Args:
        told: What :func:`penstock.rollout.telling.timeline` returns.
        title: Of the workload, for people.
    """
    status = told["status"]
    word, outcome = ENDS.get(status["phase"], ("Going on", "inconclusive"))
    version, before = status["challenger"]["version"], status["champion"]
    over = "the first version" if before is None else f"over version {before['version']}"
    return Page(
        kicker=f"Release of {title} · {status['release']}",
        title=f"{word}: version {version}, {over}",
        outcome=outcome,
        reason=reason(told),
        parts=list(release_parts(told)),
    )


def reason(told: Told) -> str:
    """Return why a release ended, or where it stands."""
    status = told["status"]
    if status["ended"]:
        return status["reason"]
    step, ahead = status["step"] or "getting ready", status["next"]
    waits = f" It waits for: {ahead['waits_for']}." if ahead["waits_for"] else ""
    return f"At {step}, {status['share_percent']:.3g} % of users. Next: {ahead['decision']}.{waits}"


def release_parts(told: Told) -> Iterator[Part]:
    """Yield the parts of a release's page."""
    yield Part(title="In short", blocks=[Facts(list(_short(told)))])
    yield Part(title="Traffic", blocks=[_plot(releaseplots.traffic(told)), _events(told)])
    yield Part(title="Evidence over time", blocks=_evidence(told))
    yield Part(title="Steps", blocks=[Says(ANEW), _steps(told)])
    yield Part(title="Decisions", blocks=list(_decisions(told)))
    yield Part(title="Shadow", blocks=list(_shadow(told)))
    yield Part(title="Slices of users", blocks=[_segments(told)])
    yield Part(title="Who agreed, who asked", blocks=[_people(told)])
    yield Part(title="Hashes", blocks=[Facts(list(_hashes(told)))])


def summary(told: Told) -> Iterator[Block]:
    """Yield what a run's own page shows of its release: traffic, evidence, steps."""
    yield Says(ANEW)
    yield _plot(releaseplots.traffic(told))
    yield from _evidence(told)
    yield _steps(told)
    last = told["decisions"][-1]["rows"] if told["decisions"] else None
    if last:
        yield Table(CHECKS, checks(last), folded=f"{len(last)} checks of the last decision")


ANEW = "Evidence starts anew at each step. Intervals hold however often one looks."


def _plot(drawing: Drawing) -> Plot:
    return Plot(drawing.svg, f"Drawn in the HTML page: {drawing.text}.")


def _short(told: Told) -> Iterator[tuple[str, Any]]:
    status, history = told["status"], told["history"]
    yield "opened", _clock(status["opened_at"])
    if status["ended_at"] is not None:
        began, ended = (datetime.fromisoformat(status[k]) for k in ("opened_at", "ended_at"))
        yield (
            "ended",
            f"{_clock(status['ended_at'])}, after {lasting((ended - began).total_seconds())}",
        )
    yield "market", status["market"]
    yield "trained", status["trigger"]
    yield "strikes", f"{len(status['strikes'])} of 2"
    back = [e for e in history if e["event"] in ("rolled back", "strike", "killed")]
    for event in back:
        took = event["milliseconds"]
        if took is not None:
            yield f"{event['event']}, in force after", f"{took:g} ms"


def _events(told: Told) -> Table:
    rows = [[_clock(e["at"]), e["event"], e["text"], e["actor"]] for e in told["history"]]
    return Table(["when (UTC)", "event", "what", "by"], rows, folded=f"all {len(rows)} events")


def _evidence(told: Told) -> list[Block]:
    drawn = [
        d for d in (releaseplots.primary(told), releaseplots.guardrails(told)) if d is not None
    ]
    if not drawn:
        return [Says("No check has a number yet, or the looks of this release are kept elsewhere.")]
    said = (
        "Line: what was found. Band: its confidence sequence, where it surely lies. Dashed: the "
        "limit, or the margin. A band wholly on the good side of it passes; one wholly beyond it "
        "is a strike. Dotted: a step began."
    )
    return [*map(_plot, drawn), Says(said)]


def _steps(told: Told) -> Table:
    """Return each time that a step was in force: how long, how it ended, on how many users."""
    moves = [d for d in told["decisions"] if d["in_force_at"]]
    rows: list[list[Any]] = []
    for began, left in _stays(moves):
        end = left["at"] if left else told["status"]["ended_at"]
        seconds = None if end is None else _between(began["in_force_at"], end)
        rows.append(
            [
                began["step"],
                f"{began['share_percent']:.3g} %",
                _clock(began["in_force_at"]),
                "goes on" if seconds is None else lasting(seconds),
                "" if left is None else left["event"],
                "" if left is None else left["outcome"],
                "" if left is None else _counted(left["rows"] or []),
            ]
        )
    return Table(["step", "users", "from", "for", "left by", "verdict", "challenger's users"], rows)


def _stays(moves: Sequence[Told]) -> Iterator[tuple[Told, Told | None]]:
    """Yield what began each stay at a step and what ended it; None while it goes on."""
    began: Told | None = None
    for move in moves:
        if move["event"] in ("step entered", "strike", "rolled back", "promoted", "killed"):
            if began is not None:
                yield began, move
            began = move if move["step"] is not None else None
    if began is not None:
        yield began, None


def _between(one: str, other: str) -> float:
    return (datetime.fromisoformat(other) - datetime.fromisoformat(one)).total_seconds()


def _counted(rows: Sequence[Told]) -> str:
    counted = [r for r in rows if users(r)]
    first = [r for r in counted if r.get("role") == "primary"] or counted
    return users(first[0]) if first else ""


def _decisions(told: Told) -> Iterator[Block]:
    rows = [
        [
            d["n"],
            _clock(d["at"]),
            d["event"] + (f" {d['step']}" if d["step"] else ""),
            d["outcome"] or "–",
            d["why"],
            "not yet" if d["in_force_at"] is None else _took(d["milliseconds"]),
        ]
        for d in told["decisions"]
    ]
    yield Table(["n", "when (UTC)", "decision", "verdict", "why", "in force after"], rows)
    for d in told["decisions"]:
        if d["rows"]:
            what = " ".join(filter(None, (d["event"], d["step"])))
            title = f"decision {d['n']}, {what}: {len(d['rows'])} checks"
            yield Table(CHECKS, checks(d["rows"]), folded=title)


CHECKS = ("", "check", "found [low, high]", "limit", "users/needed")


def checks(rows: Sequence[Told]) -> list[list[Any]]:
    """Return rows of evidence for a table, those that did not pass first."""
    order = sorted(rows, key=lambda row: row["outcome"] == "pass")
    return [
        [r["outcome"], r["name"], interval(r) or r.get("reason") or "–", limit(r), users(r)]
        for r in order
    ]


def _took(milliseconds: object) -> str:
    return f"{milliseconds:g} ms" if isinstance(milliseconds, (int, float)) else "–"


def _shadow(told: Told) -> Iterator[Block]:
    """Yield the pairs of scores and how alike they are, of the newest shadow step."""
    pairs = [look["scatter"] for look in told["looks"] if look.get("scatter")]
    if pairs:
        yield _plot(releaseplots.scatter(pairs[-1]))
    agreed = [s for s in _kept_segments(told) if "pairs" in s[0]]
    newest: Sequence[Told] = agreed[-1] if agreed else ()
    rows = [_agreement(segment) for segment in newest]
    yield Table(["slice", "copies", *(n.replace("_", " ") for n in AGREEMENT)], rows)
    yield Says("Shadow alone is never enough: no user saw these answers.")


def _agreement(segment: Told) -> list[Any]:
    return [segment["name"], segment["pairs"], *(_bounded(segment.get(n)) for n in AGREEMENT)]


def _bounded(found: Any) -> str:
    if found is None:
        return "–"
    if not isinstance(found, Mapping):
        return str(number(float(found)))
    return interval(cast("Told", found)) or "–"


def _kept_segments(told: Told) -> list[Sequence[Told]]:
    """Return the slices of every look and decision that kept them, oldest first."""
    kept = [
        (x["at"], x["segments"]) for x in (*told["decisions"], *told["looks"]) if x.get("segments")
    ]
    return [segments for _, segments in sorted(kept, key=lambda pair: pair[0])]


def _segments(told: Told) -> Table:
    """Return the newest slices of users, with the effect of each measure."""
    found = [s for s in _kept_segments(told) if "pairs" not in s[0]]
    newest: Sequence[Told] = found[-1] if found else ()
    effects = [cast("Told", s.get("effects") or {}) for s in newest]
    names = [*dict.fromkeys(name for found in effects for name in found)]
    rows = [
        [
            s.get("outcome") or "–",
            s["name"],
            *(_arm(s, arm) for arm in ("challenger", "champion")),
            *(_bounded(effect.get(name)) for name in names),
            *(_bounded(s.get(name)) for name in ("failing", "slow")),
        ]
        for s, effect in zip(newest, effects, strict=True)
    ]
    return Table(["", "slice", "challenger", "champion", *names, "failing", "slow"], rows)


def _arm(segment: Told, arm: str) -> str:
    counted = (segment.get("users") or {}).get(arm)
    return "–" if counted is None else f"{counted:,}"


PEOPLE = ("approved", "approval refused", "approval wanted", "command", "paged", "kill switch",
          "kill cleared", "drill", "returned")  # fmt: skip


def _people(told: Told) -> Block:
    rows = [
        [_clock(e["at"]), e["event"], e["text"], e["actor"], e["sequence"]]
        for e in told["history"]
        if e["event"] in PEOPLE
    ]
    if not rows:
        return Says("Nobody had to be asked, and nobody asked anything.")
    return Table(["when (UTC)", "event", "what", "signed by", "entry"], rows)


def _hashes(told: Told) -> Iterator[tuple[str, Any]]:
    status, history = told["status"], told["history"]
    yield "challenger's package", status["challenger"]["digest"]
    yield "champion's package", (status["champion"] or {"digest": "there was none"})["digest"]
    yield "plan, declared before the first user", status["plan_hash"]
    yield f"ledger entry {history[0]['sequence']}, the opening", history[0]["hash"]
    yield f"ledger entry {history[-1]['sequence']}, the last told here", history[-1]["hash"]


def _clock(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M:%S}"
