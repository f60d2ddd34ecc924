"""Visitors: simulated users who are shown the best of a few items, and click by true chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workloads.streamrec.data import VARIABLE, simulated
from workloads.streamrec.simulator import START, World

SHOWN_OF = 6
"""Items that a request ranks; the best is shown."""

READINESS = 0.5
"""Standard deviation, in log-odds, of how readily visitors click beside what the model can know."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Visitors:
    """Visitors over the impressions of a snapshot, whose true probabilities are known.

    What a visitor clicks depends on what the model ranks first, so a worse model is clicked less.
    """

    rows: pa.Table
    """Impressions: user_id, item_id, mobile, event_timestamp, and the features."""

    count: int
    seed: int

    def __post_init__(self) -> None:
        """Look the truth up at once.

        Raises:
            ValueError: The rows are not of the simulation that the environment asks for.
        """
        _ = self._log_odds_n

    def request(self, number: int) -> tuple[int, Sequence[int]]:
        """Return the visitor of the n-th request, and the rows that are ranked."""
        rng = np.random.default_rng([self.seed, number])
        user = int(rng.integers(self.count))
        shown_of = min(SHOWN_OF, len(self.rows))
        return user, rng.choice(len(self.rows), shown_of, replace=False).tolist()

    def outcome(self, number: int, scores_k: Sequence[float]) -> Mapping[str, Any]:
        """Return which row was shown and whether it was clicked.

        Args:
            scores_k: Of the rows of the request, as they were answered; without any, as when it
                failed, the first is shown.
        """
        user, rows = self.request(number)
        best = int(np.argmax(scores_k)) if len(scores_k) else 0
        odds = self._log_odds_n[rows[best]] + self._readiness_u[user]
        rng = np.random.default_rng([self.seed, number, 1])
        return {"row": best, "label": int(rng.random() < 1 / (1 + np.exp(-odds)))}

    @cached_property
    def _readiness_u(self) -> Floats:
        return np.random.default_rng([self.seed, 2]).normal(0, READINESS, self.count)

    @cached_property
    def _log_odds_n(self) -> Floats:
        world = World(simulated())
        columns = {name: self.rows[name].to_numpy() for name in ("user_id", "item_id", "mobile")}
        start = int(START.timestamp()) * 1_000_000
        stamp_n = self.rows["event_timestamp"].cast(pa.int64()).to_numpy()
        hour_n = (stamp_n - start) // 3_600_000_000
        users = int(columns["user_id"].max())
        if users >= world.users or not 0 <= hour_n.min() <= hour_n.max() < world.settings.hours:
            raise ValueError(
                f"the rows name user {users} and {len(np.unique(hour_n))} hours that the "
                f"simulation with {world.users} users has not; set {VARIABLE} as it was for them."
            )
        chance_n = np.empty(len(self.rows))
        for hour in np.unique(hour_n):
            of = hour_n == hour
            user, item, mobile = (column[of] for column in columns.values())
            chance_n[of] = world.probability(int(hour), user, item, mobile)
        return np.log(chance_n / (1 - chance_n))
