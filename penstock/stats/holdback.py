"""Which training rows are kept back to validate on; the holdout is never looked at for a choice."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

SHARE = 0.1
TIME = "event_timestamp"


def split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows to learn from and those to validate on, each in the order they came in.

    The newest tenth validates, as a model is asked of times after those it learned from. Where all
    rows have one time there is no newest, and every tenth row validates: the order of such rows is
    that of some key, whose last tenth may be of another kind than the rest.

    Raises:
        ValueError: There is no time, or too few rows to keep any back.
    """
    if TIME not in rows.column_names:
        raise ValueError(f"the rows have no {TIME!r}; they have {', '.join(rows.column_names)}.")
    kept = int(len(rows) * SHARE)
    if not kept:
        raise ValueError(f"{len(rows)} training rows leave none to validate on; give at least 10.")
    times_n = rows[TIME].cast(pa.int64()).to_numpy()
    validates_n = np.zeros(len(rows), bool)
    if times_n.min() == times_n.max():
        validates_n[(np.arange(1, kept + 1) * len(rows) // kept) - 1] = True
    else:
        validates_n[np.argsort(times_n, kind="stable")[len(rows) - kept :]] = True
    return rows.filter(pa.array(~validates_n)), rows.filter(pa.array(validates_n))
