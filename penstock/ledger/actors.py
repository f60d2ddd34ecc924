"""Actors: who acts is proven by an Ed25519 key, not by a name that anyone can type.

A key file is a PEM text in PKCS 8 under one line with the actor's name; only its owner may read it.
Beside it lies the public half (``.pub``), which is what an admin enrols and may be shown to anyone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from penstock.private import exposed

KEY_VARIABLE = "PENSTOCK_KEY"
"""Environment variable: path of the key file of whoever acts."""

ADMIN = "admin"
ROLES = frozenset({ADMIN, "pipeline", "owner", "validator", "approver", "compliance", "operator"})

NAME_LINE = "penstock actor: "
LONGEST_NAME = 100


class KeyFileError(RuntimeError):
    """A key file is missing, open to others or holds no key; the text says what to do."""


@dataclass(frozen=True)
class Actor:
    """Someone who can sign: a person, or a pipeline."""

    name: str
    private_key: Ed25519PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse a name that could be mistaken for another on a screen."""
        check_name(self.name)

    @property
    def public_key(self) -> str:
        """The public half, 32 bytes as hex digits."""
        return self.private_key.public_key().public_bytes_raw().hex()

    @property
    def key_id(self) -> str:
        """The fingerprint of the public half."""
        return key_id_of(self.public_key)

    def sign(self, message: bytes) -> str:
        """Return the signature of a message, 64 bytes as hex digits."""
        return self.private_key.sign(message).hex()

    @classmethod
    def create(cls, path: Path, *, name: str) -> Actor:
        """Make a key and write it, mode 0600, and its public half beside it.

        Raises:
            FileExistsError: There is a file already; a key is never written over.
        """
        actor = cls(name, Ed25519PrivateKey.generate())
        private = actor.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_new(path, f"{NAME_LINE}{name}\n{private.decode()}")
        path.with_name(path.name + ".pub").write_text(f"{name} {actor.public_key}\n")
        return actor

    @classmethod
    def load(cls, path: Path) -> Actor:
        """Return the actor of a key file.

        Raises:
            KeyFileError: It is not there, others can read it, or it holds no such key.
        """
        text = _private_text(path)
        first, _, pem = text.partition("\n")
        name = first.removeprefix(NAME_LINE)
        try:
            key = serialization.load_pem_private_key(pem.encode(), password=None)
        except (ValueError, TypeError):
            # The cause is left out: it may quote the file.
            raise KeyFileError(_not_a_key(path)) from None
        if not isinstance(key, Ed25519PrivateKey) or name == first:
            raise KeyFileError(_not_a_key(path))
        return cls(name, key)


def actor_from_environment(environment: Mapping[str, str] = os.environ) -> Actor:
    """Return the actor whose key file ``PENSTOCK_KEY`` names.

    Raises:
        KeyFileError: The variable is not set, or its file is no usable key.
    """
    path = environment.get(KEY_VARIABLE)
    if not path:
        raise KeyFileError(
            f"{KEY_VARIABLE} is not set, so nobody can sign; name the key file of whoever acts. "
            "The penstock command sets it to the key of its home."
        )
    return Actor.load(Path(path))


def key_id_of(public_key: str) -> str:
    """Return the fingerprint of a public key: SHA-256 of its 32 bytes, as hex digits.

    Raises:
        ValueError: It is no Ed25519 public key in hex digits.
    """
    return hashlib.sha256(_public(public_key).public_bytes_raw()).hexdigest()


def signed_by(public_key: str, signature: str, message: bytes) -> bool:
    """Return whether the signature is this key's, of this message."""
    try:
        _public(public_key).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def read_public_key(path: Path) -> str:
    """Return the public key of a ``.pub`` file, as hex digits.

    Raises:
        KeyFileError: The file holds none.
    """
    words = path.read_text().split()
    try:
        key_id_of(words[-1] if words else "")
    except ValueError:
        raise KeyFileError(
            f"{path} holds no public key; name the .pub file that was made beside the key."
        ) from None
    return words[-1]


def check_name(name: str) -> str:
    """Return the name.

    Raises:
        ValueError: It is empty, too long, begins or ends with a space, or cannot be printed.
    """
    if not name or len(name) > LONGEST_NAME or name != name.strip() or not name.isprintable():
        raise ValueError(
            f"{name!r} cannot name an actor; use up to {LONGEST_NAME} printable characters."
        )
    return name


def _public(text: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))


def _not_a_key(path: Path) -> str:
    return f"{path} holds no Ed25519 key that penstock wrote; make one with Actor.create."


def _private_text(path: Path) -> str:
    try:
        with path.open() as f:
            held = os.fstat(f.fileno())
            if exposed(path, held):
                mode = stat.S_IMODE(held.st_mode)
                raise KeyFileError(
                    f"{path} can be read or changed by others (mode {mode:04o}), so they may sign "
                    f"as you. Make a new key, or if you are sure nobody did: chmod 600 {path}"
                )
            return f.read()
    except FileNotFoundError:
        raise KeyFileError(f"{path} is not there; set {KEY_VARIABLE} to a key file.") from None


def _write_new(path: Path, text: str) -> None:
    """Write a file that only its owner can read; whole, or not at all, and never over another."""
    part = path.with_name(f".part-{secrets.token_hex(4)}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(text)
    try:
        path.hardlink_to(part)
    finally:
        part.unlink()
