"""Run the data checks on a snapshot: a verdict, and the profile the report draws."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, read, write_json
from penstock.datachecks.rules import judge
from penstock.stage import Refused, carry_out, verdict_of
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Dataset, settings_of

PICTURES = 24
"""Rows per part whose raw values go into the profile, for the report's first look."""


def run(*, workload: str, snapshot: Path, out: Path, now: datetime) -> None:
    """Write the verdict on a snapshot as a bundle at ``out``: ``verdict.json``, ``profile.json``.

    Raises:
        BundleError: The snapshot is not whole.
        Refused: A rule failed; the text names the rules and their row counts.
    """
    declared = workloads.load_data(workload)
    data = read(snapshot, kind="snapshot")
    bundle = carry_out(
        "datachecks",
        kind="data-verdict",
        workload=workload,
        inputs={"snapshot": data},
        settings={"rules": settings_of(declared.data)},
        make=lambda directory: _make(directory, declared, data),
        out=out,
        now=now,
    )
    verdict = verdict_of(bundle)
    if verdict.outcome is not Outcome.PASS:
        raise Refused(f"data refused: {bundle.summary.line}")


def _make(directory: Path, declared: Dataset, data: Bundle) -> Summary:
    parts = {n: pq.read_table(data.file(f"{n}.parquet")) for n in ("train", "holdout")}
    verdict = judge_parts(parts, declared)
    write_json(directory / "verdict.json", verdict.to_dict())
    profile = {name: _profile(rows, declared) for name, rows in parts.items()}
    write_json(directory / "profile.json", profile)
    bad = [c for c in verdict.checks if c.outcome is not Outcome.PASS]
    line = "; ".join(f"{c.name}: {c.reason}" for c in bad) or verdict.reason
    return Summary(verdict.outcome, line)


def judge_parts(parts: dict[str, pa.Table], declared: Dataset) -> Verdict:
    """Return the verdict on training and holdout rows together, and on their being apart."""
    checks = [
        c for name, rows in parts.items() for c in judge(rows, declared.data, part=name).checks
    ]
    keys = list(declared.data.unique)
    if all(k in rows.column_names for rows in parts.values() for k in keys):
        both = pa.concat_tables([rows.select(keys) for rows in parts.values()])
        shared = len(both) - len(both.group_by(keys).aggregate([]))
        checks.append(
            Check(
                name="holdout apart from train",
                outcome=Outcome.FAIL if shared else Outcome.PASS,
                reason=f"{shared} keys in both",
                value=float(shared),
                limit=0.0,
            )
        )
    return Verdict(tuple(checks))


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
        "numeric": {
            n: rows[n].drop_null().to_pylist()
            for n in numeric
            if not pc.any(pc.is_nan(rows[n])).as_py()
        },
        "pictures": {n: rows[n].slice(0, PICTURES).to_pylist() for n in lists},
        "picture_labels": rows[declared.label].slice(0, PICTURES).to_pylist(),
    }
