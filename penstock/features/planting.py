"""Plant rows whose answer is known, and see that the join gives it.

Two entities that nobody has are put into every source and among the labels. Everything of the
first lies in the future of its label: it happened later, or became known later. It must come back
missing. The second is the control: known a moment before, it must come back, or the first proves
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.features.join import JoinError, View

FILE = "~planted.parquet"
"""Name of the file with planted rows; sorts after ordinary names."""

MOMENT = timedelta(seconds=2)
"""Between planted rows and their label: more than the coarsest timestamps round away."""


@dataclass(frozen=True)
class Planted:
    """Labels with two rows more, and what their answer must be."""

    labels: pa.Table
    """The last row but one is the leak, the last the control."""

    features: tuple[str, ...]
    """Planted with a value in every view."""

    def gathered(self, joined: pa.Table) -> pa.Table:
        """Return the joined rows without the planted ones.

        Raises:
            JoinError: A value of the future came back, or the control did not.
        """
        leak, control = joined.slice(len(joined) - 2, 1), joined.slice(len(joined) - 1, 1)
        if leaked := [n for n in self.features if leak[n][0].is_valid]:
            raise JoinError(
                f"a planted value that was not known yet came back in {', '.join(leaked)}: the "
                "feature store leaks the future; nothing may be trained on its joins."
            )
        if lost := [n for n in self.features if not control[n][0].is_valid]:
            raise JoinError(
                f"a planted value that was known did not come back in {', '.join(lost)}: the join "
                "loses values, and finding no leak in it says nothing."
            )
        return joined.slice(0, len(joined) - 2)


@contextmanager
def planted(labels: pa.Table, views: Sequence[View], *, time: str) -> Iterator[Planted]:
    """Plant in the files of these views while the block runs.

    A source that is one file becomes a folder of that name with the file inside, and stays one.

    Raises:
        JoinError: A key has a type for which no unused value is known.
    """
    names = list(dict.fromkeys(k for view in views for k in view.label_keys))
    unused = {name: _unused(name, labels, views) for name in names}
    order = pc.sort_indices(labels[time])
    middle = labels.take(order.slice(len(labels) // 2, 1))
    rows = [labels]
    for which in (0, 1):
        row = middle
        for name in names:
            at = row.schema.get_field_index(name)
            row = row.set_column(at, name, pa.array([unused[name][which]], row[name].type))
        rows.append(row)
    files: list[Path] = []
    features: list[str] = []
    try:
        for view in views:
            features += _plant(view, unused, middle[time][0], files)
        yield Planted(pa.concat_tables(rows), tuple(features))
    finally:
        for file in files:
            file.unlink()


def _plant(view: View, unused: dict[str, Any], at: pa.Scalar, files: list[Path]) -> list[str]:
    """Write one view's planted rows beside its own; return the features that have a value."""
    folder = _folder(Path(view.path))
    model = _whole_row(min(folder.glob("*.parquet")))
    before = pc.subtract(at, pa.scalar(MOMENT))
    after = pc.add(at, pa.scalar(MOMENT))
    leak, control = 0, 1
    planned = [(leak, after, after), (control, before, before)]
    if view.columns.created is not None:
        planned.append((leak, before, after))
    rows: list[pa.Table] = []
    for which, event, created in planned:
        row = model
        held = {view.columns.event: event, view.columns.created: created}
        pairs = zip(view.columns.keys, view.label_keys, strict=True)
        held |= {key: pa.scalar(unused[label][which]) for key, label in pairs}
        for name, value in held.items():
            if name is not None:
                kind = row.schema.field(name).type
                column = pa.array([value.as_py()], value.type).cast(kind, safe=False)
                row = row.set_column(row.schema.get_field_index(name), name, column)
        rows.append(row)
    path = folder / FILE
    if path not in files:
        files.append(path)
    else:
        rows.insert(0, pq.read_table(path))
    pq.write_table(pa.concat_tables(rows), path)
    return [n for n, column in view.features.items() if model[column][0].is_valid]


def _folder(path: Path) -> Path:
    if path.is_dir():
        return path
    aside = path.with_name(f".part-{path.name}")
    path.rename(aside)
    path.mkdir()
    aside.rename(path / "0.parquet")
    return path


def _whole_row(path: Path) -> pa.Table:
    """Return one row of a file with a value in each column that has any in its first rows."""
    first = next(pq.ParquetFile(path).iter_batches(batch_size=4096))
    columns: dict[str, pa.Array] = {}
    for name in first.schema.names:
        present = pc.drop_null(first[name])
        columns[name] = (present if len(present) else first[name]).slice(0, 1)
    return pa.table(columns, schema=first.schema)


def _unused(name: str, labels: pa.Table, views: Sequence[View]) -> tuple[Any, Any]:
    """Return two key values that nobody has."""
    kind = labels[name].type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "penstock: planted late", "penstock: planted in time"
    if not pa.types.is_integer(kind):
        raise JoinError(f"key {name!r} is {kind}; keys are whole numbers or text.")
    held = [v for v in pc.min_max(labels[name]).as_py().values() if v is not None]
    for view in views:
        for key, label in zip(view.columns.keys, view.label_keys, strict=True):
            if label == name:
                held += _ends(Path(view.path), key)
    low, high = min(held, default=0), max(held, default=0)
    bits = kind.bit_width - (1 if pa.types.is_signed_integer(kind) else 0)
    least = -(2**bits) if pa.types.is_signed_integer(kind) else 0
    for pair in ((low - 1, low - 2), (high + 1, high + 2)):
        if least <= min(pair) and max(pair) < 2**bits:
            return pair
    raise JoinError(f"key {name!r} leaves no value of {kind} unused; use a wider type.")


def _ends(path: Path, column: str) -> list[int]:
    """Return the least and the greatest value of a column in a source's files."""
    found: list[int] = []
    for file in path.glob("*.parquet") if path.is_dir() else [path]:
        ends = pc.min_max(pq.read_table(file, columns=[column])[column]).as_py()
        found += [v for v in ends.values() if v is not None]
    return found
