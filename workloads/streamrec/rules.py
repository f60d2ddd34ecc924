"""What answers where the model cannot: how often anybody clicks, and how often on this item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

USUAL = 0.23
"""The share of all impressions that are clicked."""


def rules(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Return the probabilities of no click and of a click, shape [n, 2].

    An item's rate of the last day orders items about as well as one number can; without it, all
    are usual and keep the order in which they came.

    Args:
        columns: What is known, each of shape [n]; any may be left out, or hold NaN.
    """
    n = len(next(iter(columns.values())))
    rate_n = np.asarray(columns.get("item_rate_24h", np.full(n, np.nan)), np.float64)
    click_n = np.where(np.isnan(rate_n), USUAL, rate_n)
    return np.column_stack([1 - click_n, click_n])
