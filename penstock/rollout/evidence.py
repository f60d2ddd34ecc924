"""Evidence: what the prediction log and the outcomes say of each arm since a step began.

Answers are columns, not records, so that a step with millions of requests fits into the memory.
:mod:`penstock.rollout.reading` makes them from logs, a simulation from random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_P99 = 100
"""Requests below which a p99 is but the slowest of them."""

PLOTTED = 300
"""Points of the scatter plot of both versions' scores."""


@dataclass(frozen=True, kw_only=True)
class Met:
    """What users met: each counts with the share of their requests, so it grows not with time."""

    events: float
    """Sum of those shares: of users with one request each, how many met it."""

    users: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """Requests of one arm, in order of time: each column has shape [n]."""

    at_n: Floats
    """Unix seconds."""

    user_n: Ints
    """Number of the user; the same one in all columns of an evidence."""

    failed_n: Bools
    """Not answered: status 500 or more, refused for load (429), or answered by what stood in."""

    refused_n: Bools
    """Said to be the user's fault: other statuses from 400 to 499."""

    latency_ms_n: Floats
    """NaN of those that were not answered."""

    values_n: Mapping[str, Floats] = field(default_factory=dict[str, Floats])
    """By source (``right``, ``label``, another field of the outcomes): NaN where none has come."""

    came_at_n: Mapping[str, Floats] = field(default_factory=dict[str, Floats])
    """By source, Unix seconds of the outcome; NaN where it has none or says no time."""

    slices_n: NDArray[np.uint64] | None = None
    """Bit ``k`` is set where the request is in slice ``k`` of the evidence."""

    def __len__(self) -> int:
        return len(self.at_n)

    def where(self, chosen: NDArray[Any]) -> Answers:
        """Return some of them.

        Args:
            chosen: Truth values of shape [n], or numbers of requests.
        """
        return Answers(
            at_n=self.at_n[chosen],
            user_n=self.user_n[chosen],
            failed_n=self.failed_n[chosen],
            refused_n=self.refused_n[chosen],
            latency_ms_n=self.latency_ms_n[chosen],
            values_n={name: value_n[chosen] for name, value_n in self.values_n.items()},
            came_at_n={name: came_n[chosen] for name, came_n in self.came_at_n.items()},
            slices_n=None if self.slices_n is None else self.slices_n[chosen],
        )

    def in_slice(self, k: int) -> Answers:
        """Return those of one slice."""
        if self.slices_n is None:
            return self.where(np.zeros(len(self), bool))
        return self.where(_inside(self.slices_n, k))

    def within(self, seconds: float) -> Answers:
        """Return those of so much time from the first one on."""
        return self.where(self.at_n <= self.at_n[0] + seconds) if len(self) else self

    @property
    def lasts_s(self) -> float:
        """Seconds from the first to the last."""
        return float(self.at_n[-1] - self.at_n[0]) if len(self) else 0.0

    @cached_property
    def users(self) -> int:
        """How many users they are of."""
        return int(np.count_nonzero(np.bincount(self.user_n))) if len(self) else 0

    def met(self, chosen_n: Bools) -> Met:
        """Return how much users met of what is chosen, of shape [n]."""
        if not len(self):
            return Met(events=0.0, users=0)
        count_u = np.bincount(self.user_n)
        chosen_u = np.bincount(self.user_n, weights=chosen_n)
        there_u = count_u > 0
        events = float((chosen_u[there_u] / count_u[there_u]).sum())
        return Met(events=events, users=int(there_u.sum()))

    @cached_property
    def failing(self) -> Ints:
        """Users who met a failure."""
        return np.unique(self.user_n[self.failed_n])

    def quantile_ms(self, q: float) -> float | None:
        """Return a quantile of the answers' latency; None without any."""
        answered_n = self.latency_ms_n[~np.isnan(self.latency_ms_n)]
        return float(np.quantile(answered_n, q)) if len(answered_n) else None

    def summary(self) -> dict[str, Any]:
        """Return counts for people: requests, users, errors, refused, p50_ms, p99_ms."""
        return {
            "requests": len(self),
            "users": self.users,
            "errors": int(self.failed_n.sum()),
            "failing_users": len(self.failing),
            "refused": int(self.refused_n.sum()),
            "p50_ms": _rounded(self.quantile_ms(0.5)),
            "p99_ms": _rounded(self.quantile_ms(0.99)),
        }


def _inside(slices_n: NDArray[np.uint64], k: int) -> Bools:
    return (slices_n >> np.uint64(k)) & np.uint64(1) == 1


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)


NOBODY = Answers(
    at_n=np.empty(0),
    user_n=np.empty(0, np.int64),
    failed_n=np.empty(0, bool),
    refused_n=np.empty(0, bool),
    latency_ms_n=np.empty(0),
)
"""No answers at all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """Requests that both versions were asked: each column has shape [n], in order of time."""

    user_n: Ints
    alike_n: Bools
    """Decided alike; what the challenger failed or refused, and the champion answered, is not."""

    one_n: Floats
    """Score that the champion gave the first row; NaN where it gave none."""

    other_n: Floats
    """The challenger's."""

    slices_n: NDArray[np.uint64]

    pair_r: Ints
    """Of requests with several rows: the request's place in the columns above, shape [rows]."""

    one_r: Floats
    other_r: Floats
    """Scores of those rows."""

    settled_n: Bools
    """Their originals were answered long enough ago for any copy to be there."""

    sent_slices_m: NDArray[np.uint64]
    """Slices of all those originals, with a copy and without, shape [sent]."""

    def __len__(self) -> int:
        return len(self.user_n)

    def in_slice(self, k: int) -> Copies:
        """Return those of one slice."""
        chosen = np.flatnonzero(_inside(self.slices_n, k))
        place_n = np.full(len(self), -1)
        place_n[chosen] = np.arange(len(chosen))
        rows = place_n[self.pair_r] >= 0
        return Copies(
            user_n=self.user_n[chosen],
            alike_n=self.alike_n[chosen],
            one_n=self.one_n[chosen],
            other_n=self.other_n[chosen],
            slices_n=self.slices_n[chosen],
            pair_r=place_n[self.pair_r[rows]],
            one_r=self.one_r[rows],
            other_r=self.other_r[rows],
            settled_n=self.settled_n[chosen],
            sent_slices_m=self.sent_slices_m[_inside(self.sent_slices_m, k)],
        )

    @property
    def sent(self) -> int:
        """Requests whose copies should be there by now."""
        return len(self.sent_slices_m)

    @property
    def joined(self) -> int:
        """Of those, how many can be compared."""
        return int(self.settled_n.sum())

    @property
    def coverage(self) -> float | None:
        """Copies that can be compared by copies sent; None before the first."""
        return self.joined / self.sent if self.sent else None


NO_COPIES = Copies(
    user_n=np.empty(0, np.int64),
    alike_n=np.empty(0, bool),
    one_n=np.empty(0),
    other_n=np.empty(0),
    slices_n=np.empty(0, np.uint64),
    pair_r=np.empty(0, np.int64),
    one_r=np.empty(0),
    other_r=np.empty(0),
    settled_n=np.empty(0, bool),
    sent_slices_m=np.empty(0, np.uint64),
)
"""Nothing to compare."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What is known at one moment of one step."""

    challenger: Answers
    """Live answers at a step with users, copies in shadow."""

    since: float = 0.0
    """Unix seconds at which the step began."""

    champion: Answers = NOBODY
    """At steps that leave it no users, those of the step before."""

    earlier: Answers = NOBODY
    """The champion's, before any user was on the challenger: what users were like by themselves."""

    copies: Copies = NO_COPIES
    """Of the shadow step."""

    slices: tuple[str, ...] = ()
    """Names, by their bits."""

    unsliced: str = ""
    """Why some declared slices are not judged; empty where all are."""

    newest_at: float | None = None
    """Unix seconds of the challenger's newest record."""

    alive: bool = True
    """Whether the challenger's process is up and ready."""

    lost_share: float = 0.0
    """Share of records that the logs counted as lost since the step began."""

    conflict: str = ""
    """Why the evidence contradicts itself; empty where it does not."""

    repeated: int = 0
    """Requests whose id another one has: neither compared nor judged by an outcome."""

    anonymous: bool = False
    """No request names its user: users are requests."""

    def in_slice(self, k: int) -> Evidence:
        """Return the evidence of one slice of users, without copies."""
        return replace(
            self,
            challenger=self.challenger.in_slice(k),
            champion=self.champion.in_slice(k),
            earlier=self.earlier.in_slice(k),
            copies=NO_COPIES,
        )

    def summary(self) -> dict[str, Any]:
        """Return counts for the ledger and for plots; ``scatter`` has pairs of scores."""
        said: dict[str, Any] = {
            "champion": self.champion.summary(),
            "challenger": self.challenger.summary(),
            "lost_share": round(self.lost_share, 6),
            "repeated": self.repeated,
            "conflict": self.conflict,
        }
        if len(self.copies):
            said |= {
                "compared": len(self.copies),
                "disagreed": int((~self.copies.alike_n).sum()),
                "coverage": self.copies.coverage,
                "scatter": scatter(self.copies),
            }
        return said


def scatter(copies: Copies) -> list[list[float]]:
    """Return at most ``PLOTTED`` pairs of scores, champion and challenger, evenly from all."""
    known_n = np.flatnonzero(~np.isnan(copies.one_n) & ~np.isnan(copies.other_n))
    if not len(known_n):
        return []
    picked = known_n[np.unique(np.linspace(0, len(known_n) - 1, PLOTTED).astype(np.int64))]
    pairs = np.stack([copies.one_n[picked], copies.other_n[picked]], axis=1)
    return [[round(float(one), 4), round(float(other), 4)] for one, other in pairs]
