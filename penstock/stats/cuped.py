"""Numbers of users made quieter by what the same users did before (CUPED).

Source: Deng, Xu, Kohavi and Walker (2013), Web Search and Data Mining, 123–132.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def adjusted(value_u: Floats, before_u: Floats) -> Floats:
    """Return the numbers less what the time before tells of them; their mean stays.

    Args:
        value_u: A number of each user of *both arms*, shape [u]: one slope for both keeps the
            difference of their means honest.
        before_u: The same number of the time before the release, shape [u]; NaN of users who were
            not there. Theirs stays as it is.

    The variance shrinks by the squared correlation of the two.

    Raises:
        ValueError: The shapes differ, or a number of ``value_u`` is not finite.
    """
    known_u = _known(value_u, before_u)
    if not known_u.any():
        return np.asarray(value_u, np.float64).copy()
    extra_u = np.where(known_u, before_u, 0.0) - before_u[known_u].mean()
    return value_u - theta(value_u, before_u) * np.where(known_u, extra_u, 0.0)


def theta(value_u: Floats, before_u: Floats) -> float:
    """Return by how much a user's number rises with that of the time before; 0 where none varies.

    Args:
        value_u, before_u: As for :func:`adjusted`.

    Raises:
        ValueError: As :func:`adjusted`.
    """
    known_u = _known(value_u, before_u)
    if known_u.sum() < 2:
        return 0.0
    before_k = before_u[known_u] - before_u[known_u].mean()
    spread = float(before_k @ before_k)
    if not spread:
        return 0.0
    return float(before_k @ (value_u[known_u] - value_u[known_u].mean())) / spread


def _known(value_u: Floats, before_u: Floats) -> NDArray[np.bool_]:
    if np.shape(value_u) != np.shape(before_u):
        raise ValueError(
            f"{np.shape(value_u)} numbers and {np.shape(before_u)} of the time before; give one "
            "of each user, NaN for none."
        )
    if not np.isfinite(value_u).all():
        raise ValueError("a user's number is not finite; leave out users of whom nothing is known.")
    return np.isfinite(before_u)
