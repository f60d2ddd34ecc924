"""Seen: what is known of one request while it is answered, and what the log and metrics take."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

LONGEST = 200
"""Characters of a header that are kept."""

_BUCKET = re.compile(b"[0-9]{1,9}")

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
        "market",
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
        self.request_id = id_of(headers.get(b"x-request-id"))
        self.user = headers.get(b"x-user-id") or None
        """As it came, whole: two users whose ids begin alike are two."""

        bucket = headers.get(b"x-rollout-bucket")
        self.bucket = None if bucket is None or not _BUCKET.fullmatch(bucket) else int(bucket)
        self.arm = _kept(headers.get(b"x-rollout-arm"))
        self.market = _kept(headers.get(b"x-rollout-market"))
        """Whose table the edge went by."""

        shadow = headers.get(b"x-rollout-shadow") == b"1"
        self.mirrored = shadow or headers.get(b"host", b"").split(b":")[0].endswith(b"-shadow")
        self.trace = _kept(headers.get(b"traceparent"))
        self.columns: Mapping[str, NDArray[Any]] | None = None
        """What the model was given, each of shape [n] or [n, length]."""

        self.label: Sequence[int] | None = None
        self.probability: Sequence[float] | None = None
        """Of the chosen class of each row."""

        self.fallbacks = _listed(headers.get(b"x-rollout-fallback"))
        """What stood in for a part that could not: ``values``, ``cached``, ``rules`` for features,
        ``failed:cached``, ``failed:rules`` for the model; a transformer's begin the list."""

        self.stale: Sequence[str] = _listed(headers.get(b"x-rollout-stale"))
        """Features that were older than they may be."""

        self.spent_us: dict[str, float] = {}
        """Microseconds in each of ``PARTS``, where it was gone through."""

        self.status = 500
        self.latency_ms = 0.0


def id_of(text: bytes | None) -> str:
    """Return the id of a request: its own where that can be a word in a log, else its hash.

    So two logs that are told the same odd id still name it alike.
    """
    if not text:
        return os.urandom(8).hex()
    said = text.decode("latin-1")
    if len(said) <= LONGEST and said.isascii() and said.isprintable() and " " not in said:
        return said
    return hashlib.sha256(text).hexdigest()[:32]


def _listed(text: bytes | None) -> list[str]:
    """Return the names in a header, separated by commas."""
    return [] if not text else [n for n in text[:LONGEST].decode("latin-1").split(",") if n]


def _kept(text: bytes | None) -> str | None:
    return None if text is None else text[:LONGEST].decode("latin-1")
