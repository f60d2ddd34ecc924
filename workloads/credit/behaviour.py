"""What the model must do to clients changed on purpose, and to clients nobody would dispute."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LIMITS = np.linspace(20_000, 500_000, 25)
"""Credit limits of the plain cases."""


def a_month_later(rows: pa.Table) -> pa.Table:
    """Return the clients with September's payment one month later than it was.

    Everything that follows from it is changed with it; a client that is nine months late already,
    the most the data know, stays.
    """
    was = _column(rows, "months_late")
    late = np.minimum(was + 1, 9)
    more = late - was
    return _with(
        rows,
        {
            "months_late": late,
            "months_late_high": np.maximum(_column(rows, "months_late_high"), late),
            "late_count": np.minimum(_column(rows, "late_count") + (was == 0), 6),
            # September counts for a third of the mean that its delay is compared with.
            "late_trend": _column(rows, "late_trend") + more * 2 / 3,
        },
    )


def a_dollar_more(rows: pa.Table) -> pa.Table:
    """Return the clients with one dollar more on September's bill."""
    use = _column(rows, "use") + 1 / _column(rows, "credit_limit")
    return _with(
        rows,
        {
            "bill": _column(rows, "bill") + 1,
            "use": use,
            "use_high": np.maximum(_column(rows, "use_high"), use),
            # Over two months: September's use less July's, halved.
            "use_trend": _column(rows, "use_trend") + 0.5 / _column(rows, "credit_limit"),
        },
    )


def plain_clients(rows: pa.Table) -> pa.Table:
    """Return clients of every limit whom any model must refuse, and whom any must grant.

    The ones have been late for months, owe all of their limit and repay nothing; the others were
    never late and repaid every bill, of a tenth of their limit.
    """
    refused = _clients(use=1.0, late=3.0, count=6.0, repaid=0.0, defaulted=1)
    granted = _clients(use=0.1, late=0.0, count=0.0, repaid=1.0, defaulted=0)
    return pa.table({n: np.concatenate([refused[n], granted[n]]) for n in refused}).select(
        [name for name in rows.column_names if name in refused]
    )


def _clients(
    *, use: float, late: float, count: float, repaid: float, defaulted: int
) -> dict[str, NDArray[np.float64 | np.int64]]:
    """Return clients, one of each limit, for whom each month was like the last."""
    same = np.ones(len(LIMITS))
    return {
        "defaulted": np.full(len(LIMITS), defaulted, np.int64),
        "credit_limit": LIMITS,
        "use": use * same,
        "use_high": use * same,
        "use_trend": 0 * same,
        "months_late": late * same,
        "months_late_high": late * same,
        "late_count": count * same,
        "late_trend": 0 * same,
        "repaid_share": repaid * same,
        "repaid_share_low": repaid * same,
        "paid": repaid * use * LIMITS,
        "bill": use * LIMITS,
    }


def _column(rows: pa.Table, name: str) -> Floats:
    return rows[name].to_numpy().astype(np.float64)


def _with(rows: pa.Table, changed: Mapping[str, Floats]) -> pa.Table:
    """Return the rows with these columns replaced."""
    for name, values in changed.items():
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(name), pa.array(values))
    return rows
