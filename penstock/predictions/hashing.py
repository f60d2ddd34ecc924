"""Salted hashes: the same person is recognised in the log, and nobody can be read from it.

BLAKE2b keyed with the salt: without it, trying every id there is tells nothing. Whoever loses the
salt can no longer find a user's rows, and whoever changes it makes everyone somebody new.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from penstock.private import exposed

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

    def user(self, user: bytes) -> str:
        """Return the hash of a user's id, 32 hexadecimal digits.

        Args:
            user: As the request's header held it, whole: a text may be sent in several encodings.
        """
        begun = self._users.copy()
        begun.update(user)
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
        ValueError: There is no such file, or others can read it.
        OSError: It is not ours to read.
    """
    try:
        with path.open("rb") as f:
            held = os.fstat(f.fileno())
            if exposed(path, held):
                mode = stat.S_IMODE(held.st_mode)
                raise ValueError(
                    f"{path} can be read or changed by others (mode {mode:04o}), who can then find "
                    f"out whose rows are whose: chmod 600 {path}"
                )
            return f.read().strip()
    except FileNotFoundError:
        raise ValueError(
            f"{path} is not there; name the file with the salt of user hashes: --salt or "
            "PENSTOCK_SALT. With another salt nobody is found."
        ) from None
