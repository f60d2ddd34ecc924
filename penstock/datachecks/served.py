"""Run the skew check on a log of served features: a verdict that a release can be made to need."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from penstock.bundle import Bundle, Summary, read, write_json
from penstock.datachecks import skew
from penstock.online import Layout
from penstock.online.served import read_served
from penstock.stage import carry_out
from penstock.verdict import Outcome, Verdict

KIND = "skew-verdict"

SAID = 3
"""Checks that the line names."""


def run(*, workload: str, snapshot: Path, served: Path, out: Path, now: datetime) -> Bundle:
    """Write the verdict on what was served, held against a snapshot's training rows, at ``out``.

    Raises:
        BundleError: The snapshot is not whole.
        OnlineError: The log cannot be read.
    """
    data = read(snapshot, kind="snapshot")
    read_served(served)
    return carry_out(
        "datachecks",
        kind=KIND,
        workload=workload,
        inputs={"snapshot": data},
        settings={"served": hashlib.sha256(served.read_bytes()).hexdigest()},
        make=lambda folder: _make(folder, data, served),
        out=out,
        now=now,
        quiet=True,
    )


def _make(folder: Path, snapshot: Bundle, path: Path) -> Summary:
    layout = Layout.from_dict(snapshot.json("online.json"))
    served = read_served(path)
    training = pq.read_table(snapshot.file("train.parquet"))
    features = {name: view.name for view in layout.views for name in view.features}
    checks = [
        skew.same_definitions(layout.definitions, served.definitions),
        *skew.judge(training, served.rows, features=features),
    ]
    verdict = Verdict(tuple(checks))
    write_json(folder / "verdict.json", verdict.to_dict())
    bad = [c for c in checks if c.outcome is not Outcome.PASS]
    said = [f"{c.name}: {c.reason}" for c in bad[:SAID]]
    if len(bad) > SAID:
        said.append(f"and {len(bad) - SAID} more")
    line = "; ".join([f"{len(served.rows)} look-ups", *(said or [verdict.reason])])
    return Summary(verdict.outcome, line)
