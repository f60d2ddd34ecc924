"""From a client's features to the network's input: the same function in training and in serving."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

UNITS = {
    "credit_limit": 10_000.0,
    "use": 0.1,
    "use_high": 0.1,
    "use_trend": 0.01,
    "months_late": 1.0,
    "months_late_high": 1.0,
    "late_count": 1.0,
    "late_trend": 1.0,
    "repaid_share": 0.1,
    "repaid_share_low": 0.1,
    "paid": 1_000.0,
    "bill": 1_000.0,
    "paid_of_limit": 0.01,
}
"""Of each packed column, the size up to which it stays about linear; larger values count by their
logarithm. They follow from what the columns are, not from data, so nothing is fitted here."""

FEATURES = tuple(UNITS)
"""Names of the packed columns, in order."""

DERIVED = "paid_of_limit"
"""The month's payment as a share of the credit limit."""


def compressed(values: Floats, unit: float) -> Floats:
    """Return the signed logarithm of values in units: ``sign(v) log(1 + |v| / unit)``.

    A few clients owe a thousand times what others do. Left as they are, they would set the int8
    range and leave one step of it to everybody else.
    """
    return np.sign(values) * np.log1p(np.abs(values) / unit)


def training_input(rows: pa.Table) -> NDArray[np.float32]:
    """Return the network's input, shape [n, len(FEATURES)]; each row depends on itself alone.

    Raises:
        ValueError: A column is not there, holds a missing or infinite value, or the credit limit is
            not greater than 0.
    """
    held = {name: _column(rows, name) for name in FEATURES if name != DERIVED}
    if (held["credit_limit"] <= 0).any():
        raise ValueError(
            "credit_limit has values of 0 or less; use and payments are shares of it, so it must "
            "be greater than 0."
        )
    held[DERIVED] = held["paid"] / held["credit_limit"]
    packed = [compressed(held[name], unit) for name, unit in UNITS.items()]
    return np.column_stack(packed).astype(np.float32)


def _column(rows: pa.Table, name: str) -> Floats:
    # The names as a list take longer to make than all else that is done to a column.
    if rows.schema.get_field_index(name) < 0:
        raise ValueError(
            f"the rows have no column {name!r}; they have {', '.join(rows.column_names)}."
        )
    values = rows[name].to_numpy().astype(np.float64)
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(
            f"{name} is missing or infinite in {bad} of {len(values)} rows; every client has all "
            "of September's features, so look at where they come from."
        )
    return values
