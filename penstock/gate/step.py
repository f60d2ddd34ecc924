"""Run the gate: score challenger and champion on one holdout, judge, write the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock import chained, storage
from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, read, write_json
from penstock.gate import gathered
from penstock.gate.behaviour import judge_behaviours
from penstock.gate.judge import Judgement, judge
from penstock.stage import carry_out, verdict_of
from penstock.stats import holdback
from penstock.stats.scored import Scored
from penstock.stats.slices import masks
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import LeastCost, Workload, settings_of, task_of

SEED = 20260101
"""Of the bootstrap: the same scores always give the same verdict."""

PROMOTE, REJECT = "promote", "reject"


def run(
    *,
    workload: str,
    snapshot: Path,
    data_verdict: Path,
    model: Path,
    serving: Path,
    engine: Path,
    equivalence: Path,
    champion: str,
    out: Path,
    now: datetime,
) -> str:
    """Write the gate's verdict as a bundle and return ``promote`` or ``reject``.

    It holds ``verdict.json``, ``scores.json`` (every number behind it), ``behaviours.json`` and the
    report, ``report.md`` and ``report.html``.

    Args:
        serving: The bundle whose graph will serve (``onnx`` or ``int8``); it is the one scored.
        champion: Folder or address of the champion's package, or empty when no version serves yet.

    Raises:
        BundleError: An input is not whole, or the inputs do not belong together. A bad model does
            not raise; it is rejected.
    """
    declared = workloads.load(workload)
    inputs = {
        "snapshot": read(snapshot, kind="snapshot"),
        "data-verdict": read(data_verdict, kind="data-verdict"),
        "model": read(model, kind="model"),
        "serving": read(serving, kind=declared.serve),
        "engine": read(engine, kind="engine"),
        "equivalence": read(equivalence, kind="equivalence"),
    }
    if champion:
        inputs["champion"] = storage.opened(champion, kind="package")
    chained.check(workload, inputs, serve=declared.serve)
    age_days = gathered.data_age_days(declared, inputs["snapshot"], now=now)
    bundle = carry_out(
        "gate",
        kind="gate",
        workload=workload,
        inputs=inputs,
        settings=_settings(declared, age_days),
        make=lambda folder: _make(folder, declared, inputs, age_days),
        out=out,
        now=now,
    )
    return PROMOTE if verdict_of(bundle).outcome is Outcome.PASS else REJECT


def _settings(declared: Workload, age_days: int | None) -> dict[str, Any]:
    """Return what the gate uses of the declaration, and the age of the data.

    The time of the call is in no recipe, so a kept verdict would be found whatever the time; the
    age, which it counts for, keeps one of fresh data from speaking for the same data grown old.
    """
    return {
        "rules": [{"rule": type(rule).__name__, **vars(rule)} for rule in declared.gate],
        "behaviours": [
            {"behaviour": type(tested).__name__, **vars(tested)} for tested in declared.behaviours
        ],
        "slices": [settings_of(part) for part in declared.slices],
        "sensitive": [settings_of(attribute) for attribute in declared.sensitive],
        "costs": None if declared.costs is None else settings_of(declared.costs),
        "favourable": declared.favourable,
        "min_support": declared.min_support,
        "data_age_days": age_days,
        "seed": SEED,
        "serve": declared.serve,
        "task": task_of(declared),
    }


def _make(
    folder: Path, declared: Workload, inputs: Mapping[str, Bundle], age_days: int | None
) -> Summary:
    from penstock.report import gate as report  # noqa: PLC0415 - matplotlib; only when drawing

    rows = pq.read_table(inputs["snapshot"].file("holdout.parquet"))
    graph = gathered.Graph(inputs["serving"].file(workloads.served_graph(declared)), declared)
    champion, unscored = _champion(declared, inputs, rows)
    judged = judge(
        declared,
        graph.scored(rows, threshold=declared.threshold),
        champion,
        slices=masks(rows, declared),
        groups=gathered.groups(declared, inputs["snapshot"], rows),
        validation=_validation(declared, graph, inputs["snapshot"]),
        budget=gathered.budget(inputs["engine"], declared),
        data_age_days=age_days,
        rng=np.random.default_rng(SEED),
        incomparable=unscored,
    )
    behaved = judge_behaviours(declared, rows, graph.answer)
    broken = _unscored(unscored)
    checks = (*_earlier(inputs), *broken, *judged.verdict.checks, *(f.check for f in behaved))
    verdict = Verdict(checks)
    behaviours = [found.to_dict() for found in behaved]
    write_json(folder / "verdict.json", verdict.to_dict())
    write_json(folder / "scores.json", judged.numbers)
    write_json(folder / "behaviours.json", behaviours)
    page = report.gate_page(
        declared.title, verdict, judged.numbers, behaviours, facts=_facts(inputs, age_days)
    )
    report.write(folder, page)
    return Summary(verdict.outcome, f"{_line(judged, inputs)}; {verdict.reason}")


def _champion(
    declared: Workload, inputs: Mapping[str, Bundle], rows: pa.Table
) -> tuple[Scored | None, str]:
    """Return the champion's scores, and why one that there is cannot be scored."""
    if "champion" not in inputs:
        return None, ""
    try:
        return gathered.champion(inputs["champion"], declared, rows), ""
    except gathered.Unscored as e:
        return None, str(e)


def _unscored(why: str) -> list[Check]:
    """Return an error of a champion that there is and cannot be scored, whatever rules ask."""
    return [Check(name="champion", outcome=Outcome.ERROR, reason=why)] if why else []


def _validation(declared: Workload, graph: gathered.Graph, snapshot: Bundle) -> Scored | None:
    """Return the challenger's scores of the rows kept back from training, where a rule asks."""
    if not any(isinstance(rule, LeastCost) for rule in declared.gate):
        return None
    _, kept = holdback.split(pq.read_table(snapshot.file("train.parquet")))
    return graph.scored(kept, threshold=declared.threshold)


def _earlier(inputs: Mapping[str, Bundle]) -> list[Check]:
    """Return one check for each earlier stage's evidence; what is not a pass stays what it is."""
    checks = [
        Check(name=kind, outcome=verdict_of(b).outcome, reason=verdict_of(b).reason)
        for kind, b in inputs.items()
        if kind in ("data-verdict", "equivalence")
    ]
    certificate = inputs["model"].json("certificate.json")
    return [
        *checks,
        Check(
            name="determinism",
            outcome=Outcome.PASS if certificate["holds"] else Outcome.FAIL,
            reason=f"first {certificate['steps']} steps trained twice on {certificate['device']}",
        ),
    ]


def _facts(inputs: Mapping[str, Bundle], age_days: int | None) -> list[tuple[str, str | None]]:
    """Return what was judged; of everything its name and the beginning of its contents' hash."""
    found = [(name, f"{b.fingerprint}, {b.digest[7:19]}") for name, b in inputs.items()]
    alone = [] if "champion" in inputs else [("champion", "none serves yet")]
    age = None if age_days is None else f"{age_days} days, each begun one counted"
    return [*found, *alone, ("age of nine training rows in ten", age)]


def _line(judged: Judgement, inputs: Mapping[str, Bundle]) -> str:
    numbers = judged.numbers
    metric, found = numbers["metric"], numbers["metrics"][numbers["metric"]]["challenger"]
    value = "unknown" if found is None else f"{found['value']:.4f}"
    against = "the champion" if "champion" in inputs else "no champion yet"
    if numbers["incomparable"]:
        against = "a champion that could not be scored"
    return f"{metric} {value} on {numbers['n']} holdout rows against {against}"
