"""Deliberate faults, to rehearse a rollback. Active only when a server is started with one."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

KINDS = ("latency", "errors", "accuracy", "ranking")
WINDOW_S = 1.0
_SHARES = {"latency": 1.0, "errors": 0.3, "accuracy": 0.6, "ranking": 1.0}


class RehearsedError(RuntimeError):
    """An error made on purpose."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to be broken, for all requests or only those of users."""

    kind: str
    """``latency`` delays, ``errors`` fails, ``accuracy`` gives the next class, ``ranking`` gives
    the rows of a request each other's scores, the last one's first."""

    on: str
    """``live``: what the edge sends to a challenger's users; ``all``: copies and others too."""

    share: float
    """Of the requests it concerns, by their ids."""

    delay_s: float = 0.12
    above: float = 0.0
    """Requests in a second; with no more than that, nothing is broken."""

    where: tuple[str, float] | None = None
    """A feature and its value on the first row of the requests that it concerns."""

    clock: Callable[[], float] = time.monotonic
    _came: deque[float] = field(default_factory=deque[float], compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.on not in ("live", "all"):
            raise ValueError(
                f"fault {self.kind!r} on {self.on!r}; choose one of {', '.join(KINDS)} on live "
                "or all."
            )
        if not 0 < self.share <= 1 or self.delay_s < 0 or self.above < 0:
            raise ValueError(
                f"fault {self.kind!r}: share {self.share} lies above 0 and up to 1, delay_ms and "
                "above are 0 or more."
            )

    @classmethod
    def of(cls, text: str, *, on: str) -> Self:
        """Read ``errors`` or ``errors:share=0.1,above=80`` or ``latency:where=mobile=1``.

        Raises:
            ValueError: It is no fault; the text says what there is.
        """
        kind, _, rest = text.partition(":")
        made = cls(kind=kind, on=on, share=_SHARES.get(kind, 1.0))
        for one in filter(None, rest.split(",")):
            name, _, value = one.partition("=")
            made = replace(made, **_option(name, value))
        return made

    def concerns(
        self, *, mirrored: bool, arm: str | None, columns: Mapping[str, Any] | None = None
    ) -> bool:
        """Return whether a request is to be broken.

        Args:
            columns: What the request holds, each of shape [n] or more.
        """
        if self.on != "all" and (arm != "challenger" or mirrored):
            return False
        if self.where is None:
            return True
        name, value = self.where
        held = None if columns is None else columns.get(name)
        return held is not None and bool(len(held)) and bool(held[0] == value)

    async def before(self, request_id: str) -> None:
        """Delay or fail a request, as the kind says.

        Raises:
            RehearsedError: This request is among those to fail.
        """
        if not self._busy() or share_of(request_id) >= self.share:
            return
        if self.kind == "latency":
            await asyncio.sleep(self.delay_s)
        elif self.kind == "errors":
            raise RehearsedError("rehearsed")

    def _busy(self) -> bool:
        """Count a request; return whether there were more than may be in the last second."""
        if not self.above:
            return True
        now = self.clock()
        self._came.append(now)
        while self._came[0] < now - WINDOW_S:
            self._came.popleft()
        return len(self._came) > self.above * WINDOW_S

    def label(self, label: int, classes: int, request_id: str) -> int:
        """Return the label to answer."""
        if self.kind == "accuracy" and share_of(request_id) < self.share:
            return (label + 1) % classes
        return label

    def turns(self, request_id: str) -> bool:
        """Return whether the rows of a request get each other's scores."""
        return self.kind == "ranking" and share_of(request_id) < self.share


def _option(name: str, value: str) -> dict[str, Any]:
    try:
        if name in ("share", "above"):
            return {name: float(value)}
        if name == "delay_ms":
            return {"delay_s": float(value) / 1000}
        feature, _, wanted = value.partition("=")
        if name == "where" and feature:
            return {"where": (feature, float(wanted))}
    except ValueError:
        pass
    raise ValueError(
        f"{name}={value} says nothing of a fault; there are share=, above=, delay_ms= and "
        "where=FEATURE=NUMBER."
    )


def share_of(request_id: str) -> float:
    """Return a number from 0 to 1 that only the request id decides."""
    digest = hashlib.sha256(request_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
