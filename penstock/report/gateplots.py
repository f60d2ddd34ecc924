"""Plots of a gate's numbers: slices, probabilities, decisions, costs, groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from penstock.policy import FALLING
from penstock.report.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PLAIN,
    RED,
    Document,
    draw_reliability,
    side_by_side,
    svg,
)

PURPLE = "#cc79a7"
"""Of the same palette as the others."""

COLOURS = {"pass": BLUE, "fail": RED, "error": PURPLE, "inconclusive": ORANGE}

LONGEST_NAME = 34
"""Characters of a slice's or group's name that are written."""

FOUR_FIFTHS = 0.8
"""Share of the most favoured group's that each group should at least have, by the rule of thumb of
the Uniform Guidelines on Employee Selection Procedures (1978), 29 CFR 1607.4(D)."""

_WORDS = {"auc": "AUC", "brier": "Brier score"}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A plot, and the sentence that stands for it where none can be shown."""

    svg: str
    text: str


def worded(metric: str) -> str:
    """Return a metric's name as people write it."""
    return _WORDS.get(metric, metric.replace("_", " "))


def drawings(numbers: Document) -> list[Drawing]:
    """Return every plot that a gate's numbers (``scores.json``) allow."""
    return [*slices(numbers), *decisions(numbers), *groups(numbers)]


def slices(numbers: Document) -> list[Drawing]:
    """Return a forest plot for each metric that is asked of slices: all rows, then each slice.

    Beside a champion it is of the difference to it, with the margin; otherwise of the metric
    itself. Where nothing is asked of slices, all rows stand alone with the task's metric.
    """
    named = dict.fromkeys([numbers["metric"], *(s["metric"] for s in numbers["slices"])])
    return [_forest(numbers, metric) for metric in named]


def _forest(numbers: Document, metric: str) -> Drawing:
    whole = numbers["metrics"][metric]
    compared = whole["difference"] is not None
    parts = [s for s in numbers["slices"] if s["metric"] == metric]
    rows = [{**whole, "name": "all rows", "n": numbers["n"], "outcome": ""}, *parts]
    of = "difference" if compared else "challenger"
    said = f"{worded(metric)}, challenger − champion" if compared else worded(metric)
    better = "left" if metric in FALLING else "right"
    with mpl.rc_context(PLAIN):
        figure, (axis,) = side_by_side([1], height=1.3 + 0.235 * len(rows))
        for at, row in enumerate(rows):
            _forest_row(axis, at, row, of)
            _margin(axis, at, row, metric if compared else None)
        if compared:
            axis.axvline(0, color=GREY, lw=0.8)
        axis.set_yticks(range(len(rows)), [f"{_short(r['name'])}  ({r['n']:,})" for r in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color=GREY, alpha=0.18, lw=0.6)
        axis.xaxis.set_major_locator(MaxNLocator(9))
        title = said[0].upper() + said[1:]
        # Long names leave the axes no room for title and legend side by side.
        axis.set_title(f"{title}, 95 % intervals", pad=20)
        axis.set_xlabel(f"better to the {better}")
        keys = _forest_keys(rows, compared=compared)
        axis.legend(handles=keys, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=len(keys),
                    borderaxespad=0.1, handletextpad=0.4, columnspacing=1.2)  # fmt: skip
        return Drawing(svg=svg(figure), text=f"{said} on all rows and {len(parts)} slices")


def _forest_row(axis: Axes, at: int, row: Document, of: str) -> None:
    """Draw one row's number with its interval, or say that there is none."""
    found = row[of]
    colour = COLOURS.get(row["outcome"], GREY)
    if found is None:
        # In the middle of the axes, whatever numbers the others have.
        axis.annotate("no number", (0.5, at), xycoords=("axes fraction", "data"), ha="center",
                      va="center", fontsize=8, color=colour)  # fmt: skip
        return
    if found["low"] is not None:
        axis.plot([found["low"], found["high"]], [at, at], color=colour, lw=1.4)
    first = row["name"] == "all rows"
    axis.plot(found["value"], at, "D" if first else "o", ms=6 if first else 4.5, color=colour)


def _margin(axis: Axes, at: int, row: Document, metric: str | None) -> None:
    """Draw how far to the bad side a difference may reach."""
    margin = row.get("margin")
    if metric is None or margin is None:
        return
    bound = margin if metric in FALLING else -margin
    axis.plot([bound, bound], [at - 0.42, at + 0.42], color=RED, lw=1.3)


def _forest_keys(rows: Sequence[Document], *, compared: bool) -> list[Line2D]:
    words = {"": "all rows", None: "nothing asked", "pass": "passed", "fail": "failed",
             "inconclusive": "inconclusive", "error": "no evidence"}  # fmt: skip
    seen = [o for o in words if any(r["outcome"] == o for r in rows)]
    keys = [
        Line2D([], [], color=COLOURS.get(o or "", GREY), marker="D" if o == "" else "o", ms=5,
               lw=1.4, label=words[o])
        for o in seen
    ]  # fmt: skip
    if compared and any(r.get("margin") is not None for r in rows):
        keys.append(Line2D([], [], color=RED, marker="|", ms=9, mew=1.4, lw=0, label="margin"))
    return keys


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def decisions(numbers: Document) -> list[Drawing]:
    """Return two by two what there is of: ROC, reliability, confusion, cost by threshold."""
    panels: list[tuple[str, Callable[[Axes, Document], None], bool]] = [
        ("ROC", _roc, bool(numbers["roc"])),
        ("reliability", _reliability, bool(numbers["reliability"])),
        ("confusion", _confusion, bool(numbers["confusion"])),
        ("cost by threshold", _costs, bool(numbers["costs"])),
    ]
    present = [(name, draw) for name, draw, there in panels if there]
    return [_beside(present[at : at + 2], numbers) for at in range(0, len(present), 2)]


def _beside(
    panels: Sequence[tuple[str, Callable[[Axes, Document], None]]], numbers: Document
) -> Drawing:
    with mpl.rc_context(PLAIN):
        # One panel alone takes half the width: a square stays one.
        figure, axes = side_by_side([1, 1], height=3.7)
        for axis, (_, draw) in zip(axes, panels, strict=False):
            draw(axis, numbers)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        return Drawing(svg=svg(figure), text=" and ".join(name for name, _ in panels))


def _roc(axis: Axes, numbers: Document) -> None:
    found = numbers["metrics"].get("auc") or {}
    for name, colour, line in (("champion", ORANGE, "-"), ("challenger", BLUE, "-")):
        points = numbers["roc"][name]
        if points is None:
            continue
        area = found.get(name)
        label = name if area is None else f"{name}, area {area['value']:.3f}"
        at, y = np.array(points).T
        axis.plot(at, y, color=colour, ls=line, lw=1.5, label=label)
    axis.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label="chance")
    axis.set(title="ROC", xlabel="share of 0s taken for 1", ylabel="share of 1s found",
             xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))  # fmt: skip
    axis.set_aspect("equal")
    _in_percent(axis)
    axis.legend(loc="lower right")


def _reliability(axis: Axes, numbers: Document) -> None:
    draw_reliability(axis, numbers["reliability"])
    of = "class 1" if len(numbers["confusion"]) == 2 else "the decided class"
    axis.set(title=f"Reliability of the probability of {of}",
             xlabel="predicted, bins of equally many rows", ylabel="happened")  # fmt: skip


def _confusion(axis: Axes, numbers: Document) -> None:
    counts = np.array(numbers["confusion"])
    shown = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axis.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        light = shown[row, column] > 0.5
        axis.text(
            column, row, f"{counts[row, column]:,}", ha="center", va="center",
            fontsize=11 if len(counts) < 4 else 7, color="white" if light else "#111827",
        )  # fmt: skip
    axis.set_xticks(range(len(counts)))
    axis.set_yticks(range(len(counts)))
    axis.set(title="What the challenger decided", xlabel="decided", ylabel="true class")


def _costs(axis: Axes, numbers: Document) -> None:
    costs = numbers["costs"]
    threshold_c, cost_c = np.array(costs["curve"]).T
    axis.plot(threshold_c, cost_c, color=BLUE, lw=1.5)
    axis.axvline(costs["threshold"], color=ORANGE, lw=1.3,
                 label=f"it decides from {costs['threshold']:.3g} on")  # fmt: skip
    # Where no rule asks for the least cost, no threshold was chosen.
    if (best := costs["best_threshold"]) is not None:
        axis.axvline(best, color=GREEN, lw=1.3, ls="--",
                     label=f"best on validation rows, {best:.3g}")  # fmt: skip
    axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * 1.25)
    axis.set(title="Cost of a decision on the holdout", xlabel="threshold of the probability",
             ylabel="cost, in the workload's unit")  # fmt: skip
    axis.legend(loc="upper left", frameon=True, framealpha=0.9, edgecolor="none")


def _in_percent(axis: Axes) -> None:
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def groups(numbers: Document) -> list[Drawing]:
    """Return for each sensitive attribute who gets the good decision, and who of the deserving."""
    return [_groups(found) for found in numbers["fairness"]]


def _groups(found: Document) -> Drawing:
    held = found["groups"]
    most = max((g["favoured"] for g in held if g["favoured"] is not None), default=None)
    at_g = np.arange(len(held))
    with mpl.rc_context(PLAIN):
        figure, (axis,) = side_by_side([1], height=1.15 + 0.5 * len(held))
        for offset, name, colour, label in (
            (-0.19, "favoured", BLUE, "get the good decision"),
            (0.19, "opportunity", GREEN, "of those who deserve it"),
        ):
            shares = [g[name] for g in held]
            axis.barh(at_g + offset, [s or 0 for s in shares], 0.34, color=colour, label=label)
            for at, share in zip(at_g, shares, strict=True):
                _beside_bar(axis, float(at + offset), share)
        if most is not None:
            axis.axvline(FOUR_FIFTHS * most, color=RED, lw=1.1, ls="--",
                         label="four fifths of the most favoured")  # fmt: skip
        axis.set_yticks(at_g, [f"{_short(g['name'])}  ({g['n']:,})" for g in held])
        axis.set_ylim(len(held) - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(0, 1.08)
        axis.set_xticks(np.linspace(0, 1, 6))
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set(title=f"Groups by {found['attribute']}")
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2,
                    handlelength=1.4, columnspacing=1.2)  # fmt: skip
        return Drawing(svg=svg(figure), text=f"who gets the good decision, by {found['attribute']}")


def _beside_bar(axis: Axes, at: float, share: Any) -> None:
    text = "no rows" if share is None else f"{share:.1%}"
    axis.annotate(text, (share or 0, at), xytext=(3, 0), textcoords="offset points", va="center",
                  fontsize=7.5, color=GREY)  # fmt: skip
