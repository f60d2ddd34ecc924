"""Run the data checks on a snapshot: a verdict, and the profile the report draws."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, read, write_json
from penstock.datachecks import drift, freshness
from penstock.datachecks.rules import Examined, examine, judge
from penstock.stage import Refused, carry_out, verdict_of
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Dataset, settings_of

PICTURES = 24
"""Rows per part whose raw values go into the profile, for the report's first look."""


LISTED = 10_000
"""Rows written out of those that break one rule."""

VALUES = 5_000
"""Values of a column kept in the profile, taken evenly."""


def run(*, workload: str, snapshot: Path, reference: str = "", out: Path, now: datetime) -> None:
    """Write the verdict on a snapshot as a bundle at ``out``.

    The bundle holds ``verdict.json``, ``profile.json``, ``drift.json`` (what to draw of columns
    that were compared) and ``failing.parquet``: part, rule, row number and key of every row that
    breaks a rule, at most ``LISTED`` of each.

    Args:
        reference: Folder of an earlier snapshot, whose training rows these are compared with; empty
            compares the holdout with the training rows alone.

    Raises:
        BundleError: The snapshot is not whole.
        Refused: A rule failed; the text names the rules and their row counts.
    """
    declared = workloads.load_data(workload)
    data = read(snapshot, kind="snapshot")
    inputs = {"snapshot": data}
    if reference:
        inputs["reference"] = read(Path(reference), kind="snapshot")
    bundle = carry_out(
        "datachecks",
        kind="data-verdict",
        workload=workload,
        inputs=inputs,
        settings={"rules": settings_of(declared.data)},
        make=lambda directory: _make(directory, declared, **inputs),
        out=out,
        now=now,
    )
    verdict = verdict_of(bundle)
    if verdict.outcome is not Outcome.PASS:
        raise Refused(f"data refused: {bundle.summary.line}")


def _make(
    directory: Path, declared: Dataset, snapshot: Bundle, reference: Bundle | None = None
) -> Summary:
    parts = {n: pq.read_table(snapshot.file(f"{n}.parquet")) for n in ("train", "holdout")}
    examined = {n: examine(rows, declared.data, part=n) for n, rows in parts.items()}
    pairs = {"holdout from train": (parts["train"], parts["holdout"])}
    if reference is not None:
        earlier = pq.read_table(reference.file("train.parquet"))
        pairs["train from reference"] = (earlier, parts["train"])
    checks = [e.check for found in examined.values() for e in found]
    checks += [*_apart(parts, declared), *_found(snapshot, declared), *_fresh(snapshot, declared)]
    checks += _drift(pairs, declared)
    verdict = Verdict(tuple(checks))
    write_json(directory / "verdict.json", verdict.to_dict())
    profile = {name: _profile(rows, declared) for name, rows in parts.items()}
    write_json(directory / "profile.json", profile)
    write_json(directory / "drift.json", _drawn(pairs, declared))
    pq.write_table(_failing(parts, examined, declared), directory / "failing.parquet")
    bad = [c for c in verdict.checks if c.outcome is not Outcome.PASS]
    line = "; ".join(f"{c.name}: {c.reason}" for c in bad) or verdict.reason
    return Summary(verdict.outcome, line)


def judge_parts(parts: Mapping[str, pa.Table], declared: Dataset) -> Verdict:
    """Return the verdict on training and holdout rows together, and on their being apart."""
    checks = [c for n, rows in parts.items() for c in judge(rows, declared.data, part=n).checks]
    return Verdict((*checks, *_apart(parts, declared)))


def _apart(parts: Mapping[str, pa.Table], declared: Dataset) -> list[Check]:
    """Return whether no key is in both parts."""
    keys = list(declared.data.unique)
    if not all(k in rows.column_names for rows in parts.values() for k in keys):
        return []
    both = pa.concat_tables(
        [rows.select(keys).group_by(keys).aggregate([]) for rows in parts.values()]
    )
    shared = len(both) - len(both.group_by(keys).aggregate([]))
    return [
        Check(
            name="holdout apart from train",
            outcome=Outcome.FAIL if shared else Outcome.PASS,
            reason=f"{shared} keys in both",
            value=float(shared),
            limit=0.0,
        )
    ]


def _found(snapshot: Bundle, declared: Dataset) -> list[Check]:
    """Return whether enough label rows found their entity in each view, by the join's own proof."""
    if not declared.data.found:
        return []
    views = {view["view"]: view for view in snapshot.json("proof.json")["views"]}
    checks: list[Check] = []
    for rule in declared.data.found:
        name = f"known to {rule.view}"
        view = views.get(rule.view)
        if view is None or not view["labels"]:
            reason = f"the join has no rows of such a view; it has {', '.join(views)}"
            checks.append(Check(name=name, outcome=Outcome.ERROR, reason=reason))
            continue
        share = view["found"] / view["labels"]
        checks.append(
            Check(
                name=name,
                outcome=Outcome.PASS if share >= rule.share else Outcome.FAIL,
                reason=f"{view['found']} of {view['labels']} label rows have a value, at least "
                f"{rule.share:.0%} wanted",
                value=share,
                limit=rule.share,
            )
        )
    return checks


def _fresh(snapshot: Bundle, declared: Dataset) -> list[Check]:
    """Return whether the newest values were young enough when the data were taken."""
    if not declared.data.freshness:
        return []
    proof = snapshot.json("proof.json")
    newest = {
        feature: None if (held := proof["newest"][view["name"]]) is None else _instant(held)
        for view in snapshot.json("online.json")["views"]
        for feature in view["features"]
    }
    return freshness.judge(declared.data.freshness, newest, as_of=_instant(proof["as_of"]))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


Pairs = Mapping[str, tuple[pa.Table, pa.Table]]


def _drift(pairs: Pairs, declared: Dataset) -> list[Check]:
    rule = declared.data.drift
    if rule is None:
        return []
    return [
        check
        for against, (earlier, rows) in pairs.items()
        for check in drift.judge(earlier, rows, rule, against=against)
    ]


def _drawn(pairs: Pairs, declared: Dataset) -> dict[str, Any]:
    rule = declared.data.drift
    if rule is None:
        return {}
    return {
        against: drift.drawn(
            *pair, [c for c in rule.columns if all(c in t.column_names for t in pair)]
        )
        for against, pair in pairs.items()
    }


def _failing(
    parts: Mapping[str, pa.Table], examined: Mapping[str, list[Examined]], declared: Dataset
) -> pa.Table:
    """Return the rows that break a rule: part, rule, row number, key."""
    columns: dict[str, list[Any]] = {"part": [], "rule": [], "row": [], "key": []}
    for part, found in examined.items():
        keys = [k for k in declared.data.unique if k in parts[part].column_names]
        for one in found:
            if one.broken is None or one.check.outcome is Outcome.PASS:
                continue
            rows = np.flatnonzero(one.broken)[:LISTED]
            held = parts[part].select(keys).take(pa.array(rows)).to_pylist()
            columns["part"] += [part] * len(rows)
            columns["rule"] += [one.check.name.removeprefix(f"{part}: ")] * len(rows)
            columns["row"] += rows.tolist()
            columns["key"] += [json.dumps(k, default=str, sort_keys=True) for k in held]
    types = {"part": pa.string(), "rule": pa.string(), "row": pa.int64(), "key": pa.string()}
    return pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})


def _profile(rows: pa.Table, declared: Dataset) -> dict[str, Any]:
    if declared.label not in rows.column_names:
        return {"rows": len(rows)}
    counts = pc.value_counts(rows[declared.label]).to_pylist()
    numeric = [n for n in rows.column_names if pa.types.is_floating(rows[n].type)]
    lists = [n for n in rows.column_names if pa.types.is_list(rows[n].type)]
    return {
        "rows": len(rows),
        "labels": {
            str(c["values"]): c["counts"] for c in sorted(counts, key=lambda c: c["values"])
        },
        "numeric": {n: _sampled(rows[n]) for n in numeric},
        "pictures": {n: rows[n].slice(0, PICTURES).to_pylist() for n in lists},
        "picture_labels": rows[declared.label].slice(0, PICTURES).to_pylist(),
    }


def _sampled(values: pa.ChunkedArray) -> list[float]:
    """Return finite values, taken evenly where there are many."""
    held = values.drop_null().to_numpy()
    held = held[np.isfinite(held)]
    return held[:: max(1, len(held) // VALUES)].tolist()
