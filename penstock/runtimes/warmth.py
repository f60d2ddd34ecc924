"""When a runtime is warm: the one rule by which latency counts as settled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW = 20
"""Answers whose median is looked at together; one slow answer then moves nothing."""

WITHIN = 0.05
"""How far a window's median may be from the steady latency, as a share of it."""

RULE = (
    f"settled at the first answer from which the median of {WINDOW} is within {WITHIN:.0%} of the "
    "median of the second half of all answers"
)


def settled_at(latencies_n: Sequence[float]) -> int | None:
    """Return the index of the first answer of the settled part, None if it never settled.

    Args:
        latencies_n: Seconds (or any unit) of consecutive answers from the very first, shape [n].

    With fewer than two windows there is no telling, which is None too. The second half stands for
    the steady state, so ask for enough answers that warm-up ends in the first.

    Raises:
        ValueError: A latency is not a finite number of at least 0.

    >>> settled_at([9.0, 5.0] + [1.0] * 60)
    0
    >>> settled_at([9.0] * 30 + [1.0] * 60)
    21
    """
    taken_n = np.asarray(latencies_n, np.float64)
    if not np.isfinite(taken_n).all() or (taken_n < 0).any():
        raise ValueError("a latency is negative or not finite; take them from one running clock.")
    n = len(taken_n)
    if n < 2 * WINDOW:
        return None
    steady = float(np.median(taken_n[n // 2 :]))
    windows = np.median(np.lib.stride_tricks.sliding_window_view(taken_n, WINDOW), axis=1)
    near = np.abs(windows - steady) <= WITHIN * steady
    return int(near.argmax()) if near.any() else None
