"""Endpoint: what a served model promises its callers, and what answers when a part of it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Self


class Instead(StrEnum):
    """What answers in place of a part that cannot."""

    VALUES = "values"
    """The declared values of features that could not be looked up; the model answers."""

    CACHED = "cached"
    """The last answer to the same entity, if it is not older than ``cached_for``."""

    RULES = "rules"
    """The workload's ``rules.py``, which needs nothing but the request."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One served model: limits, and how it degrades. A package carries it in ``serving.json``."""

    max_batch_ms: float = 5.0
    """Requests that wait at the same moment are run together as long as that takes no longer."""

    timeout_ms: float = 1000.0
    """A request that takes longer is answered 503."""

    max_body_bytes: int = 1 << 20
    max_in_flight: int = 64
    """Requests that are worked on at once; one more is answered 429 at once."""

    lookup: tuple[Instead, ...] = ()
    """What answers when features cannot be looked up, the first that can; with none it is 503."""

    failed: tuple[Instead, ...] = ()
    """The same when the model itself fails; with none it is 500."""

    values: Mapping[str, float | None] = field(default_factory=dict[str, float | None])
    """Of features, for :attr:`Instead.VALUES`; one that is not named is missing."""

    cached_for: timedelta = timedelta(minutes=10)
    hashed: tuple[str, ...] = ()
    """Features of which the prediction log keeps a salted hash and never the value."""

    signed: bool = False
    """Whether a server refuses a package without a valid signature."""

    log_kept: timedelta = timedelta(days=90)
    """How long predictions are kept."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lookup", tuple(Instead(one) for one in self.lookup))
        object.__setattr__(self, "failed", tuple(Instead(one) for one in self.failed))
        if Instead.VALUES in self.failed:
            raise ValueError(
                "Endpoint.failed names 'values', which need the model; name 'cached' or 'rules'."
            )
        for name in ("max_batch_ms", "timeout_ms", "max_body_bytes", "max_in_flight"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"Endpoint.{name} is {getattr(self, name)}; it must be greater than 0."
                )
        for name in ("cached_for", "log_kept"):
            if not getattr(self, name) > timedelta(0):
                raise ValueError(f"Endpoint.{name} is {getattr(self, name)}; it must be longer.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; :meth:`from_dict` reads them back."""
        held = asdict(self)
        for name in ("cached_for", "log_kept"):
            held[name] = held[name].total_seconds()
        return held

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ValueError: A field is unknown, or not allowed.
        """
        held = dict(document)
        try:
            for name in ("cached_for", "log_kept"):
                held[name] = timedelta(seconds=held[name])
            for name in ("lookup", "failed", "hashed"):
                held[name] = tuple(held[name])
            return cls(**held)
        except (KeyError, TypeError) as e:
            raise ValueError(f"not an endpoint: {e!r}; register the model again.") from e
