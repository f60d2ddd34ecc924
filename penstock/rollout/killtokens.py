"""Tokens with which one HTTP call throws the kill switch: whose they are, and who made each."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from penstock.ledger import Actor
from penstock.rollout.access import LOOPBACK, NAME, AccessError, private, write_private
from penstock.rollout.killroll import NotAllowed, check_person, people

TOKENS = "kill-tokens.json"


class Caller(NamedTuple):
    """Whose token was shown, and who made it."""

    name: str
    maker: str


class _Held(TypedDict):
    port: int
    tokens: dict[str, dict[str, str]]


def tokens_of(home: Path) -> Path:
    """Return the file with the hash of each caller's token, its maker, and the port."""
    return home / "serving" / TOKENS


def port_of(home: Path) -> int | None:
    """Return the port where the switch is heard; None where no token was ever made.

    Raises:
        AccessError: The file cannot be used.
    """
    return _read(home)["port"] if tokens_of(home).exists() else None


def new_token(home: Path, name: str, maker: Actor) -> tuple[str, int]:
    """Return a new token of a caller and the port where it is taken; its hash alone is kept.

    Raises:
        NotAllowed: The copied roll does not know the maker in a role that may.
        ValueError: The name is none, or taken.
    """
    check_person(home, maker)
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!a} cannot name a token; use up to 64 letters, digits or _.- .")
    path = tokens_of(home)
    held = _read(home) if path.exists() else _Held(port=_free_port(), tokens={})
    if name in held["tokens"]:
        raise ValueError(
            f"there is a token {name} already; take it away first: penstock kill token {name} "
            "--revoke"
        )
    token = secrets.token_hex(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    held["tokens"][name] = {"sha256": digest, "maker": maker.name}
    write_private(path, held)
    return token, held["port"]


def revoke(home: Path, name: str, actor: Actor) -> None:
    """Take a token away, whoever holds it.

    Raises:
        NotAllowed: The copied roll does not know the actor in a role that may.
        LookupError: There is no such token.
    """
    check_person(home, actor)
    held = _read(home) if tokens_of(home).exists() else None
    if held is None or held["tokens"].pop(name, None) is None:
        known = ", ".join(sorted(held["tokens"])) if held is not None else ""
        raise LookupError(f"there is no token {name!a}; there are: {known or 'none'}.")
    write_private(tokens_of(home), held)


def caller_of(home: Path, authorization: str | None) -> Caller | None:
    """Return whose token was shown, None where it is nobody's, or of a maker who may no more.

    Raises:
        AccessError: Others than the owner can read the hashes, so they prove nothing; or nobody
            is known here.
    """
    private(tokens_of(home))
    scheme, _, token = (authorization or "").partition(" ")
    shown = hashlib.sha256(token.strip().encode("latin-1")).hexdigest()
    found = [
        Caller(name, held["maker"])
        for name, held in _read(home)["tokens"].items()
        if hmac.compare_digest(shown, held["sha256"])
    ]
    if not found or scheme.lower() != "bearer":
        return None
    try:
        return found[0] if found[0].maker in people(home) else None
    except NotAllowed as e:
        raise AccessError(str(e)) from e


def _read(home: Path) -> _Held:
    """Return what the file holds.

    Raises:
        AccessError: Nothing that can be used.
    """
    path = tokens_of(home)
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))
        tokens = {
            name: {"sha256": str(token["sha256"]), "maker": str(token["maker"])}
            for name, token in held["tokens"].items()
        }
        return _Held(port=int(held["port"]), tokens=tokens)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as e:
        raise AccessError(
            f"{path} cannot be used ({type(e).__name__}: {e}); remove it, then make the tokens "
            "again: penstock kill token NAME"
        ) from e


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.bind((LOOPBACK, 0))
        return trial.getsockname()[1]
