"""The traffic table: which slot answers which users. A value; everything else is derived."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from penstock.release import EVERYWHERE

BUCKETS = 64
SLOTS = ("a", "b")
RULES = "rules"
"""Slot of the server that answers by the workload's rules, for the kill switch alone."""


def bucket_of(salt: str, user: str) -> int:
    """Return a user's bucket, 0 to 63: the first 8 bytes of sha256(salt:user), modulo 64."""
    digest = hashlib.sha256(f"{salt}:{user}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS


def buckets_for(percent: float) -> int:
    """Return how many buckets a share of users takes: rounded down, but one for any share.

    >>> [buckets_for(p) for p in (0, 1, 10, 25, 50, 100)]
    [0, 1, 6, 16, 32, 64]
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} % of users; a share lies between 0 and 100.")
    return max(1, int(percent * BUCKETS / 100)) if percent > 0 else 0


@dataclass(frozen=True, kw_only=True)
class TrafficTable:
    """Who answers whom. Challenger buckets are a prefix, so a growing share moves nobody back."""

    sequence: int
    """Fencing number: a table with a lower one than that in force is refused."""

    salt: str
    """Mixed into the buckets; the same during one release, another in the next."""

    champion: str
    """Slot that answers everybody else; that of the rules where no version is left to."""

    challenger: str | None
    buckets: int
    """Users in buckets below this go to the challenger."""

    mirror: str | None
    """Slot that gets a copy of what the champion answers; its own answer is dropped."""

    market: str = EVERYWHERE
    """Whose users it is for; that of everybody is asked last."""

    trickle: str | None = None
    """Slot that stands by and gets a copy of a hundredth of all requests, to be known to answer."""

    fallback: str | None = None
    """Slot that answers everybody when the kill switch is thrown; None is the champion's."""

    def __post_init__(self) -> None:
        self._check_asked()
        if self.trickle is not None and self.trickle not in SLOTS:
            raise ValueError(f"trickle is {self.trickle!r}; a slot is one of {', '.join(SLOTS)}.")
        if self.fallback not in (None, RULES, *SLOTS):
            raise ValueError(f"fallback is {self.fallback!r}; it is a slot or {RULES!r}.")
        if not 0 <= self.buckets <= BUCKETS:
            raise ValueError(f"{self.buckets} buckets; there are 0 to {BUCKETS}.")
        if self.buckets and self.challenger is None:
            raise ValueError(f"{self.buckets} buckets but no challenger to send them to.")
        if self.champion in (self.challenger, self.mirror):
            raise ValueError(f"slot {self.champion} cannot be champion and challenger or mirror.")
        answering = {self.slot_for(0), self.slot_for(BUCKETS - 1)}
        if self.trickle is not None and (self.trickle in answering or self.trickle == self.mirror):
            raise ValueError(f"slot {self.trickle} cannot stand by: it is asked already.")
        if self.sequence < 0:
            raise ValueError(f"sequence {self.sequence}; it counts up from 0.")

    def _check_asked(self) -> None:
        alone = self.challenger is None and self.mirror is None
        if self.champion not in SLOTS and not (self.champion == RULES and alone):
            raise ValueError(
                f"champion is {self.champion!r}; a slot is one of {', '.join(SLOTS)}, and "
                f"{RULES!r} where no version is tried out."
            )
        for name in ("challenger", "mirror"):
            slot = getattr(self, name)
            if slot not in (None, *SLOTS):
                raise ValueError(f"{name} is {slot!r}; a slot is one of {', '.join(SLOTS)}.")

    def slot_for(self, bucket: int) -> str:
        """Return the slot that answers users of a bucket."""
        if self.challenger is not None and bucket < self.buckets:
            return self.challenger
        return self.champion

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> TrafficTable:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ValueError: A field is missing, unknown, or not allowed.
        """
        try:
            return cls(**document)
        except TypeError as e:
            raise ValueError(f"not a traffic table: {e}") from e
