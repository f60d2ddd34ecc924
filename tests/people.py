"""People of tests: actors whose keys are made from their names, so that no file is needed."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from penstock.ledger.actors import Actor


def person(name: str = "tester") -> Actor:
    """Return the same actor for the same name, in any process."""
    seed = hashlib.sha256(f"a key for tests only: {name}".encode()).digest()
    return Actor(name, Ed25519PrivateKey.from_private_bytes(seed))
