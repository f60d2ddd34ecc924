"""Address: how a folder of bundles is named, and how no credential is ever in a name or a text."""

from __future__ import annotations

import os
import re
from pathlib import Path

SCHEMES = ("s3", "gs")
"""Object stores; everything else is a folder of this machine."""

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Environment variables whose values are in no text of ours."""

HIDDEN = "***"

_PATTERNS = (
    (re.compile(r"(\w://)[^/@\s]*@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(://[^\s?'\"]*)\?[^\s'\"]*"), rf"\1?{HIDDEN}"),
    (re.compile(r"(?i)(x-(?:amz|goog)-(?:credential|signature|security-token)[=:]\s*)[^&\s'\"]+"),
     rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|credential=)\s*[^\s,'\"]+"), rf"\1 {HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{12,}\b"), HIDDEN),
)  # fmt: skip
"""What a credential looks like where nobody told us of it: in what a store answers."""


def address(text: str | Path) -> str:
    """Return the address of a folder, in the one way that it is written.

    Takes a path, ``file:///path``, ``s3://bucket/prefix`` or ``gs://bucket/prefix``; a path comes
    back absolute.

    Raises:
        ValueError: It is no such address, or credentials are in it.
    """
    scheme, mark, rest = str(text).partition("://")
    if not mark:
        if not str(text):
            raise ValueError("an empty address names no folder; name one, or leave it out.")
        return str(Path(text).absolute())
    if scheme == "file" and rest.startswith("/"):
        return str(Path(rest).absolute())
    if scheme not in SCHEMES:
        raise ValueError(
            f"{shown(str(text))} is no folder and no s3://bucket/prefix or gs://bucket/prefix; "
            "name one of these."
        )
    return f"{scheme}://{_place(scheme, rest.rstrip('/'))}"


def _place(scheme: str, rest: str) -> str:
    """Return bucket and prefix; none of a refused one is repeated but the scheme."""
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        raise ValueError(
            f"an address {scheme}://… has credentials or a query in it, which would stand in the "
            "ledger for ever; write bucket and prefix alone, and put the credentials into "
            f"{'AWS_ACCESS_KEY_ID and so on' if scheme == 's3' else 'their own file'}: see "
            "docs/how-to/choose-storage.md."
        )
    bucket, *parts = rest.split("/")
    odd = [part for part in parts if part in ("", ".", "..")]
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,221}", bucket) or odd or not rest.isprintable():
        raise ValueError(
            f"{shown(f'{scheme}://{rest}')} is no bucket and prefix; {scheme}://bucket/prefix was "
            "wanted, lower case, without empty parts or dots."
        )
    return rest


def is_uri(text: str | Path) -> bool:
    """Return whether an address is an object store's; a path is one of this machine."""
    return str(text).startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def shown(text: object) -> str:
    """Return a text without credentials, for an error or a log.

    >>> shown("s3://key:secret@bucket/x?X-Amz-Signature=77 did not answer")
    's3://***@bucket/x?*** did not answer'
    """
    said = str(text)
    for name in SECRETS:
        value = os.environ.get(name, "")
        said = said.replace(value, HIDDEN) if len(value) > 3 else said
    for pattern, instead in _PATTERNS:
        said = pattern.sub(instead, said)
    return said
