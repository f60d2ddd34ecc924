"""Plots as SVG text: the same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

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


def _figure(columns: Sequence[float], *, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(9.6, height), layout="constrained")
    axes = figure.subplots(1, len(columns), width_ratios=list(columns), squeeze=False)
    return figure, list(axes[0])


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def data(profile: Document) -> str:
    """Return class counts of both parts, and their first numeric feature's values."""
    numeric = next(iter(profile["train"]["numeric"]), "")
    with mpl.rc_context(PLAIN):
        figure, (counts, ink) = _figure([1, 1], height=2.7)
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
        return _svg(figure)


def moved(bars: Document, *, title: str) -> str:
    """Return both distributions of a column; the last bar is of missing values.

    Args:
        bars: ``at`` where each bar begins, and the shares of ``reference`` and ``rows``.
    """
    at = np.arange(len(bars["at"]) + 1)
    with mpl.rc_context(PLAIN):
        figure, (axis,) = _figure([1], height=2.2)
        axis.bar(at, bars["reference"], 0.9, color=BLUE, alpha=0.45, label="before")
        axis.step(at, bars["rows"], where="mid", color=ORANGE, lw=1.6, label="now")
        ticks = at[:: max(1, len(at) // 8)][:-1]
        names = [f"{bars['at'][i]:.3g}" for i in ticks]
        axis.set_xticks([*ticks, at[-1]], [*names, "missing"])
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set(title=title)
        axis.legend(ncols=2)
        return _svg(figure)


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
        return _svg(figure)


def training(curve: Sequence[Document]) -> str:
    """Return loss and validation accuracy by epoch."""
    epochs = [e["epoch"] for e in curve]
    with mpl.rc_context(PLAIN):
        figure, (loss, accuracy) = _figure([1, 1], height=2.6)
        loss.plot(epochs, [e["train_loss"] for e in curve], "o-", ms=3, color=BLUE, label="train")
        validation = [e["validation_loss"] for e in curve]
        loss.plot(epochs, validation, "o-", ms=3, color=ORANGE, label="validation")
        loss.set_yscale("log")
        loss.set(title="Loss (cross-entropy)", xlabel="epoch")
        loss.legend()
        shares = [e["validation_accuracy"] for e in curve]
        accuracy.plot(epochs, shares, "o-", ms=3, color=GREEN)
        accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        accuracy.set(title="Validation accuracy", xlabel="epoch")
        for axis in (loss, accuracy):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure)


def ladder(document: Document, limits: Mapping[str, float]) -> str:
    """Return what each step kept on every slice, with the limits.

    Args:
        limits: ``<step>`` and ``<step> slice``: least agreement overall and on a slice.
    """
    with mpl.rc_context(PLAIN):
        figure, axes = _figure([1] * len(document["steps"]), height=2.9)
        for axis, step in zip(axes, document["steps"], strict=True):
            slices = step["slices"]
            names = [s["slice"].removeprefix("class ") for s in slices]
            values = [s["agreement"] for s in slices]
            colours = [BLUE] + [GREY] * (len(values) - 1)
            axis.bar(range(len(values)), values, color=colours, width=0.7)
            limit = limits.get(f"{step['step']} slice")
            if limit is not None:
                axis.axhline(limit, color=RED, lw=1, ls="--")
            least = float(min(values if limit is None else [*values, limit]))
            room = 0.25 * (1.0 - least) + 0.0005
            axis.set_ylim(max(0.0, least - room), 1.0 + 0.1 * room)
            axis.set_xticks(range(len(names)), names)
            decimals = 1 if 1.0 - least > 0.005 else 2
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=decimals))
            noise = slices[0]["snr_db"]
            shown = "equal bits" if noise >= 400 else f"{noise:.0f} dB"
            title = f"{step['against']} → {step['step']}: same decision ({shown})"
            line = "" if limit is None else f"; dashed: limit of a slice, {limit:.1%}"
            axis.set(title=title, xlabel=f"slice{line}")
        return _svg(figure)


def layers(found: Sequence[Document], *, least_db: float) -> str:
    """Return the signal-to-noise ratio of each layer of the int8 graph, in order of computing."""
    with mpl.rc_context(PLAIN):
        figure, (axis,) = _figure([1], height=2.6)
        values = [layer["snr_db"] for layer in found]
        colours = [RED if v < least_db else BLUE for v in values]
        axis.bar(range(len(values)), values, color=colours, width=0.7)
        axis.axhline(least_db, color=RED, lw=1, ls="--")
        axis.set_xticks(
            range(len(values)), [layer["name"] for layer in found], rotation=60, ha="right"
        )
        title = "Noise of int8 layer by layer, that of all before it included"
        axis.set(title=title, ylabel="signal to noise, dB")
        return _svg(figure)


def gate(scores: Document) -> str:
    """Return accuracy by class with intervals, and the challenger's confusion matrix."""
    with mpl.rc_context(PLAIN):
        figure, (forest, confusion) = _figure([1.25, 1], height=3.6)
        for offset, name, colour in ((0.15, "challenger", BLUE), (-0.15, "champion", ORANGE)):
            if scores[name] is None:
                continue
            rows = [r for r in scores[name]["by_class"] if r["accuracy"] is not None]
            at = [r["class"] + offset for r in rows]
            low = [max(0.0, r["accuracy"] - r["low"]) for r in rows]
            high = [max(0.0, r["high"] - r["accuracy"]) for r in rows]
            values = [r["accuracy"] for r in rows]
            forest.errorbar(
                values, at, xerr=[low, high], fmt="o", ms=4, lw=1.2, color=colour, label=name
            )
        forest.invert_yaxis()
        forest.set_yticks(range(len(scores["challenger"]["by_class"])))
        forest.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        forest.set(title="Accuracy by digit, 95 % intervals", ylabel="digit")
        forest.legend(loc="lower center", bbox_to_anchor=(0.5, -0.24), ncols=2)
        _confusion(confusion, np.array(scores["challenger"]["confusion"]))
        return _svg(figure)


def _confusion(axis: Axes, counts: np.ndarray) -> None:
    shown = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axis.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shown[row, column] > 0.5 else "#111827"
        axis.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=7,
            color=colour,
        )
    axis.set_xticks(range(len(counts)))
    axis.set_yticks(range(len(counts)))
    axis.set(title="What the challenger answered", xlabel="decided", ylabel="true digit")


def release(timeline: Sequence[Document], *, outcome: str) -> str:
    """Return users on the challenger, latency, errors and wrong answers over the release."""
    at = np.array([t["at_s"] for t in timeline])
    with mpl.rc_context(PLAIN):
        figure = Figure(figsize=(9.6, 5.6), layout="constrained")
        share, latency, errors, wrong = figure.subplots(
            4, 1, sharex=True, height_ratios=[1.4, 1, 1, 1]
        )
        percents = [t["percent"] for t in timeline]
        share.step(at, percents, where="post", color=BLUE)
        share.fill_between(at, percents, step="post", color=BLUE, alpha=0.15)
        share.set(ylim=(-4, 112), title="Users on the challenger, %")
        _steps(share, timeline)
        for name, colour in (("champion", ORANGE), ("challenger", BLUE)):
            arms = [t[name] for t in timeline]
            latency.plot(at, [_or_nan(a["p99_ms"]) for a in arms], color=colour, label=name)
            shares = [_share(a["errors"], a["requests"]) for a in arms]
            errors.plot(at, shares, color=colour)
            wrong.plot(at, [_share(a["wrong"], a["labelled"]) for a in arms], color=colour)
        latency.set(title="Latency p99 since the step began, ms")
        latency.set_ylim(0, latency.get_ylim()[1] * 1.35)
        latency.legend(loc="upper left", ncols=2)
        errors.set(title="Failed requests")
        wrong.set(title="Wrong answers", xlabel="seconds since the release began")
        for axis in (errors, wrong):
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axis.set_ylim(-0.01, max(0.12, axis.get_ylim()[1]))
        colour = GREEN if outcome == "promoted" else RED
        for axis in (share, latency, errors, wrong):
            axis.axvline(at[-1], color=colour, lw=1.2)
        share.annotate(outcome, (at[-1], 106), ha="right", color=colour, xytext=(-4, 0),
                       textcoords="offset points")  # fmt: skip
        return _svg(figure)


def _steps(axis: Axes, timeline: Sequence[Document]) -> None:
    """Write each step's name where it begins."""
    last = ""
    for seen in timeline:
        if seen["step"] != last:
            last = seen["step"]
            axis.axvline(seen["at_s"], color=GREY, lw=0.6, ls=":")
            axis.annotate(
                last.replace("progressive ", "").replace("canary ", "canary\n"),
                (seen["at_s"], 96),
                va="top",
                fontsize=7.5,
                color=GREY,
                xytext=(3, 0),
                textcoords="offset points",
            )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _share(events: int, trials: int) -> float:
    return events / trials if trials else float("nan")
