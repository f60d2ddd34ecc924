"""Salted hashes: the same person is recognised in the log, and nobody can be read from it.

BLAKE2b keyed with the salt: without it, trying every id there is tells nothing. Whoever loses the
salt can no longer find a user's rows, and whoever changes it makes everyone somebody new.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

SHORTEST = 16
"""Bytes that a salt must have at least."""

_DIGEST = 16


class Hasher:
    """Hashes under one salt; a user and a feature of the same value get different hashes."""

    def __init__(self, salt: bytes) -> None:
        """Take the secret.

        Raises:
            ValueError: It is too short to be one.
        """
        if len(salt) < SHORTEST:
            raise ValueError(
                f"the salt of user hashes has {len(salt)} bytes; {SHORTEST} random ones are the "
                "least, as: head -c 32 /dev/urandom > salt"
            )
        self._key = hashlib.blake2b(salt, digest_size=32).digest()
        self._users = self._of("user")

    def user(self, user: str) -> str:
        """Return the hash of a user's id, 32 hexadecimal digits."""
        begun = self._users.copy()
        begun.update(user.encode())
        return begun.hexdigest()

    def feature(self, name: str, value: bytes) -> str:
        """Return the hash of one value of a feature."""
        begun = self._of(f"feature {name}")
        begun.update(value)
        return begun.hexdigest()

    def _of(self, what: str) -> hashlib.blake2b:
        begun = hashlib.blake2b(key=self._key, digest_size=_DIGEST)
        begun.update(f"{what}\n".encode())
        return begun


def read_salt(path: Path) -> bytes:
    """Return the secret in a file.

    Raises:
        OSError: There is no such file, or it is not ours to read.
    """
    return path.read_bytes().strip()
