"""Run the features stage: join, check nothing was lost, fill the online store, write a snapshot."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import Summary, write_json
from penstock.features import snapshot
from penstock.stage import carry_out
from penstock.verdict import Outcome

SAMPLE = 64
"""Captures whose online values are compared with their offline ones."""


def run(*, workload: str, out: Path, now: datetime) -> None:
    """Write the workload's training snapshot as a bundle at ``out``.

    The bundle holds ``train.parquet``, ``holdout.parquet``, ``online.db`` (the materialized online
    store) and ``quality.json``.

    Raises:
        JoinError: The feature store lost, added or changed rows.
    """
    declared = workloads.load(workload)
    carry_out(
        "features",
        kind="snapshot",
        workload=workload,
        inputs={},
        settings={"feature_service": declared.feature_service, "label": declared.label},
        make=lambda directory: _make(directory, declared),
        out=out,
        now=now,
    )


def _make(directory: Path, declared: workloads.Workload) -> Summary:
    from penstock.features import feast  # noqa: PLC0415 - ten seconds; only when there is work

    data = workloads.part(declared.name, "data")
    source, labels = data.features(), data.labels()
    key = labels.column_names[0]
    service = declared.feature_service
    with feast.opened(source, module=declared.name, online=directory / "online.db") as store:
        joined = feast.join(store, service=service, labels=labels)
        rows = snapshot.in_label_order(joined, labels, key=key)
        first, last = pc.min_max(source["event_timestamp"]).as_py().values()
        feast.materialize(store, start=first - timedelta(seconds=1), end=last)
        sample = rows.slice(0, SAMPLE)
        online = feast.look_up(store, service=service, key=key, values=sample[key].to_pylist())
    if skewed := snapshot.differing(sample, online, key=key):
        raise snapshot.JoinError(f"online and offline values differ in {', '.join(skewed)}.")
    train, holdout = snapshot.split(rows, holdout_from=data.HOLDOUT_FROM)
    _write(directory, train=train, holdout=holdout)
    write_json(
        directory / "quality.json",
        {"labels": len(labels), "joined": len(rows), "train": len(train), "holdout": len(holdout)},
    )
    return Summary(
        Outcome.PASS,
        f"{len(train)} training and {len(holdout)} holdout rows, none lost; "
        f"online equals offline on {len(sample)} captures",
    )


def _write(directory: Path, **parts: pa.Table) -> None:
    for name, rows in parts.items():
        pq.write_table(rows.replace_schema_metadata(None), directory / f"{name}.parquet")
