"""Backends: the file systems behind addresses, each configured by its usual environment variables.

S3 and Google's store are reached through Arrow's own clients, which every image has; s3fs and gcsfs
want other releases of botocore and aiohttp than the rest of us.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pyarrow import fs

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CONNECT_S, REQUEST_S = 5.0, 30.0
"""Longest wait for a connection, and for a byte to come or go on one."""

CLIENT_TRIES, RETRY_S = 3, 10.0
"""How often S3's client tries a request by itself, and how long Google's goes on, before we do."""

NO_REGION = "us-east-1"
"""What a store that is not Amazon's is told where nobody named a region: its client would ask for
one at an address of Amazon's machines, and wait."""


def arrow(scheme: str) -> fs.FileSystem:
    """Return Arrow's client of an object store, ``s3`` or ``gs``.

    Raises:
        ValueError: The environment names an endpoint with credentials in it.
    """
    return _s3() if scheme == "s3" else _gs()


def file_system(scheme: str) -> AbstractFileSystem:
    """Return the file system of an address's scheme; an empty one is this machine's."""
    # Where predictions go, only Arrow's clients are wanted, and fsspec is not in every image.
    if not scheme:
        from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415

        return LocalFileSystem()
    from fsspec.implementations.arrow import ArrowFSWrapper  # noqa: PLC0415

    return ArrowFSWrapper(arrow(scheme))


def _s3() -> fs.FileSystem:
    """Return S3's client; Arrow's own looks for neither the endpoint nor the certificates."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options: dict[str, Any] = {}
    if authorities := os.environ.get("AWS_CA_BUNDLE"):
        options["tls_ca_file_path"] = authorities
    return fs.S3FileSystem(
        **_endpoint("AWS_ENDPOINT_URL", endpoint),
        **options,
        region=region or (NO_REGION if endpoint else None),
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=CLIENT_TRIES),
        # A small object is one request then, and not the three of an upload in parts.
        allow_delayed_open=True,
    )


def _gs() -> fs.FileSystem:
    """Return the client of Google's store, or of an emulator, to which no credentials are sent."""
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    named = emulator if not emulator or "://" in emulator else f"http://{emulator}"
    return fs.GcsFileSystem(
        **_endpoint("STORAGE_EMULATOR_HOST", named),
        anonymous=bool(emulator),
        retry_time_limit=timedelta(seconds=RETRY_S),
    )


def _endpoint(variable: str, url: str | None) -> dict[str, Any]:
    """Return how a client is told where to go.

    Raises:
        ValueError: There are credentials in it, which the client would show in its errors.
    """
    if not url:
        return {}
    scheme, mark, host = url.rstrip("/").partition("://")
    if not mark or not host or "@" in host or "?" in host:
        raise ValueError(
            f"{variable} is no endpoint, or has credentials in it; write https://host:port alone."
        )
    return {"scheme": scheme, "endpoint_override": host}
