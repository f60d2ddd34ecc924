"""Read a request's rows: numbers of either protocol in, a table of the snapshot's types out.

Everything that a contract forbids is refused here, with the feature and what was wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.request import EARLIEST_US, LATEST_US, STAMP, Contract, Feature

EXACT = 2.0**53
"""A float holds every whole number up to here."""

Numbers = NDArray[np.float32 | np.float64 | np.int64]


def from_instances(values: Any, contract: Contract) -> pa.Table:
    """Return the rows of a v1 request.

    Raises:
        ValueError: They are not what the contract asks; the text names the feature.
    """
    if contract.plain:
        (feature,) = contract.features
        return from_tensors({feature.name: from_lists(feature, values)}, contract)
    if not isinstance(values, list) or not all(isinstance(row, dict) for row in values):
        raise ValueError("instances: a list of objects was wanted, one for each row")
    for row in values:
        refuse_other_names(row.keys(), contract)
    columns = {f.name: from_lists(f, [row[f.name] for row in values]) for f in contract.features}
    return from_tensors(columns, contract)


def refuse_other_names(given: Any, contract: Contract) -> None:
    """Refuse a request that lacks a feature, or has one that nobody knows.

    Raises:
        ValueError: It does.
    """
    if set(given) == set(contract.names):
        return
    wanted = ", ".join(map(repr, contract.names))
    if missing := [name for name in contract.names if name not in given]:
        raise ValueError(f"{missing[0]}: is missing; a request holds {wanted}")
    unknown = next(name for name in given if name not in contract.names)
    raise ValueError(f"{unknown}: is not known; a request holds {wanted}")


def from_tensors(tensors: Mapping[str, Numbers], contract: Contract) -> pa.Table:
    """Return the rows of arrays, one for each feature, shape [n] or [n, length].

    Raises:
        ValueError: Not the shape, the range or the number of rows that the contract asks.
    """
    lengths = {name: len(held) if held.ndim else 0 for name, held in tensors.items()}
    first = contract.names[0]
    columns: dict[str, pa.Array] = {}
    for feature in contract.features:
        columns[feature.name] = column(feature, tensors[feature.name])
        if lengths[feature.name] != lengths[first]:
            raise ValueError(
                f"{feature.name}: {lengths[feature.name]} rows came, {first} has {lengths[first]}"
            )
    if not 1 <= lengths[first] <= contract.rows:
        raise ValueError(
            f"{first}: {lengths[first]} rows came, 1 to {contract.rows} are taken at once"
        )
    return pa.table(columns)


def column(feature: Feature, held: Numbers) -> pa.Array:
    """Return one feature's values as the snapshot has them.

    Raises:
        ValueError: Not the shape, not finite, not whole, or out of range.
    """
    if held.ndim != len(feature.shape) or list(held.shape[1:]) != feature.shape[1:]:
        wanted = ["n", *feature.shape[1:]]
        raise ValueError(
            f"{feature.name}: shape {list(held.shape)} came, [{', '.join(map(str, wanted))}] was "
            "wanted"
        )
    if held.dtype.kind == "f":
        _refuse_unfit_floats(feature, held)
    _refuse_out_of_range(feature, held)
    if feature.length is not None:
        offsets = np.arange(0, held.size + 1, feature.length, dtype=np.int32)
        flat = pa.array(np.ascontiguousarray(held, np.float32).ravel())
        return pa.ListArray.from_arrays(pa.array(offsets), flat, type=feature.arrow)
    if not feature.nullable:
        return pa.array(held.astype(np.int64 if feature.whole else np.float64)).view(feature.arrow)
    missing = np.isnan(held)
    known = np.where(missing, 0, held).astype(np.int64 if feature.whole else np.float64)
    return pa.array(known, mask=missing).view(feature.arrow)


def _refuse_unfit_floats(feature: Feature, held: Numbers) -> None:
    unfit = np.isinf(held) if feature.nullable else ~np.isfinite(held)
    if unfit.any():
        raise ValueError(f"{feature.name}: holds a value that is not a finite number")
    if feature.whole:
        known = held[~np.isnan(held)]
        if (known != np.rint(known)).any() or (np.abs(known) > EXACT).any():
            raise ValueError(f"{feature.name}: holds a number that is not whole")


def _refuse_out_of_range(feature: Feature, held: Numbers) -> None:
    low, high = feature.low, feature.high
    if feature.dtype == STAMP:
        low, high = EARLIEST_US, LATEST_US
    below, above = low is not None and held < low, high is not None and held > high
    outside = np.logical_or(below, above)
    if outside.any():
        least = "any" if low is None else f"{low:g}"
        most = "any" if high is None else f"{high:g}"
        unit = " microseconds since 1970" if feature.dtype == STAMP else ""
        raise ValueError(
            f"{feature.name}: {held[outside].flat[0]:g} came, {least} to {most}{unit} are allowed"
        )
    if feature.among is not None and not np.isin(held[~np.isnan(held)], feature.among).all():
        raise ValueError(f"{feature.name}: only {list(feature.among)} are allowed")


def from_lists(feature: Feature, values: Any) -> Numbers:
    """Return a feature's values from JSON as an array.

    Raises:
        ValueError: They are not numbers, or lists of other lengths.
    """
    kinds = refuse_other_than_numbers(values, feature)
    whole = feature.whole and not feature.nullable and kinds <= {int}
    wanted = np.int64 if whole else np.float32 if feature.length is not None else np.float64
    try:
        with np.errstate(over="ignore"):
            return np.asarray(values, wanted)
    except (TypeError, ValueError, OverflowError) as e:
        length = feature.length
        what = "a number for each row" if length is None else f"rows of {length} numbers"
        raise ValueError(f"{feature.name}: {what} was wanted: {e}") from None


def refuse_other_than_numbers(values: Any, feature: Feature) -> set[type]:
    """Refuse text and truth values in a list, or a list of rows: numpy would read them as numbers.

    Returns:
        The types that there are.

    Raises:
        ValueError: There is one, or a null where no value may be missing.
    """
    kinds = set(map(type, _leaves(values)))
    allowed = {int, float, type(None)} if feature.nullable else {int, float}
    if others := sorted(_JSON_NAMES.get(kind, kind.__name__) for kind in kinds - allowed):
        raise ValueError(f"{feature.name}: {', '.join(others)} came, numbers were wanted")
    return kinds


_JSON_NAMES = {str: "text", bool: "a truth value", type(None): "null", dict: "an object"}


def _leaves(values: Any) -> Iterator[Any]:
    if not isinstance(values, list):
        return
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value
