"""Run the features stage: join, prove, fill the online store, write a snapshot."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import Summary, code_revision, write_json
from penstock.features import snapshot
from penstock.features.join import JoinError, View, check
from penstock.features.planting import planted
from penstock.features.source import SourceError, ticks
from penstock.online import Lookup, opened
from penstock.stage import carry_out
from penstock.verdict import Outcome
from penstock.workload import Dataset

SAMPLE = 64
"""Newest label rows whose online values are compared with their offline ones."""

LAYOUT = "online.json"
"""Where online values lie, for look-ups."""

TIME = "event_timestamp"
"""The labels' timestamp column."""


def run(*, workload: str, out: Path, now: datetime) -> None:
    """Write the workload's training snapshot as a bundle at ``out``.

    The bundle holds ``train.parquet``, ``holdout.parquet``, ``attributes.parquet`` (sensitive ones,
    kept apart, where there are any), ``online.db`` (the materialized online store), ``online.json``
    (how it is looked up) and ``proof.json``: what was checked of the join, and what it was made
    from.

    Raises:
        SourceError: A feature source or the labels cannot be read as declared.
        JoinError: The feature store lost, added or changed rows, or let the future in.
    """
    declared = workloads.load_data(workload)
    data = workloads.part(workload, "data")
    carry_out(
        "features",
        kind="snapshot",
        workload=workload,
        inputs={},
        settings={
            "feature_service": declared.feature_service,
            "label": declared.label,
            "data": data.settings(),
        },
        make=lambda directory: _make(directory, declared),
        out=out,
        now=now,
    )


def _make(directory: Path, declared: Dataset) -> Summary:
    from penstock.features import feast  # noqa: PLC0415 - ten seconds; only when there is work

    data, service = workloads.part(declared.name, "data"), declared.feature_service
    definitions = code_revision(*workloads.definitions(declared.name))
    with tempfile.TemporaryDirectory(prefix="penstock-feast-") as folder:
        scratch, sources = Path(folder), Path(folder) / "sources"
        sources.mkdir()
        data.write(sources)
        written = _labels(sources / "labels.parquet", at=data.as_of())
        labels = snapshot.known(written, time=TIME, delay=declared.label_delay, as_of=data.as_of())
        with feast.opened(sources, module=declared.name, scratch=scratch) as store:
            views = feast.views(store, service=service)
            check(labels, views)
            newest = {view.name: _newest(view, at=data.as_of()) for view in views}
            with planted(labels, views, time=TIME) as asked:
                joined, proofs = feast.join(store, service=service, labels=asked.labels)
                rows = snapshot.on_labels(asked.gathered(joined), labels)
            revision, unused = feast.revision(store, sources=sources), feast.unused(store)
            first, last = _span(views)
            online = directory / feast.ONLINE
            feast.materialize(store, start=first, end=last, scratch=scratch, online=online)
            layout = feast.layout(
                store,
                service=service,
                definitions=definitions,
                freshness=declared.data.freshness,
            )
            write_json(directory / LAYOUT, layout.to_dict())
            apart = _apart(sources, rows)
            asking = Lookup(
                replace(layout, freshness=()), opened(str(online), layout), clock=lambda: last
            )
            compared = _compared(rows, store, asking, service=service, at=last)
    train, holdout = snapshot.split(rows, data.holdout(rows))
    _write(directory, train=train, holdout=holdout, **apart)
    keys = [*dict.fromkeys(k for v in views for k in v.label_keys), TIME]
    counts = {
        "written": written,
        "labels": labels,
        "joined": rows,
        "train": train,
        "holdout": holdout,
    }
    views_proved = [replace(p, labels=p.labels - 2, found=p.found - 1) for p in proofs]
    proof = {
        "rows": {name: len(table) for name, table in counts.items()},
        "keys": {name: snapshot.key_hash(counts[name], keys) for name in ("labels", "joined")},
        "views": [asdict(p) for p in views_proved],
        "planted": list(asked.features),
        "feature_definitions": definitions,
        "registry": revision,
        "content": {n: snapshot.content_hash(counts[n]) for n in ("train", "holdout")},
        "online_compared": compared,
        "as_of": data.as_of().isoformat(),
        "newest": newest,
        "unused_features": unused,
    }
    write_json(directory / "proof.json", proof)
    found, asked_for = sum(p.found for p in views_proved), sum(p.labels for p in views_proved)
    return Summary(
        Outcome.PASS,
        f"{len(train)} training and {len(holdout)} holdout rows, none lost; {found} of {asked_for} "
        "values known in time, a value planted in the future not seen; online equals offline for "
        f"{compared} entities",
    )


def _span(views: list[View]) -> tuple[datetime, datetime]:
    """Return from when to when the sources have events."""
    ends: list[datetime] = []
    for view in views:
        column = view.columns.event
        times = pq.read_table(view.path, columns=[column])[column]
        ends += [t for t in pc.min_max(times).as_py().values() if t is not None]
    if not ends:
        raise JoinError("the feature sources hold no rows; write them first.")
    return min(ends) - timedelta(seconds=1), max(ends) + timedelta(days=1)


def _labels(path: Path, *, at: datetime) -> pa.Table:
    """Return the label rows.

    Raises:
        SourceError: They cannot be read.
        JoinError: Some happened after the data were taken.
    """
    try:
        rows = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as e:
        raise SourceError(f"the labels cannot be read: {e}; write labels.parquet again.") from e
    if TIME not in rows.column_names:
        held = ", ".join(rows.column_names)
        raise SourceError(f"the labels have no column {TIME!r}; they hold {held}.")
    _refuse_future(rows, TIME, "the labels", at=at)
    return rows


def _newest(view: View, *, at: datetime) -> str | None:
    """Return the newest event of a view that was known at a time, None if there is none.

    Raises:
        JoinError: A row happened after that time.
    """
    columns = view.columns
    named = [columns.event, *([columns.created] if columns.created else [])]
    rows = pq.read_table(view.path, columns=named, filesystem=view.filesystem)
    naive = columns.naive_is_utc
    _refuse_future(rows, columns.event, f"view {view.name}", at=at, naive_is_utc=naive)
    if columns.created:
        known = pa.scalar(at).cast(rows[columns.created].type)
        rows = rows.filter(pc.less_equal(rows[columns.created], known))
    newest = pc.max(rows[columns.event]).as_py()
    return None if newest is None else newest.isoformat()


def _refuse_future(
    rows: pa.Table, name: str, where: str, *, at: datetime, naive_is_utc: bool = False
) -> None:
    whole = pa.concat_arrays([*rows[name].chunks, pa.array([], rows[name].type)])
    times, _ = ticks(whole, name=name, naive_is_utc=naive_is_utc)
    limit = int(at.timestamp() * 1_000_000) * 1000
    if late := int((times > limit).sum()):
        raise JoinError(
            f"{late} of {len(rows)} rows of {where} have a {name} after {at}, when the data were "
            "taken; mend the clock or the unit of their source."
        )


def _compared(rows: pa.Table, store: Any, online: Lookup, *, service: str, at: datetime) -> int:
    """Hold served values against the join at the same instant; return how many entities.

    Raises:
        JoinError: A value differs in any bit.
    """
    from penstock.features import feast  # noqa: PLC0415 - as above

    names = list(dict.fromkeys(k.asked for v in online.layout.views for k in v.keys))
    newest = rows.take(pc.sort_indices(rows[TIME])).slice(max(0, len(rows) - SAMPLE))
    entities = newest.select(names).group_by(names).aggregate([]).select(names)
    instant = pa.array([at] * len(entities), pa.timestamp("us", "UTC"))
    offline, _ = feast.join(store, service=service, labels=entities.append_column(TIME, instant))
    found = [f.values for f in online.get_many(entities.to_pylist())]
    served = {name: [row[name] for row in found] for name in found[0]}
    if skewed := snapshot.differing(offline, served, keys=names):
        raise JoinError(f"online and offline values differ in {', '.join(skewed)}.")
    return len(entities)


def _apart(sources: Path, rows: pa.Table) -> dict[str, pa.Table]:
    """Return the attributes that audits need and no model may see, where a workload has any.

    Raises:
        JoinError: One of them is among the features.
    """
    path = sources / "attributes.parquet"
    if not path.exists():
        return {}
    held = pq.read_table(path)
    _key, *names = held.column_names
    if mixed := [n for n in names if n in rows.column_names]:
        raise JoinError(
            f"{', '.join(mixed)} is kept apart as a sensitive attribute and a feature too; take it "
            "out of the feature service."
        )
    return {"attributes": held}


def _write(directory: Path, **parts: pa.Table) -> None:
    for name, rows in parts.items():
        pq.write_table(rows.replace_schema_metadata(None), directory / f"{name}.parquet")
