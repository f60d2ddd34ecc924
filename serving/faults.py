"""Deliberate faults, to rehearse a rollback. Active only when a server is started with one."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

KINDS = ("latency", "errors", "accuracy")
SLOW_S = 0.12
ERROR_SHARE, WRONG_SHARE = 0.3, 0.6


class RehearsedError(RuntimeError):
    """An error made on purpose."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to be broken, for all requests or only those of users."""

    kind: str
    on: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.on not in ("live", "all"):
            raise ValueError(
                f"fault {self.kind!r} on {self.on!r}; choose one of {', '.join(KINDS)} on live "
                "or all."
            )

    def concerns(self, *, mirrored: bool, arm: str | None) -> bool:
        """Return whether a request is to be broken."""
        return self.on == "all" or (arm == "challenger" and not mirrored)

    async def before(self, request_id: str) -> None:
        """Delay or fail a request, as the kind says.

        Raises:
            RehearsedError: This request is among those to fail.
        """
        if self.kind == "latency":
            await asyncio.sleep(SLOW_S)
        elif self.kind == "errors" and share_of(request_id) < ERROR_SHARE:
            raise RehearsedError("rehearsed")

    def label(self, label: int, classes: int, request_id: str) -> int:
        """Return the label to answer."""
        if self.kind == "accuracy" and share_of(request_id) < WRONG_SHARE:
            return (label + 1) % classes
        return label


def share_of(request_id: str) -> float:
    """Return a number from 0 to 1 that only the request id decides."""
    digest = hashlib.sha256(request_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
