"""Who may ask at the edge: bearer tokens, certificates; remembered, and kept from other eyes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Self

LOOPBACK = "127.0.0.1"

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{24,200}=*")
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What a caller may be called."""


class AccessError(ValueError):
    """What was declared about access cannot be used; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask: whoever reaches loopback, unless tokens or client certificates are declared."""

    tokens: Mapping[str, str] = field(default_factory=dict[str, str])
    """SHA-256 of each caller's bearer token, in hexadecimal; the tokens are kept nowhere."""

    certificate: str | None = None
    key: str | None = None
    clients: str | None = None
    """Certificates of the authorities whose clients may connect; mutual TLS."""

    listen: str = LOOPBACK

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise AccessError("a certificate needs its key: give --tls-cert and --tls-key.")
        if self.clients is not None and self.certificate is None:
            raise AccessError("client certificates need TLS: give --tls-cert and --tls-key too.")
        if self.listen != LOOPBACK and not (self.tls and (self.tokens or self.clients)):
            raise AccessError(
                f"listening at {self.listen} needs --tls-cert and --tls-key, and --token or "
                "--client-ca: others than this machine's users could ask."
            )
        for path in (self.certificate, self.key, self.clients):
            if path is not None and not os.access(path, os.R_OK):
                raise AccessError(f"{path} cannot be read; name a PEM file that can.")
        if self.certificate is not None and self.key is not None:
            private(Path(self.key))
            _belong(self.certificate, self.key)

    @property
    def tls(self) -> bool:
        """Whether the edge speaks TLS."""
        return self.certificate is not None

    def save(self, path: Path) -> None:
        """Remember it, for its owner's eyes."""
        write_private(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return what was remembered; anybody on loopback where nothing was.

        Raises:
            AccessError: What is remembered cannot be used any more.
        """
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        if unknown := set(held) - {f.name for f in fields(cls)}:
            raise AccessError(f"{path} holds {min(unknown)!r}, which nobody knows.")
        return cls(**held)


def _belong(certificate: str, key: str) -> None:
    """Refuse a key that is another certificate's.

    Raises:
        AccessError: It is, or one of the files is not what it should be.
    """
    try:
        # A key with a password would ask for it at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as e:
        if e.reason == "KEY_VALUES_MISMATCH":
            raise AccessError(
                f"the key {key} does not belong to the certificate {certificate}; give the key "
                "that the certificate was made with."
            ) from e
        raise AccessError(
            f"{certificate} and {key} cannot be used: they must be a certificate and its key "
            "without a password, in PEM."
        ) from e


def read_tokens(path: Path) -> dict[str, str]:
    """Return the hash of each caller's token in a file of lines ``NAME TOKEN``.

    Raises:
        AccessError: Others can read the file, a line is not one, or a token is short or twice.
    """
    private(path)
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        # The line itself is never shown: it may hold a secret.
        if len(words) != 2 or not NAME.fullmatch(words[0]) or not _TOKEN.fullmatch(words[1]):
            raise AccessError(
                f"line {number} of {path} is not a name and a token of 24 to 200 letters, digits "
                "or -._~+/; make one: openssl rand -hex 32"
            )
        digest = hashlib.sha256(words[1].encode()).hexdigest()
        if words[0] in found or digest in found.values():
            raise AccessError(f"line {number} of {path} has a name or a token a second time.")
        found[words[0]] = digest
    if not found:
        raise AccessError(f"{path} holds no token; a line is: NAME TOKEN")
    return found


def private(path: Path) -> None:
    """Refuse a secret that others on this machine can read.

    Raises:
        AccessError: They can, or nobody can.
    """
    try:
        mode = path.stat().st_mode
    except OSError as e:
        raise AccessError(f"{path} cannot be read: {e.strerror}.") from e
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise AccessError(f"{path} can be read by others; make it yours alone: chmod 600 {path}")


def write_private(path: Path, document: object) -> None:
    """Write a JSON file that only its owner can read, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(json.dumps(document, indent=1, sort_keys=True))
    part.replace(path)
