"""Where clients and their months come from: the UCI credit-card data, from a path the user gives.

The file has one line a client: six months of repayment status, bill and payment, and whether the
client defaulted in the seventh. Here each month becomes an event of its own, with features computed
from it and the months before it alone, known three days after the month's end.
"""

from __future__ import annotations

import csv
import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

VARIABLE = "PENSTOCK_CREDIT_DATA"
"""Environment variable: path of the CSV file, *Default of Credit Card Clients* of UCI."""

MONTHS = 6
STATUS = ("PAY_6", "PAY_5", "PAY_4", "PAY_3", "PAY_2", "PAY_0")
BILL = tuple(f"BILL_AMT{i}" for i in range(6, 0, -1))
PAID = tuple(f"PAY_AMT{i}" for i in range(6, 0, -1))
"""Columns of each month, April to September 2005."""

LABEL = "default.payment.next.month"
SENSITIVE = {"SEX": "sex", "EDUCATION": "education", "MARRIAGE": "marriage", "AGE": "age"}

MONTH_ENDS = tuple(
    datetime(2005, month + 1, 1, tzinfo=UTC) - timedelta(seconds=1) for month in range(4, 10)
)
UNTIL_KNOWN = timedelta(days=3)
DECIDED = datetime(2005, 10, 5, tzinfo=UTC)
"""When the model is asked: September is known, October's payment is not."""

UNTIL_LABELLED = timedelta(days=30)
HOLDOUT_SHARE = 0.2

STAMP = pa.timestamp("us", tz="UTC")
Floats = NDArray[np.float64]


def path() -> Path:
    """Return the CSV file.

    Raises:
        ValueError: The variable is not set, or names no file.
    """
    named = os.environ.get(VARIABLE)
    if not named or not Path(named).is_file():
        given = f"names {named!r}, where there is no file" if named else "is not set"
        raise ValueError(
            f"{VARIABLE} {given}; give it the path of UCI's Default of Credit Card Clients as CSV."
        )
    return Path(named)


def settings() -> dict[str, object]:
    """Return what decides the data besides this code: the file's contents."""
    return {"file": "sha256:" + hashlib.sha256(path().read_bytes()).hexdigest()}


def as_of() -> datetime:
    """Return the time at which the data were taken: every October payment is known."""
    return DECIDED + UNTIL_LABELLED


def holdout(labels: pa.Table) -> pa.ChunkedArray:
    """Return which label rows are held out: a fifth of the clients, by a hash of who they are.

    All clients are decided on at one time, so no split by time is possible.
    """
    shares = [
        int.from_bytes(hashlib.sha256(str(c).encode()).digest()[:4], "big") / 2**32
        for c in labels["client_id"].to_pylist()
    ]
    return pa.chunked_array([pa.array(np.array(shares) < HOLDOUT_SHARE)])


def clients() -> pa.Table:
    """Return the file as it is.

    Raises:
        ValueError: It is not the expected file; the text names the columns that are missing.
    """
    wanted = {"ID", "LIMIT_BAL", LABEL, *SENSITIVE, *STATUS, *BILL, *PAID}
    with path().open(newline="") as f:
        names = next(csv.reader(f), [])
    if missing := wanted - set(names):
        raise ValueError(
            f"{path()} has no column {', '.join(sorted(missing))}; it is not UCI's Default of "
            "Credit Card Clients as CSV."
        )
    # Some whole numbers are written as 5e+05.
    types = pacsv.ConvertOptions(column_types=dict.fromkeys(wanted, pa.float64()))
    try:
        return pacsv.read_csv(path(), convert_options=types).cast(
            pa.schema([(name, pa.int64()) for name in names])
        )
    except pa.ArrowInvalid as e:
        raise ValueError(f"{path()} holds a value that is no whole number: {e}") from e


def months(rows: pa.Table) -> pa.Table:
    """Return one feature row per client and month, in the order of the months.

    Each is computed from its own month and those before it; the others are not looked at.
    """
    ids = rows["ID"].to_numpy()
    limit = rows["LIMIT_BAL"].to_numpy().astype(np.float64)
    status, bill, paid = (
        np.column_stack([rows[c].to_numpy() for c in names]).astype(np.float64)
        for names in (STATUS, BILL, PAID)
    )
    parts = [_month(ids, limit, status[:, : m + 1], bill[:, : m + 1], paid[:, : m + 1], m)
             for m in range(MONTHS)]  # fmt: skip
    return pa.concat_tables(parts)


def _month(
    ids: NDArray[np.int64], limit: Floats, status: Floats, bill: Floats, paid: Floats, month: int
) -> pa.Table:
    """Return the rows of one month; arrays hold the months up to it, shape [clients, months]."""
    late = np.maximum(status, 0)
    use = bill / limit[:, None]
    window = use[:, -3:]
    repaid: dict[str, pa.Array] = {
        "repaid_share": pa.nulls(len(ids), pa.float64()),
        "repaid_share_low": pa.nulls(len(ids), pa.float64()),
    }
    if month:
        # A payment answers the bill of the month before; without a bill there is nothing to repay.
        due = bill[:, :-1]
        share = np.where(due > 0, np.minimum(paid[:, 1:] / np.maximum(due, 1), 1.0), 1.0)
        repaid = {
            "repaid_share": pa.array(share[:, -1]),
            "repaid_share_low": pa.array(share.min(axis=1)),
        }
    n = len(ids)
    return pa.table(
        {
            "client_id": pa.array(ids, pa.int64()),
            "event_timestamp": pa.array([MONTH_ENDS[month]] * n, STAMP),
            "created_timestamp": pa.array([MONTH_ENDS[month] + UNTIL_KNOWN] * n, STAMP),
            "credit_limit": pa.array(limit),
            "use": pa.array(use[:, -1]),
            "use_high": pa.array(use.max(axis=1)),
            "use_trend": pa.array((window[:, -1] - window[:, 0]) / max(1, window.shape[1] - 1)),
            "months_late": pa.array(late[:, -1]),
            "months_late_high": pa.array(late.max(axis=1)),
            "late_count": pa.array((late > 0).sum(axis=1).astype(np.float64)),
            "late_trend": pa.array(late[:, -1] - late[:, -3:].mean(axis=1)),
            **repaid,
            "paid": pa.array(paid[:, -1]),
            "bill": pa.array(bill[:, -1]),
        }
    )


def labels(rows: pa.Table) -> pa.Table:
    """Return one label row per client: decided on in October, known a month later."""
    return pa.table(
        {
            "client_id": rows["ID"],
            "event_timestamp": pa.array([DECIDED] * len(rows), STAMP),
            "defaulted": rows[LABEL],
        }
    )


def attributes(rows: pa.Table) -> pa.Table:
    """Return what a decision must not rest on, by client: for audits, and no feature."""
    return pa.table({"client_id": rows["ID"], **{new: rows[n] for n, new in SENSITIVE.items()}})


def write(folder: Path) -> None:
    """Write the feature source, the labels, and the sensitive attributes apart from both."""
    rows = clients()
    pq.write_table(months(rows), folder / "months.parquet")
    pq.write_table(labels(rows), folder / "labels.parquet")
    pq.write_table(attributes(rows), folder / "attributes.parquet")
