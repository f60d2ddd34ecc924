"""Plots of a release: users' share with its events, what each check found, pairs of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from penstock.report.evidence import quantity
from penstock.report.gateplots import PURPLE, Drawing
from penstock.report.plots import BLUE, GREEN, GREY, ORANGE, PLAIN, RED, side_by_side, svg

Told = Mapping[str, Any]

MARKED: Mapping[str, tuple[str, str]] = {
    "strike": ("v", RED),
    "rolled back": ("X", RED),
    "killed": ("X", RED),
    "kill switch": ("X", RED),
    "failed": ("X", RED),
    "paged": ("!", ORANGE),
    "approval wanted": ("P", ORANGE),
    "approved": ("P", GREEN),
    "approval refused": ("P", RED),
    "paused": ("s", GREY),
    "resumed": ("s", GREY),
    "deadline extended": ("s", GREY),
    "drill": ("D", PURPLE),
    "returned": ("X", RED),
    "promoted": ("*", GREEN),
}
"""Marker and colour of each event that is drawn; steps are lines."""

MOST_ROWS = 8
"""Checks that are drawn besides the primary one."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Time of a release: seconds since it was opened, in a unit that gives small numbers."""

    opened: datetime
    unit: str
    seconds: float
    end: float
    """In units."""

    def at(self, moment: str) -> float:
        """Return a time in units since the opening."""
        return (datetime.fromisoformat(moment) - self.opened).total_seconds() / self.seconds


def axis_of(told: Told) -> Axis:
    """Return the axis on which all of a release's plots are drawn."""
    opened = datetime.fromisoformat(told["status"]["opened_at"])
    moments = [e["at"] for e in told["history"]]
    moments += [e["in_force_at"] for e in told["history"] if e.get("in_force_at")]
    moments += [look["at"] for look in told["looks"]]
    lasted = max((datetime.fromisoformat(m) - opened).total_seconds() for m in moments)
    units = [("seconds", 1), ("minutes", 60), ("hours", 3600), ("days", 86400)]
    unit, size = [u for u in units if u is units[0] or lasted >= 2 * u[1]][-1]
    return Axis(opened=opened, unit=unit, seconds=size, end=max(lasted, 1e-3) / size)


def traffic(told: Told) -> Drawing:
    """Return the challenger's share of users over time, with every event of the release."""
    axis, history = axis_of(told), told["history"]
    moved = [e for e in history if e.get("in_force_at") and e["share_percent"] is not None]
    at = [0.0, *(axis.at(e["in_force_at"]) for e in moved), axis.end]
    shares = [0.0, *(e["share_percent"] for e in moved)]
    shares.append(shares[-1])
    with mpl.rc_context(PLAIN):
        figure, (drawn,) = side_by_side([1], height=3.2)
        drawn.step(at, shares, where="post", color=BLUE, lw=1.8)
        drawn.fill_between(at, shares, step="post", color=BLUE, alpha=0.12)
        _steps(drawn, axis, history, named=True)
        kinds = [k for k in MARKED if any(e["event"] == k for e in history)]
        for kind in kinds:
            marker, colour = MARKED[kind]
            where = [axis.at(e["at"]) for e in history if e["event"] == kind]
            there = np.array(shares)[np.searchsorted(at, where, side="right") - 1]
            drawn.plot(where, there + 4, color=colour, ls="", ms=8,
                       marker="$!$" if marker == "!" else marker, label=kind)  # fmt: skip
        drawn.set(ylim=(-4, 128), xlim=(0, axis.end * 1.01))
        drawn.set(title="Users on the challenger, %", xlabel=f"{axis.unit} since it was opened")
        drawn.set_yticks([0, 25, 50, 75, 100])
        if kinds:
            drawn.legend(loc="upper center", ncols=6, bbox_to_anchor=(0.5, -0.2), fontsize=8)
        words = (
            f"{len(moved)} changes of traffic, {sum(1 for e in history if e.get('strike'))} strikes"
        )
        return Drawing(svg=svg(figure), text=words)


def _steps(drawn: Axes, axis: Axis, history: Sequence[Told], *, named: bool = False) -> None:
    """Draw a line where each step began; its name is written at two heights in turn."""
    entered = [e for e in history if e["event"] in ("step entered", "strike") and e["in_force_at"]]
    for n, event in enumerate(entered):
        at = axis.at(event["in_force_at"])
        drawn.axvline(at, color=GREY, lw=0.7, ls=":")
        if named:
            name = str(event["step"]).replace("progressive ", "")
            drawn.annotate(name, (at, (124, 114)[n % 2]), va="top", fontsize=7.5, color=GREY,
                           xytext=(3, 0), textcoords="offset points")  # fmt: skip


def series(told: Told) -> dict[str, list[Told]]:
    """Return by check its rows in order of time, each with ``at`` and ``step``.

    Between looks that were lost, or of a release of another machine, the decisions have rows too.
    """
    seen = [(look["at"], look["step"], look["rows"]) for look in told["looks"]]
    if not seen:
        seen = [(d["at"], d["left"], d["rows"] or []) for d in told["decisions"]]
    found: dict[str, list[Told]] = {}
    for at, step, rows in seen:
        for row in cast("Sequence[Told]", rows):
            # A limit in milliseconds is part of a name, and moves with the champion's speed.
            name = str(row["name"]).split(", over ")[0]
            found.setdefault(name, []).append({**row, "at": at, "step": step})
    return found


def primary(told: Told) -> Drawing | None:
    """Return the primary measure with its confidence sequence and margin; None if unmeasured."""
    rows = [r for rows in series(told).values() for r in rows if r.get("role") == "primary"]
    if not _drawable(rows):
        return None
    axis = axis_of(told)
    with mpl.rc_context(PLAIN):
        figure, (drawn,) = side_by_side([1], height=3.0)
        _band(drawn, axis, rows, BLUE)
        drawn.axhline(0, color=GREY, lw=0.8)
        _limit(drawn, axis, rows)
        _steps(drawn, axis, told["history"])
        name = rows[-1]["name"]
        drawn.set(title=f"{name}, challenger − champion, with its confidence sequence and margin")
        drawn.set(xlabel=f"{axis.unit} since it was opened", xlim=(0, axis.end * 1.01))
        _unit(drawn, rows[-1])
        return Drawing(svg=svg(figure), text=f"{name} at {len(rows)} looks")


def guardrails(told: Told) -> Drawing | None:
    """Return errors, latency and every other check with a limit, one below the other."""
    chosen = {
        name: rows
        for name, rows in series(told).items()
        if rows[-1].get("role") not in ("primary", "process") and _drawable(rows)
    }
    if not chosen:
        return None
    axis, kept = axis_of(told), list(chosen.items())[:MOST_ROWS]
    lines = (len(kept) + 1) // 2
    with mpl.rc_context(PLAIN):
        figure = Figure(figsize=(9.6, 1.0 + 1.75 * lines), layout="constrained")
        cells = figure.subplots(lines, 2, sharex=True, squeeze=False).ravel()
        for cell, (name, rows) in zip(cells, kept, strict=False):
            colour = RED if rows[-1]["outcome"] == "fail" else ORANGE
            _band(cell, axis, rows, colour)
            _limit(cell, axis, rows)
            _steps(cell, axis, told["history"])
            cell.set_title(name, fontsize=9)
            _unit(cell, rows[-1])
        for cell in cells[len(kept) :]:
            cell.set_axis_off()
        for cell in cells[-2:]:
            cell.set(xlabel=f"{axis.unit} since it was opened", xlim=(0, axis.end * 1.01))
            cell.tick_params(labelbottom=True)
        return Drawing(svg=svg(figure), text=f"{len(kept)} checks with their limits")


def _drawable(rows: Sequence[Told]) -> bool:
    return any(row.get("estimate") is not None for row in rows)


def _runs(rows: Sequence[Told]) -> list[list[Told]]:
    """Return rows in runs of one step: evidence starts anew at each, so no line crosses."""
    runs: list[list[Told]] = []
    for row in rows:
        if row.get("estimate") is None:
            continue
        if not runs or runs[-1][-1]["step"] != row["step"]:
            runs.append([])
        runs[-1].append(row)
    return runs


def _band(drawn: Axes, axis: Axis, rows: Sequence[Told], colour: str) -> None:
    """Draw estimates with what surely holds around them, and keep the view near the estimates."""
    near = [float(r["limit"]) for r in rows if r.get("limit") is not None]
    for run in _runs(rows):
        at_l = np.array([axis.at(r["at"]) for r in run])
        found_l, low_l, high_l = (_numbers(run, name) for name in ("estimate", "low", "high"))
        drawn.plot(at_l, found_l, color=colour, lw=1.6, marker=".", ms=3)
        # An end that is not known yet lies outside of every view; without both there is no band.
        far = 50 * (float(np.abs(found_l).max()) + 1.0)
        below_l, above_l = np.nan_to_num(low_l, nan=-far), np.nan_to_num(high_l, nan=far)
        known_l = ~(np.isnan(low_l) & np.isnan(high_l))
        drawn.fill_between(at_l, below_l, above_l, where=known_l, color=colour, alpha=0.18, lw=0)
        near += [*found_l.tolist(), *(e for e in (low_l[-1], high_l[-1]) if not np.isnan(e))]
    spread = max(near) - min(near) or abs(near[0]) or 1.0
    drawn.set_ylim(min(near) - 0.15 * spread, max(near) + 0.15 * spread)


def _numbers(rows: Sequence[Told], name: str) -> NDArray[np.float64]:
    """Return a number of each row; NaN where it is not known."""
    return np.array([np.nan if r.get(name) is None else float(r[name]) for r in rows])


def _limit(drawn: Axes, axis: Axis, rows: Sequence[Told]) -> None:
    """Draw the limit along each step: that of a split is another one at each."""
    for run in _runs(rows):
        at_l = np.array([axis.at(r["at"]) for r in run])
        drawn.plot(at_l, _numbers(run, "limit"), color=RED, lw=1.1, ls="--")


def _unit(drawn: Axes, row: Told) -> None:
    unit = str(row.get("unit") or "")

    def said(value: float, _place: int) -> str:
        return quantity(float(value), unit)

    drawn.yaxis.set_major_locator(MaxNLocator(5))
    drawn.yaxis.set_major_formatter(FuncFormatter(said))


def scatter(pairs: Sequence[Sequence[float]]) -> Drawing:
    """Return the scores of copied requests against each other, and how far they lie apart."""
    points = np.array(pairs, dtype=float).reshape(-1, 2)
    ends = [float(points.min()), float(points.max())]
    with mpl.rc_context(PLAIN):
        figure, (drawn, apart) = side_by_side([1, 1.4], height=3.4)
        drawn.plot(ends, ends, color=GREY, lw=1, ls="--")
        drawn.plot(points[:, 0], points[:, 1], "o", ms=3.5, color=BLUE, alpha=0.45, mew=0)
        drawn.set(title=f"Scores of {len(points)} copied requests", xlabel="champion")
        drawn.set(ylabel="challenger")
        apart.hist(points[:, 1] - points[:, 0], bins=31, color=BLUE, alpha=0.6)
        apart.axvline(0, color=GREY, lw=1, ls="--")
        apart.set(title="Challenger − champion", ylabel="requests")
        return Drawing(svg=svg(figure), text=f"scores of {len(points)} copied requests")
