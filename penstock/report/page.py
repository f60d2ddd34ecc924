"""One page per run: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from penstock.bundle import Bundle, BundleError, read, write_text
from penstock.report import plots
from penstock.report.style import CSS

Record = Mapping[str, Any]

GOOD = ("promoted", "unchanged", "registered", "pass")
SHOWN = 5
"""Inputs of each step that are listed as its worst."""

MARKS = {"pass": "✓", "fail": "✗", "error": "!", "inconclusive": "?"}


def write_page(record: Record, out: Path) -> Path:
    """Write the page of a run, whole or not at all, and return its path.

    Args:
        record: What ``run.json`` holds. A stage that was not reached, or whose bundle is damaged,
            is said so in its section.
    """
    title = f"{record['title']}: {record['outcome']}"
    body = "\n".join([_head(record), _figures(record), _flow(record), *_sections(record)])
    write_text(
        out,
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{body}</main></body></html>\n",
    )
    return out


def _head(record: Record) -> str:
    tone = _tone(record["outcome"])
    return (
        f'<header><p class="kicker">{escape(record["title"])} · run {escape(record["run_id"])}</p>'
        f'<h1 class="{tone}">{escape(record["outcome"].capitalize())}</h1>'
        f'<p class="reason">{escape(record["reason"] or "no reason was recorded")}</p></header>'
    )


def _tone(outcome: str) -> str:
    if outcome in GOOD:
        return "good"
    return "warn" if outcome in ("inconclusive", "rolled back", "interrupted") else "bad"


def _figures(record: Record) -> str:
    release: Record = record["release"] or {}
    before = record["champion"]
    shown = [
        ("version", record["version"]),
        ("over version", None if record["version"] in (None, before) else before),
        ("run took", f"{record['seconds']:.0f} s"),
        ("challenger ready in", _unit(release.get("ready_s"), "s")),
        ("release took", _unit(release.get("seconds"), "s")),
        ("noticed after", _unit(release.get("detected_s"), "s")),
        ("users back in", _unit(release.get("rollback_ms"), "ms")),
    ]
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in shown
        if value is not None
    )
    return f'<dl class="figures">{cells}</dl>'


def _unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:g} {unit}"


def _flow(record: Record) -> str:
    rows = [
        [
            escape(s["stage"]),
            f"{s['seconds']:.1f} s",
            _badge(s["outcome"]),
            ("<em>reused.</em> " if s["reused"] else "") + escape(s["line"]),
        ]
        for s in record["stages"]
    ]
    return (
        f"<section><h2>Stages</h2>{_table(['stage', 'took', '', 'what it found'], rows)}</section>"
    )


def _badge(outcome: str) -> str:
    return f'<span class="{_tone(outcome)}">{MARKS.get(outcome, "·")} {escape(outcome)}</span>'


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _sections(record: Record) -> list[str]:
    served = "skew" in record["bundles"]
    return [
        _section(record, "Data", "data_verdict", _data),
        _section(record, "Training", "model", _training),
        _section(record, "Equivalence ladder", "ladder", _ladder),
        _section(record, "Gate", "verdict", _gate),
        *([_section(record, "Served features", "skew", _skew)] if served else []),
        _release(record),
        _section(record, "Lineage", "package", _lineage),
    ]


def _section(record: Record, title: str, name: str, draw: Callable[[Bundle], str]) -> str:
    path = record["bundles"].get(name)
    if path is None:
        inner = "<p>The run ended before this.</p>"
    else:
        try:
            inner = draw(read(Path(path)))
        except (BundleError, KeyError, TypeError) as e:
            inner = f"<p>Nothing to show: {escape(str(e))}</p>"
    return f"<section><h2>{title}</h2>{inner}</section>"


def _plot(svg: str) -> str:
    return f'<figure class="wide">{svg}</figure>'


def _data(bundle: Bundle) -> str:
    profile = bundle.json("profile.json")
    said = "<p>Both parts should look alike; a class or a value that only one has is why \
a gate surprises.</p>"
    verdict = bundle.json("verdict.json")
    moved = "".join(_plot(svg) for svg in _moved(bundle, verdict))
    if "labels" not in profile["train"] or "labels" not in profile["holdout"]:
        return moved + _checks(verdict)
    drawn = _plot(plots.data(profile))
    if profile["train"]["pictures"]:
        drawn += _plot(plots.pictures(profile))
    return said + drawn + moved + _checks(verdict)


def _moved(bundle: Bundle, verdict: Record) -> list[str]:
    """Return a plot of each column whose distribution moved, or may have."""
    drift = bundle.json("drift.json")
    bad = [c["name"] for c in verdict["checks"] if c["outcome"] != "pass"]
    return [
        plots.moved(bars, title=f"{column}: {against}")
        for against, columns in drift.items()
        for column, bars in columns.items()
        if any(name.startswith(f"{against}: {column} ") for name in bad)
    ]


def _training(bundle: Bundle) -> str:
    certificate = bundle.json("certificate.json")
    holds = "repeated bit for bit" if certificate["holds"] else "did <b>not</b> repeat"
    said = (
        f"<p>The first {certificate['epochs']} epochs, trained twice on {certificate['device']}, "
        f"{holds}: <code>{escape(certificate['first'][7:23])}</code> and "
        f"<code>{escape(certificate['second'][7:23])}</code>.</p>"
    )
    return said + _plot(plots.training(bundle.json("curve.json")))


def _ladder(bundle: Bundle) -> str:
    verdict, document = bundle.json("verdict.json"), bundle.json("ladder.json")
    limits = {
        f"{step['step']} slice": c["limit"]
        for step in document["steps"]
        for c in verdict["checks"]
        if c["name"].startswith(f"{step['step']} class") and c["name"].endswith("agreement")
    }
    said = (
        "<p>Each step against the one before, on the holdout. A slice below its limit is a group \
of users for whom the model changed.</p>"
    )
    plot = _plot(plots.ladder(document, limits)) + _noise(bundle, verdict)
    return said + plot + _worst(bundle) + _checks(verdict)


def _noise(bundle: Bundle, verdict: Record) -> str:
    """Return the plot of the layers, where the two graphs have any in common."""
    found = bundle.json("layers.json")
    limits = [c["limit"] for c in verdict["checks"] if c["name"] == "int8 signal to noise (dB)"]
    return _plot(plots.layers(found, least_db=limits[0])) if found and limits else ""


def _worst(bundle: Bundle) -> str:
    """Return the few inputs that fared worst at each step."""
    rows = pq.read_table(bundle.file("worst.parquet")).to_pylist()
    shown = [
        [
            row["step"],
            escape(row["key"]),
            str(row["label"]),
            f"{row['before']} → {row['after']}",
            f"{row['error']:.3g}",
        ]
        for step in dict.fromkeys(r["step"] for r in rows)
        for row in [r for r in rows if r["step"] == step][:SHOWN]
    ]
    table = _table(["step", "input", "label", "decision", "largest error"], shown)
    said = f"the {SHOWN} worst inputs of each step; worst.parquet has more"
    return f"<details><summary>{said}</summary>{table}</details>"


def _gate(bundle: Bundle) -> str:
    scores = bundle.json("scores.json")
    against = "the champion" if scores["champion"] else "nobody: no version served yet"
    said = f"<p>The graph that serves, on the holdout, against {against}.</p>"
    return said + _plot(plots.gate(scores)) + _checks(bundle.json("verdict.json"))


def _skew(bundle: Bundle) -> str:
    said = "<p>Features as they were served, against the training rows.</p>"
    return said + _checks(bundle.json("verdict.json"))


def _checks(verdict: Record) -> str:
    rows = [
        [_badge(c["outcome"]), escape(c["name"]), escape(c["reason"])] for c in verdict["checks"]
    ]
    bad = [r for r, c in zip(rows, verdict["checks"], strict=True) if c["outcome"] != "pass"]
    shown = _table(["", "check", "found"], bad) if bad else ""
    rest = _table(["", "check", "found"], rows)
    word = f"{len(rows)} checks, {len(bad)} not passed"
    return f"{shown}<details><summary>{word}</summary>{rest}</details>"


def _release(record: Record) -> str:
    release = record["release"]
    if not release or not release["timeline"]:
        reason = release["reason"] if release else "The run ended before this."
        return f"<section><h2>Release</h2><p>{escape(reason)}</p></section>"
    rows = [
        [
            escape(s["name"]),
            f"{s['seconds']:.1f} s",
            _badge(s["verdict"]["outcome"]),
            "<br>".join(escape(f"{c['name']}: {c['reason']}") for c in s["verdict"]["checks"]),
        ]
        for s in release["steps"]
    ]
    drawn = plots.release(release["timeline"], outcome=release["outcome"])
    said = "<p>Evidence starts anew at each step; intervals hold however often one looks.</p>"
    table = _table(["step", "took", "", "evidence when it was left"], rows)
    return f"<section><h2>Release</h2>{said}{_plot(drawn)}{table}</section>"


def _lineage(bundle: Bundle) -> str:
    record = bundle.json("lineage.json")
    flat = {
        "package": bundle.digest,
        "code": record["code"]["git"] or record["code"]["sources"],
        "data": record["data"],
        "feature definitions": record["feature_definitions"],
        "seed": record["seed"],
        "image": record["image"] or "none: the steps ran as processes",
        "lock": record["environment"]["lock"],
        **{f"library {k}": v for k, v in record["environment"]["libraries"].items()},
        **{f"setting {k}": v for k, v in record["hyperparameters"].items()},
    }
    rows = [[escape(name), f"<code>{escape(str(value))}</code>"] for name, value in flat.items()]
    return _table(["what", "which"], rows)
