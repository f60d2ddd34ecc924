"""One page per run: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from penstock.bundle import MEASURED, Bundle, BundleError, read, write_text
from penstock.report import documents, gate, gateplots, plots
from penstock.report.release import summary
from penstock.report.style import CSS
from penstock.stats.distance import EQUAL_DB

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
        _section(record, "Quantization", "int8", _quantized),
        _section(record, "What the graphs cost", "engine", _built),
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
    speed = bundle.json(f"{MEASURED}/speed.json")
    rate = speed["examples_per_s"]
    said = (
        f"<p>The first {certificate['steps']} steps, trained twice on {certificate['device']}"
        f"{_shared(certificate['world'])}, {holds}: "
        f"<code>{escape(certificate['first'][7:23])}</code> and "
        f"<code>{escape(certificate['second'][7:23])}</code>. "
        + ("" if rate is None else f"{rate:,.0f} examples a second; ")
        + f"the proof took {speed['certificate_s']:.1f} s of "
        f"{speed['seconds'] + speed['certificate_s']:.1f}.</p>"
    )
    curve = _plot(plots.training(bundle.json("curve.json"), metric=_metric(bundle)))
    return said + curve + _searched(bundle) + _calibrated(bundle)


def _shared(world: int) -> str:
    return "" if world == 1 else f" by {world} processes"


def _metric(bundle: Bundle) -> str:
    return bundle.json("config.json")["metric"]


def _searched(bundle: Bundle) -> str:
    """Return the trials of the search, best first, where there was one."""
    if "search.json" not in bundle.manifest["files"]:
        return ""
    trials = sorted(bundle.json("search.json"), key=lambda t: (-t["metric"], t["number"]))
    names = list(trials[0]["parameters"])
    rows = [
        [str(t["number"]), f"{t['metric']:.4f}", *(f"{t['parameters'][n]:.4g}" for n in names)]
        for t in trials[:SHOWN]
    ]
    head = ["trial", f"validation {_metric(bundle)}", *names]
    return f"<p>Best of {len(trials)} trials of a search:</p>{_table(head, rows)}"


def _calibrated(bundle: Bundle) -> str:
    found = bundle.json("calibration.json")
    said = (
        f"<p>Probability of {escape(found['of'])} on {found['rows']} validation rows: it differs "
        f"from what happened by {found['error']:.4f} on average; of perfect ones, so few rows "
        f"would show {found['by_chance']:.4f}.</p>"
    )
    return said + _plot(plots.reliability(found))


def _quantized(bundle: Bundle) -> str:
    document, found = bundle.json("quantize.json"), bundle.json("sensitivity.json")
    said = (
        f"<p>{document['int8']} of {document['weighted']} weighted layers in int8, with "
        f"{escape(document['calibrator'])} ranges from {document['examples']} training rows. Each "
        f"layer alone in int8, on {found['rows']} validation rows, the most sensitive first:</p>"
    )
    rows = [
        [
            escape(layer["layer"]),
            escape(layer["operation"]),
            f"{layer['snr_db']:.1f} dB",
            "" if layer["metric_drop"] is None else f"{layer['metric_drop']:+.4f}",
            f"stays in float: {escape(layer['why'])}" if layer["float"] else "int8",
        ]
        for layer in found["layers"]
    ]
    head = ["layer", "operation", "signal to noise", "metric drop", ""]
    more = "".join(
        f"<p>On a CPU {escape(layer)} stays in float too: {escape(why)}.</p>"
        for layer, why in found["cpu"]["why"].items()
    )
    return said + _table(head, rows) + more


def _built(bundle: Bundle) -> str:
    cost = bundle.json("budgets.json")
    sizes = [f"p50 / p99 ms, batch {size}" for size in cost["batches"]]
    head = ["artifact", "first answer", "settled", *sizes, "a second", "memory", "to raw"]
    rows = [[escape(name), *_cost(found)] for name, found in cost["artifacts"].items()]
    said = f"<p>{escape(cost['int8_on_cpu']['said'])}. Raw: {escape(cost['floor'])}.</p>"
    return _table(head, rows) + said


def _cost(found: Record) -> list[str]:
    if "problem" in found:
        return [escape(found["problem"])]
    warm = found["warm_up_s"]
    return [
        f"{found['cold_start_s']:.2f} s",
        "not settled" if warm is None else f"{warm:.2f} s",
        *(f"{b['latency_p50_ms']:.2f} / {b['latency_p99_ms']:.2f}" for b in found["batches"]),
        f"{found['throughput_per_s']:,.0f}",
        f"{found['peak_memory_mb']:.0f} MB",
        f"×&nbsp;{found['batches'][1]['to_floor']:.2f}",
    ]


def _ladder(bundle: Bundle) -> str:
    verdict, document = bundle.json("verdict.json"), bundle.json("ladder.json")
    said = (
        "<p>Each step against the one before, on the holdout; engines on its golden rows. A slice \
below its limit is a group of users for whom the model changed.</p>"
    )
    wrong = "".join(
        f'<p class="bad">{escape(s["step"])} goes wrong at {escape(s["goes_wrong_at"])}.</p>'
        for s in document["steps"]
        if s["goes_wrong_at"]
    )
    drawn = _plot(plots.ladder(document)) + _engines(document) + _steps(document)
    return said + wrong + drawn + _noise(bundle, document) + _worst(bundle) + _checks(verdict)


def _engines(document: Record) -> str:
    """Return the engines that are no step of the ladder, and why."""
    words = {"built": "built, not run"}
    rows = [
        [escape(e["name"]), words.get(e["state"], escape(e["state"])), escape(e["reason"] or "–")]
        for e in document["engines"]
        if e["state"] != "run"
    ]
    return _table(["engine", "state", "why"], rows) if rows else ""


def _steps(document: Record) -> str:
    """Return every step on every slice: each number and its limit; first what did not pass."""
    steps = document["steps"]
    found = [{p["slice"]: p for p in (*s["slices"], *s["beyond"])} for s in steps]
    whole = steps[0]["slices"][0]["slice"]
    rows: list[list[str]] = []
    shown: list[list[str]] = []
    for name in dict.fromkeys(name for parts in found for name in parts):
        cells = [_cell(parts[name]) if name in parts else "–" for parts in found]
        rows.append([escape(name), *cells])
        outcomes = {parts[name]["outcome"] for parts in found if name in parts}
        if name == whole or outcomes != {"pass"}:
            shown.append(rows[-1])
    for name in steps[0]["empty"]:
        rows.append([escape(name), *["0 rows"] * len(steps)])
        shown.append(rows[-1])
    head = ["slice", *(f"{s['against']} → {s['step']}" for s in steps)]
    said = "share of decisions that stay, signal to noise, drop of the metric, each with its limit"
    return (
        f"<p>All rows, and slices that did not pass: {said}.</p>{_table(head, shown)}"
        f"<details><summary>all {len(rows)} slices</summary>{_table(head, rows)}</details>"
    )


def _cell(part: Record) -> str:
    limits: Record = part["limits"] or {}
    least, least_db = limits.get("min_agreement"), limits.get("min_snr_db")
    snr_db, drop = part["snr_db"], part["metric_drop"]
    noise = "equal bits" if snr_db >= EQUAL_DB else f"{snr_db:.0f} dB"
    said = [
        f"{part['agreement']:.2%}" + ("" if least is None else f" ≥ {100 * least:.4g}%"),
        noise + ("" if least_db is None else f" ≥ {least_db:.0f}"),
    ]
    if drop is not None:
        said.append(f"{drop:+.4f} ≤ {limits['max_metric_drop']:g}")
    mark = f'<span class="{_tone(part["outcome"])}">{MARKS[part["outcome"]]} {said[0]}</span>'
    return "<br>".join([mark, *said[1:]] if part["finite"] else [mark, "not finite"])


def _noise(bundle: Bundle, document: Record) -> str:
    """Return the plots of the layers: of both int8 graphs, and of each step that fails."""
    found = bundle.json("layers.json")
    return "".join(
        _plot(plots.layers(found[s["step"]], step=s["step"], least_db=_least_db(s)))
        for s in document["steps"]
        if found.get(s["step"]) and (s["step"] in ("int8", "int8-cpu") or s["outcome"] == "fail")
    )


def _least_db(step: Record) -> float | None:
    """Return the least signal to noise that is asked of a step on all rows."""
    return step["slices"][0]["limits"]["min_snr_db"]


def _worst(bundle: Bundle) -> str:
    """Return the few inputs that fared worst at each step."""
    rows = pq.read_table(bundle.file("worst.parquet")).to_pylist()
    shown = [
        [
            row["step"],
            escape(row["key"] or "not in the holdout"),
            "–" if row["label"] is None else str(row["label"]),
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
    """Return what the gate's own report draws, and its checks; the report itself has more."""
    numbers = bundle.json("scores.json")
    drawn = "".join(_plot(drawing.svg) for drawing in gateplots.drawings(numbers))
    head, found = gate.metric_rows(numbers)
    metrics = _table(head, [[escape(cell or "not measured") for cell in row] for row in found])
    said = f"<p>{escape(gate.against(numbers))} report.html in the gate's folder has more.</p>"
    return said + metrics + drawn + _checks(bundle.json("verdict.json"))


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
    """Return how the release went; a page of its own has all of it."""
    release: Record = record["release"] or {}
    told = release.get("told")
    if not told:
        why = release.get("reason") or "The run ended before this."
        return f"<section><h2>Release</h2><p>{escape(why)}</p></section>"
    command = f"penstock release timeline {told['status']['release']} --out release.html"
    more = f"<p>All of it, decision by decision: <code>{escape(command)}</code></p>"
    return f"<section><h2>Release</h2>{documents.blocks_html(summary(told))}{more}</section>"


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
