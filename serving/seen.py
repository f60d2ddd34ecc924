"""Seen: what is known of one request while it is answered, and what the log and metrics take."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

LONGEST = 200
"""Characters of a header that are kept."""

PARTS = ("read", "features", "queue", "inference", "write")
"""Where a request's time goes, in the order in which it goes through them."""


class Seen:
    """One request: who asked, what was answered, by what, and where its time went."""

    __slots__ = (
        "arm",
        "at",
        "bucket",
        "columns",
        "fallbacks",
        "label",
        "latency_ms",
        "mirrored",
        "probability",
        "request_id",
        "spent_us",
        "stale",
        "status",
        "trace",
        "user",
    )

    def __init__(self, headers: Mapping[bytes, bytes]) -> None:
        """Read what the edge says of it.

        Args:
            headers: Names in lower case.
        """
        self.at = time.time()
        self.request_id = _kept(headers.get(b"x-request-id")) or os.urandom(8).hex()
        self.user = _kept(headers.get(b"x-user-id"))
        bucket = headers.get(b"x-rollout-bucket", b"")
        self.bucket = int(bucket) if re.fullmatch(b"[0-9]{1,9}", bucket) else None
        self.arm = _kept(headers.get(b"x-rollout-arm"))
        shadow = headers.get(b"x-rollout-shadow") == b"1"
        self.mirrored = shadow or headers.get(b"host", b"").split(b":")[0].endswith(b"-shadow")
        self.trace = _kept(headers.get(b"traceparent"))
        self.columns: Mapping[str, NDArray[Any]] | None = None
        """What the model was given, each of shape [n] or [n, length]."""

        self.label: Sequence[int] | None = None
        self.probability: Sequence[float] | None = None
        """Of the chosen class of each row."""

        self.fallbacks: list[str] = []
        """What stood in for a part that could not, as ``values``, ``cached``, ``rules``."""

        self.stale: Sequence[str] = ()
        """Features that were older than they may be."""

        self.spent_us: dict[str, float] = {}
        """Microseconds in each of ``PARTS``, where it was gone through."""

        self.status = 500
        self.latency_ms = 0.0


def _kept(text: bytes | None) -> str | None:
    return None if text is None else text[:LONGEST].decode("latin-1")
