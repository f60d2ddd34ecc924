"""What the gate judges, read from its inputs: scores, slices, groups, and the age of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock import workload as workloads
from penstock.bundle import Bundle, BundleError
from penstock.request import packaged_transform
from penstock.stats.holdback import TIME
from penstock.stats.scored import Scored
from penstock.stats.slices import masks
from penstock.workload import Sensitive, Workload

AT_ONCE = 1024
"""Rows of one call of a graph, whose intermediate results are in memory together."""

ATTRIBUTES = "attributes.parquet"

OLDER = 0.9
"""Share of the training rows that are at least as old as the age of all says: a few fresh rows make
no old data young."""

Rows = NDArray[np.bool_]


class Graph:
    """A graph and the transform it was trained with: rows in, logits out."""

    def __init__(self, path: Path, declared: Workload, *, transform: Any = None) -> None:
        """Load it, with the workload's present transform by default.

        See :class:`penstock.runtimes.onnxruntime.OnnxModel` for what it refuses.
        """
        from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - only to score

        self._model, self._declared = OnnxModel(path), declared
        given = transform or workloads.part(declared.name, "transform")
        self._input = given.training_input

    def answer(self, rows: pa.Table) -> NDArray[np.float32]:
        """Return the logits of each row, shape [n, k]."""
        inputs_n = self._input(rows)
        parts = np.array_split(inputs_n, max(1, -(-len(inputs_n) // AT_ONCE)))
        return np.concatenate([self._model.run(part) for part in parts])

    def scored(self, rows: pa.Table, *, threshold: float | None) -> Scored:
        """Return what it makes of labelled rows."""
        labels_n = rows[self._declared.label].to_numpy()
        return Scored(labels_n=labels_n, logits_nk=self.answer(rows), threshold=threshold)


def champion(package: Bundle, declared: Workload, rows: pa.Table) -> Scored:
    """Return what the champion makes of the rows, by its own transform, graph and threshold.

    Raises:
        Unscored: They cannot be run on these rows, or know other classes.
    """
    threshold = package.json("serving.json").get("threshold", declared.threshold)
    try:
        # Today's transform may be another: of the same shape it would spoil the scores, unseen.
        transform = packaged_transform(package)
        graph = Graph(package.file("model.onnx"), declared, transform=transform)
        found = graph.scored(rows, threshold=threshold)
    except Exception as e:
        raise Unscored(
            f"it cannot be run on the holdout, so nothing was compared with it: {e}; judge this "
            "change of inputs by hand, or retrain the champion on them."
        ) from e
    if found.classes != declared.classes:
        raise Unscored(
            f"it knows {found.classes} classes and {declared.name} has {declared.classes}, so "
            "nothing was compared with it; retrain the champion on these labels."
        )
    return found


class Unscored(RuntimeError):
    """The champion cannot be compared with; nothing can be said about being no worse."""


def groups(declared: Workload, snapshot: Bundle, rows: pa.Table) -> dict[str, dict[str, Rows]]:
    """Return which holdout rows, of shape [n], each group of each sensitive attribute holds.

    Raises:
        BundleError: The attributes are of other rows than the holdout's, or name one twice.
        ValueError: There is no such attribute.
    """
    if not declared.sensitive:
        return {}
    if ATTRIBUTES in snapshot.manifest["files"]:
        rows = joined(rows, pq.read_table(snapshot.file(ATTRIBUTES)))
    return {attribute.name: _groups(declared, attribute, rows) for attribute in declared.sensitive}


def _groups(declared: Workload, attribute: Sensitive, rows: pa.Table) -> dict[str, Rows]:
    # A group is told by its column as a slice is, with the same treatment of what is missing.
    found = masks(rows, replace(declared, slices=attribute.groups))
    return {group.name: found[group.name] for group in attribute.groups}


def joined(rows: pa.Table, attributes: pa.Table) -> pa.Table:
    """Return the rows with their attributes, in the rows' order.

    Args:
        attributes: One row for each key, which is its first column.

    Raises:
        BundleError: The key is not a column of the rows, a key is there twice, or a row has none.
    """
    key, *names = attributes.column_names
    if key not in rows.column_names:
        raise BundleError(
            f"{ATTRIBUTES} is keyed by {key!r}, which the holdout has not; it has "
            f"{', '.join(rows.column_names)}."
        )
    keys = attributes[key].combine_chunks()
    if len(keys) != len(pc.unique(keys)):
        raise BundleError(f"{ATTRIBUTES} has a {key!r} twice; give one row for each.")
    at_n = pc.index_in(rows[key].combine_chunks().cast(keys.type), value_set=keys)
    if at_n.null_count:
        raise BundleError(
            f"{ATTRIBUTES} has no row for {at_n.null_count} of {len(rows)} holdout rows; write the "
            "attributes of every entity, null where they are not known."
        )
    for name in names:
        rows = rows.append_column(name, attributes[name].take(at_n))
    return rows


def data_age_days(declared: Workload, snapshot: Bundle, *, now: datetime) -> int | None:
    """Return how many days ago, each begun one counted, the newest tenth of training rows began.

    Data that are recorded, and get no newer, are as old as they were when they were taken; None
    where the snapshot does not say when that was.

    Raises:
        BundleError: The newest row is of a later time than that.

    Whole days, because the age is part of the gate's recipe: a verdict made at another age is not
    found again for this one, while gates of one day still agree in their recipe.
    """
    until = _taken(snapshot) if declared.recorded else now
    if until is None:
        return None
    times = pq.read_table(snapshot.file("train.parquet"), columns=[TIME])[TIME].drop_null()
    if not len(times):
        return None
    newest, aged = (_at(times, share) for share in (1.0, OLDER))
    if newest > until:
        raise BundleError(
            f"the newest training row is of {newest}, later than {until}, when its age is asked; "
            "mend the clock, or the unit of the event timestamps."
        )
    return math.ceil((until - aged) / timedelta(days=1))


def _at(times: pa.ChunkedArray, share: float) -> datetime:
    """Return the time of a row that such a share of all rows is no later than."""
    ordered = times.combine_chunks().sort()
    return ordered[math.ceil(share * len(ordered)) - 1].as_py()


def _taken(snapshot: Bundle) -> datetime | None:
    if "proof.json" not in snapshot.manifest["files"]:
        return None
    taken = snapshot.json("proof.json").get("as_of")
    return None if taken is None else datetime.fromisoformat(taken)


def budget(engine: Bundle, declared: Workload) -> Mapping[str, object]:
    """Return what the artifact that serves costs, by measure; nothing where it was not measured."""
    measured = engine.json("budgets.json")["artifacts"]
    return measured.get(workloads.served_artifact(declared), {})
