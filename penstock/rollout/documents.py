"""Documents that a market asks for before any of its users is on a version, kept by their hash."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from penstock.ledger import Actor, Entry, Ledger
from penstock.registered import registration
from penstock.rollout import prohibited
from penstock.stage import Refused

DOCUMENT = "document"
"""Kind of the entry by which somebody attaches a document to a version."""

FOLDER = "documents"
"""Below the home; a file in it is named by the hash of what it holds."""

LARGEST_BYTES = 20_000_000
"""Each is read at every look of the controller."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


def attach(
    home: Path,
    ledger: Ledger,
    workload: str,
    version: int,
    name: str,
    file: Path,
    *,
    actor: Actor,
    now: datetime,
    outcome: str = "",
    computed: bool = False,
) -> Entry:
    """Keep a copy of a document and say in the ledger that it belongs to a version.

    A document of a name that is there already takes its place; approvals that saw the other one
    are void then.

    Args:
        outcome: Of a check whose result the document is; one that is no ``pass`` does not count.
        computed: Whether a command made it of the version itself.

    Raises:
        Refused: The name or the file is none.
        LookupError: The version was never registered.
        LedgerError: The ledger does not take the entry.
    """
    if not _NAME.fullmatch(name):
        raise Refused(f"{name!r} is no name of a document; use small letters, digits and dashes.")
    registration(ledger.entries(workload), version)
    held = _read(file)
    sha256 = hashlib.sha256(held).hexdigest()
    kept = home / FOLDER / f"{sha256}{_ending(file)}"
    _keep(kept, held)
    body: dict[str, Any] = {"name": name, "sha256": sha256, "file": str(kept)}
    body |= {"bytes": len(held), "called": file.name, "computed": computed}
    return ledger.append(
        workload=workload,
        version=version,
        kind=DOCUMENT,
        body={**body, "outcome": outcome} if outcome else body,
        actor=actor,
        now=now,
    )


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise Refused(f"{file} is no file; name the document that is to be kept.")
    if (size := file.stat().st_size) > LARGEST_BYTES or not size:
        raise Refused(
            f"{file} has {size} bytes; a document has 1 to {LARGEST_BYTES}. Attach a smaller one, "
            "such as a text that names where the large one is."
        )
    return file.read_bytes()


def _ending(file: Path) -> str:
    return file.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", file.suffix) else ""


def _keep(path: Path, held: bytes) -> None:
    """Write a copy, whole or not at all; one that is there and whole is left alone."""
    if path.is_file() and path.read_bytes() == held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    part.write_bytes(held)
    part.chmod(0o444)
    part.replace(path)


def newest(entries: Sequence[Entry], version: int) -> Mapping[str, Entry]:
    """Return the newest entry of each document of a version, by the document's name."""
    found = [e for e in entries if e.kind == DOCUMENT and e.version == version]
    return {str(e.body.get("name")): e for e in found}


def lacking(entries: Sequence[Entry], version: int, required: Sequence[str]) -> tuple[str, ...]:
    """Return of each required document that is not there, which one and why, in their order."""
    known = newest(entries, version)
    found = ((name, wrong(known.get(name))) for name in required)
    return tuple(f"{name}: {why}" for name, why in found if why)


def wrong(entry: Entry | None) -> str:
    """Return why a document does not count; empty where it does. Its copy is read and hashed."""
    if entry is None:
        return "it was never attached"
    if entry.body.get("name") == prohibited.NAME and not entry.body.get("computed"):
        return "it is the result of a check and was attached by hand; leave the file out"
    outcome = entry.body.get("outcome", "pass")
    if outcome != "pass":
        return f"its outcome is {outcome}"
    try:
        held = Path(str(entry.body.get("file"))).read_bytes()
    except (OSError, ValueError) as e:
        return f"its copy cannot be read, {e}; attach it again"
    if hashlib.sha256(held).hexdigest() != entry.body.get("sha256"):
        return "its copy was altered since it was attached; attach it again"
    return ""
