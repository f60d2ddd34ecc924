"""A webhook: one event as a JSON POST, signed with a shared secret."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from penstock.private import exposed

SIGNATURE = "X-Penstock-Signature"
"""Header ``t=UNIX SECONDS,v1=HEX``: HMAC-SHA-256 of the seconds, a dot, and the body."""

LEAST_SECRET = 16
"""Bytes that a secret must have."""

TIMEOUT_S = 5.0
"""Longest wait for a connection, and for each piece of an answer."""

AGAIN = frozenset({408, 425, 429})
"""Answers below 500 that may be another one later; any other means that it never will be taken."""


class WebhookError(ValueError):
    """The address or the secret cannot be used; the text says what to do."""


class Undelivered(RuntimeError):
    """The event was not taken now; it may be later."""


class Rejected(RuntimeError):
    """The receiver will not take the event, however often it is sent."""


class Webhook:
    """Sends events to one address. Neither the secret nor the path is ever in an error's text."""

    def __init__(
        self,
        url: str,
        secret: Path,
        *,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the secret; nothing is sent.

        Raises:
            WebhookError: The address is no http(s) URL, or the secret is short, or open to others.
        """
        self._parts = _checked(url)
        self._secret = read_secret(secret)
        self._timeout_s, self._clock = timeout_s, clock

    @property
    def where(self) -> str:
        """Return scheme and host alone: the path of a webhook is often itself a secret."""
        return f"{self._parts.scheme}://{self._parts.hostname}:{self._port()}"

    def tell(self, event: Mapping[str, Any]) -> None:
        """Send one event; its ``hash`` is the idempotency key. No redirect is followed.

        Raises:
            Undelivered: Nobody answered, or the answer is one that may pass.
            Rejected: The receiver refuses it.
        """
        body = json.dumps(event, sort_keys=True, allow_nan=False).encode()
        try:
            status = self._post(body, str(event["hash"]))
        except (OSError, http.client.HTTPException) as e:
            raise Undelivered(f"{self.where} did not answer: {type(e).__name__}") from None
        if status >= 500 or status in AGAIN:
            raise Undelivered(f"{self.where} answered {status}")
        if not 200 <= status < 300:
            raise Rejected(f"{self.where} answered {status}")

    def _post(self, body: bytes, key: str) -> int:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(str(self._parts.hostname), self._port(), timeout=self._timeout_s)
        path = self._parts.path or "/"
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            SIGNATURE: signature(self._secret, int(self._clock()), body),
        }
        try:
            query = f"?{self._parts.query}" if self._parts.query else ""
            connection.request("POST", path + query, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def _port(self) -> int:
        return self._parts.port or (443 if self._parts.scheme == "https" else 80)


def signature(secret: bytes, unix_s: int, body: bytes) -> str:
    """Return the signature header of a body sent at a time.

    >>> signature(b"a secret of the two", 1_700_000_000, b"{}")[:24]
    't=1700000000,v1=e4d0a42b'
    """
    digest = hmac.new(secret, f"{unix_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={unix_s},v1={digest}"


def _checked(url: str) -> SplitResult:
    parts = urlsplit(url)
    try:
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole or parts.username or parts.fragment or not url.isascii() or not url.isprintable():
        # The address is not quoted: what is in it may be a secret.
        raise WebhookError(
            "the webhook's address is not usable; give https://HOST[:PORT]/PATH, without a user."
        )
    return parts


def read_secret(path: Path) -> bytes:
    """Return the secret of a file, without the space around it.

    Raises:
        WebhookError: It cannot be read, others can read it, or it is short.
    """
    try:
        held, text = path.stat(), path.read_bytes().strip()
    except OSError as e:
        raise WebhookError(f"the webhook's secret cannot be read: {path}: {e.strerror}.") from None
    if exposed(path, held):
        raise WebhookError(f"others can read the webhook's secret; run: chmod 600 {path}")
    if len(text) < LEAST_SECRET:
        raise WebhookError(
            f"the webhook's secret in {path} has {len(text)} bytes, at least {LEAST_SECRET} are "
            "wanted; make one: openssl rand -hex 32"
        )
    return text
