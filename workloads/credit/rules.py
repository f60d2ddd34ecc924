"""What answers where the model cannot: rules on arrears that a clerk could apply by hand.

They are on the careful side. Of a client whose arrears are not known nothing is assumed but that
one in four defaults, which is a refusal. Shares are those of the clients in UCI's data, rounded up
to five hundredths; whoever lends to others puts their own here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = 0.25
"""Defaults among all clients are 0.22."""

NEVER_LATE = 0.15
EARLIER_LATE = (0.25, 0.30, 0.40)
"""On time now, and late in one, two, or more of the months before."""

LATE_NOW = 0.40
LATE_FOR_LONG = 0.75
"""A month late, and two or more."""

NOTHING_REPAID = 0.30
"""Of clients on time who repaid less than a fiftieth of their last bill."""


def rules(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Return the probabilities of paying and of defaulting, shape [n, 2].

    Args:
        columns: What is known, each of shape [n]; any may be left out, or hold NaN.
    """
    n = len(next(iter(columns.values())))
    late, count, repaid = (
        np.asarray(columns.get(name, np.full(n, np.nan)), np.float64)
        for name in ("months_late", "late_count", "repaid_share")
    )
    earlier = np.array([NEVER_LATE, *EARLIER_LATE])
    # Without a count, on time now says nothing of the months before: a share for all of them.
    known = np.clip(np.nan_to_num(count, nan=1), 0, len(EARLIER_LATE)).astype(np.int64)
    default_n = np.where(repaid < 0.02, np.maximum(earlier[known], NOTHING_REPAID), earlier[known])
    default_n = np.select(
        [np.isnan(late), late >= 2, late >= 1], [UNKNOWN, LATE_FOR_LONG, LATE_NOW], default_n
    )
    return np.column_stack([1 - default_n, default_n])
