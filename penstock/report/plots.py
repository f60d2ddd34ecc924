"""Plots as SVG text: the same numbers give the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from penstock.stats.distance import EQUAL_DB

# Okabe and Ito's palette, which people with colour-blindness tell apart.
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#6b7280"
PLAIN: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "penstock",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}

Document = Mapping[str, Any]

LOWEST_DB, HIGHEST_DB = -10, 160
"""Ends of the ladder's axis; graphs that differ in the last bits of float32 lie near 140 dB."""

LONGEST_NAME = 24
"""Characters of a layer's name that are written, the last ones: they tell layers apart."""


def side_by_side(columns: Sequence[float], *, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of the page's width with axes of these relative widths; height in inches."""
    figure = Figure(figsize=(9.6, height), layout="constrained")
    axes = figure.subplots(1, len(columns), width_ratios=list(columns), squeeze=False)
    return figure, list(axes[0])


def svg(figure: Figure) -> str:
    """Return a figure as text: the same drawing gives the same bytes."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def data(profile: Document) -> str:
    """Return class counts of both parts, and their first numeric feature's values."""
    numeric = next(iter(profile["train"]["numeric"]), "")
    with mpl.rc_context(PLAIN):
        figure, (counts, ink) = side_by_side([1, 1], height=2.7)
        labels = sorted(profile["train"]["labels"], key=int)
        at = np.arange(len(labels))
        for offset, (part, colour) in zip(
            (-0.2, 0.2), (("train", BLUE), ("holdout", ORANGE)), strict=True
        ):
            held = profile[part]
            rows = max(1, held["rows"])
            shares = [held["labels"].get(n, 0) / rows for n in labels]
            counts.bar(at + offset, shares, 0.38, color=colour, label=f"{part} ({held['rows']})")
            values = held["numeric"].get(numeric, [])
            weights = np.full(len(values), 1 / max(1, len(values)))
            ink.hist(values, bins=24, weights=weights, histtype="step", color=colour, label=part)
        counts.set_xticks(at, labels)
        counts.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        counts.set(title="Share of each class", xlabel="class")
        counts.set_ylim(top=counts.get_ylim()[1] * 1.25)
        counts.legend(loc="upper center", ncols=2)
        ink.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ink.set(title=f"Values of {numeric}")
        ink.legend()
        return svg(figure)


def moved(bars: Document, *, title: str) -> str:
    """Return both distributions of a column; the last bar is of missing values.

    Args:
        bars: ``at`` where each bar begins, and the shares of ``reference`` and ``rows``.
    """
    at = np.arange(len(bars["at"]) + 1)
    with mpl.rc_context(PLAIN):
        figure, (axis,) = side_by_side([1], height=2.2)
        axis.bar(at, bars["reference"], 0.9, color=BLUE, alpha=0.45, label="before")
        axis.step(at, bars["rows"], where="mid", color=ORANGE, lw=1.6, label="now")
        every = max(1, len(at) // 8)
        begins: list[str] = [f"{bars['at'][i]:.3g}" for i in range(len(at) - 1)]
        # A value so common that it has a bar of its own is where the next one begins, too.
        names = [f"> {b}" if b in begins[:i] else b for i, b in enumerate(begins)]
        labels: list[str] = [*names[::every], "missing"]
        axis.set_xticks([*at[:-1][::every], at[-1]], labels)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set(title=title)
        axis.legend(ncols=2)
        return svg(figure)


def pictures(profile: Document) -> str:
    """Return the first training images with their labels."""
    part = profile["train"]
    name, images = next(iter(part["pictures"].items()))
    side = int(len(images[0]) ** 0.5)
    with mpl.rc_context(PLAIN):
        figure = Figure(figsize=(9.6, 1.9), layout="constrained")
        axes = figure.subplots(2, 12).ravel()
        for cell, image, label in zip(axes, images, part["picture_labels"], strict=False):
            cell.imshow(np.reshape(image, (side, side)), cmap="gray_r", vmin=0, vmax=16)
            cell.set_title(str(label), loc="center", fontsize=8, color=GREY, pad=2)
        for cell in axes:
            cell.set_axis_off()
        figure.supxlabel(name, fontsize=8, color=GREY)
        return svg(figure)


def training(curve: Sequence[Document], *, metric: str) -> str:
    """Return loss and validation metric by epoch."""
    epochs = [e["epoch"] for e in curve]
    with mpl.rc_context(PLAIN):
        figure, (loss, accuracy) = side_by_side([1, 1], height=2.6)
        loss.plot(epochs, [e["train_loss"] for e in curve], "o-", ms=3, color=BLUE, label="train")
        validation = [e["validation_loss"] for e in curve]
        loss.plot(epochs, validation, "o-", ms=3, color=ORANGE, label="validation")
        loss.set_yscale("log")
        loss.set(title="Loss (cross-entropy)", xlabel="epoch")
        loss.legend()
        shares = [e["validation_metric"] for e in curve]
        accuracy.plot(epochs, shares, "o-", ms=3, color=GREEN)
        if metric == "accuracy":
            accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        accuracy.set(title=f"Validation {metric}", xlabel="epoch")
        for axis in (loss, accuracy):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        return svg(figure)


def reliability(found: Document) -> str:
    """Return how often it happened against how probable it was said to be."""
    with mpl.rc_context(PLAIN):
        figure, (axis,) = side_by_side([1], height=2.9)
        draw_reliability(axis, found["bins"])
        axis.set(
            title=f"Reliability of the probability of {found['of']}",
            xlabel="predicted probability, bins of equally many rows",
        )
        return svg(figure)


def draw_reliability(axis: Axes, bins: Sequence[Document]) -> None:
    """Draw bins of rows (``n``, ``predicted``, ``happened``) beside the line of perfect ones."""
    predicted = [b["predicted"] for b in bins]
    happened = [b["happened"] for b in bins]
    reach = [2 * math.sqrt(b["predicted"] * (1 - b["predicted"]) / b["n"]) for b in bins]
    # A share does not reach beyond none and all.
    below = [min(r, h) for r, h in zip(reach, happened, strict=True)]
    above = [min(r, 1 - h) for r, h in zip(reach, happened, strict=True)]
    ends = [min([*predicted, *happened]), max([*predicted, *happened])]
    room = max(0.02, 0.1 * (ends[1] - ends[0]))
    low, high = max(0.0, ends[0] - room), min(1.0, ends[1] + room)
    axis.plot([low, high], [low, high], color=GREY, lw=1, ls="--", label="perfect")
    axis.errorbar(
        predicted,
        happened,
        yerr=[below, above],
        fmt="o-",
        ms=4,
        color=BLUE,
        label="happened (± two standard errors)",
    )
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.legend()


def ladder(document: Document) -> str:
    """Return how near each step stays to the one before, overall and on every slice, in decibels.

    Each mark has its limit below it where there is one. Higher is better; the axis ends at
    ``HIGHEST_DB``, where nothing but the last bits differs.

    Args:
        document: What ``ladder.json`` holds.
    """
    steps = document["steps"]
    with mpl.rc_context(PLAIN):
        figure, (axis,) = side_by_side([1], height=3.9)
        for at, step in enumerate(steps):
            _rung(axis, at, step)
        floor = document["floor"]
        floor_db: float = floor["snr_db"][steps[0]["slices"][0]["slice"]]
        first = [s["step"] for s in steps].index("int8")
        axis.hlines(_held(floor_db), first - 0.45, len(steps) - 0.55, color=GREY, lw=1, ls=":")
        axis.annotate(
            f"jitter floor {_db(floor_db)}", (len(steps) - 0.55, _held(floor_db)), ha="right",
            va="bottom", fontsize=7.5, color=GREY,
        )  # fmt: skip
        axis.set_xticks(range(len(steps)), [f"{s['against']} → {s['step']}" for s in steps])
        axis.set_yticks(
            [*range(0, HIGHEST_DB, 20), HIGHEST_DB],
            [*map(str, range(0, HIGHEST_DB, 20)), "equal bits"],
        )
        axis.set(xlim=(-0.5, len(steps) - 0.5), ylim=(LOWEST_DB - 6, HIGHEST_DB + 8))
        axis.set(
            title="Signal to noise of the outputs, higher is better",
            ylabel="signal to noise, dB",
        )
        axis.legend(handles=_ladder_keys(floor["jitter"]), loc="upper center", ncols=5,
                    bbox_to_anchor=(0.5, -0.09), fontsize=8)  # fmt: skip
        return svg(figure)


def _rung(axis: Axes, at: int, step: Document) -> None:
    """Draw all rows, then each slice, then what lies out of distribution, from left to right."""
    parts = [*step["slices"], *step["beyond"]]
    places = at + np.linspace(-0.4, 0.4, max(2, len(parts)))
    for x, part in zip(places, parts, strict=False):
        whole = part is parts[0]
        beyond = part in step["beyond"]
        failed = part["outcome"] not in ("pass", "inconclusive")
        colour = RED if failed else BLUE if whole else ORANGE if beyond else GREY
        y = _held(part["snr_db"])
        axis.plot(x, y, "D" if beyond else "o", ms=8 if whole else 4, color=colour)
        limit: float | None = part["limits"]["min_snr_db"] if part["limits"] else None
        if limit is not None:
            axis.plot(x, _held(limit), "_", color=RED, ms=12 if whole else 6, mew=1.2)
        # Where all rows fail, the names of all slices would lie on top of each other.
        if whole or (failed and parts[0]["outcome"] == "pass"):
            name = _db(part["snr_db"]) if whole else part["slice"]
            below = y > HIGHEST_DB - 12
            axis.annotate(
                name, (x, y), xytext=(0, -8 if below else 7), textcoords="offset points",
                ha="center", va="top" if below else "bottom", fontsize=7.5, color=colour,
            )  # fmt: skip


def _ladder_keys(jitter: float) -> list[Line2D]:
    def key(label: str, colour: str, marker: str, size: float = 5, line: str = "") -> Line2D:
        return Line2D([], [], color=colour, marker=marker, ms=size, ls=line, label=label)

    return [
        key("all rows", BLUE, "o", 8),
        key("a slice", GREY, "o"),
        key("out of distribution", ORANGE, "D"),
        key("limit", RED, "_", 8),
        key(f"int8 against itself, inputs {jitter:.0e} apart", GREY, "", line=":"),
    ]


def _held(value_db: float) -> float:
    """Return where a ratio is drawn: what lies beyond the axis, at its end."""
    return min(HIGHEST_DB, max(LOWEST_DB, value_db))


def _db(value_db: float) -> str:
    return "equal bits" if value_db >= EQUAL_DB else f"{value_db:.0f} dB"


def layers(found: Sequence[Document], *, step: str, least_db: float | None) -> str:
    """Return the signal-to-noise ratio of each layer of a step's graph, in order of computing."""
    with mpl.rc_context(PLAIN):
        figure, (axis,) = side_by_side([1], height=2.9)
        values = [_held(layer["snr_db"]) for layer in found]
        wrong = [least_db is not None and v < least_db for v in values]
        axis.bar(range(len(values)), values, color=[RED if w else BLUE for w in wrong], width=0.7)
        if least_db is not None:
            axis.axhline(least_db, color=RED, lw=1, ls="--")
        names = [layer["name"].strip("/").removesuffix("_output_0") for layer in found]
        every = max(1, len(names) // 40)
        axis.set_xticks(
            range(0, len(names), every),
            [name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}" for name in
             names[::every]],
            rotation=60, ha="right", fontsize=7,
        )  # fmt: skip
        title = f"Noise of {step} layer by layer, that of all before it included"
        axis.set(title=title, ylabel="signal to noise, dB")
        return svg(figure)
