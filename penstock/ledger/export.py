"""Write a ledger as JSON Lines, and check such a file without the database.

One line an entry: its fields, the body as an object. The last line says where the chain ends and
until when it must be kept, signed by whoever exported it, so that a file that was cut or shortened
is seen. Signed are the bytes ``penstock ledger export 1`` and a zero byte, then the last line
without its ``signature``.

A broken ledger is written otherwise, to be looked at and not to be believed: the bodies are texts,
as they were found, and the last line says what is wrong.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from penstock.ledger.actors import Actor, signed_by
from penstock.ledger.audit import Audit, Broken
from penstock.ledger.chain import Ledger
from penstock.ledger.entry import EMPTY, Head, LedgerError, canonical, line_of, row_of

SIGNING = b"penstock ledger export 1\0"
"""Keeps a signature over an export from being one over anything else."""

END, KEEP_UNTIL = "end", "keep_until"
EXPORTER, KEY_ID, SIGNATURE = "exporter", "key_id", "signature"
"""Fields of the last line."""

BROKEN = "broken"
"""Field of the last line of an export that is evidence of damage."""

TAIL = 65_536
"""Bytes in which the last line lies; it holds no body of an entry."""


def export(ledger: Ledger, path: Path, *, actor: Actor) -> Audit:
    """Write every entry, checked on the way, and sign the end; the whole file or none.

    Raises:
        ValueError: The file exists; an export is evidence and is not written over.
        NotEnrolled: The actor cannot sign in this ledger.
        Broken: The chain is not whole; nothing is left behind.
    """
    checked = Audit(known=ledger.known())
    with _new(path) as f:
        for row in ledger.rows():
            checked.take(row)
            f.write(line_of(row) + "\n")
        checked.close()
        checked.roll.of(actor.name, actor.key_id)
        f.write(_end(checked, actor) + "\n")
    return checked


def export_broken(ledger: Ledger, path: Path) -> Broken:
    """Write what is there of a ledger that does not verify, and return what is wrong with it.

    Raises:
        ValueError: The file exists, or the ledger verifies.
    """
    try:
        ledger.verify()
    except LedgerError as e:
        found = e if isinstance(e, Broken) else Broken(0, "end", str(e))
    else:
        raise ValueError("the ledger verifies; leave out --broken, so that its export does too.")
    with _new(path) as f:
        for row in ledger.rows():
            f.write(json.dumps(row, sort_keys=True, default=repr) + "\n")
        mark = {"sequence": found.sequence, "problem": found.problem, "said": found.said}
        f.write(canonical({BROKEN: mark}) + "\n")
    return found


def verify_export(path: Path, *, head: Head | None = None) -> Audit:
    """Check an export as ``Ledger.audit`` checks a table.

    Args:
        head: An end that the chain is known to have had. Without one, a file that was exported
            earlier, when the chain was shorter, is as good.

    Raises:
        Broken: The first entry that is wrong, the file was cut, its last line is not signed by an
            actor of the ledger, or it is the export of a broken ledger.
    """
    _refuse_broken(path)
    checked, ended = Audit(known=head or EMPTY), False
    with path.open(encoding="ascii", errors="replace") as f:
        for line in f:
            if ended:
                raise Broken(checked.head.sequence + 1, "form", "it stands behind the last line.")
            ended = _take(checked, line.rstrip("\n"))
    if not ended:
        raise Broken(checked.head.sequence + 1, "end", f"it is missing: {path} was cut.")
    checked.close()
    return checked


@contextmanager
def _new(path: Path) -> Iterator[TextIO]:
    """Yield a file that is there under its name once it is whole, and not before."""
    if path.exists():
        raise ValueError(f"{path} exists; name a file that does not.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{secrets.token_hex(4)}")
    try:
        with part.open("x", encoding="ascii") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _end(checked: Audit, actor: Actor) -> str:
    end = {
        END: checked.head._asdict(),
        KEEP_UNTIL: checked.keep_until,
        EXPORTER: actor.name,
        KEY_ID: actor.key_id,
    }
    return canonical({**end, SIGNATURE: actor.sign(SIGNING + canonical(end).encode())})


def _refuse_broken(path: Path) -> None:
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - TAIL))
        last = f.read().splitlines()[-1:]
    try:
        mark = json.loads(last[0])[BROKEN]
        sequence, problem, said = int(mark["sequence"]), str(mark["problem"]), str(mark["said"])
    except (ValueError, LookupError, TypeError):
        return
    raise Broken(sequence, problem, f"{said} This is the export of a broken ledger.")


def _take(checked: Audit, line: str) -> bool:
    """Check one line; return whether it is the last."""
    expected = checked.head.sequence + 1
    try:
        fields = json.loads(line)
        row = None if END in fields else row_of(fields)
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise Broken(expected, "form", f"its line cannot be read: {e}.") from e
    if row is None:
        _check_end(checked, fields, line)
        return True
    checked.take(row)
    if line_of(row) != line:
        raise Broken(expected, "form", "its line is not written as it was exported.")
    return False


def _check_end(checked: Audit, fields: Mapping[str, Any], line: str) -> None:
    """Hold the last line against the entries, and its signature against the roll that they tell."""
    expected = checked.head.sequence + 1
    try:
        said = Head(**fields[END])
        signer = checked.roll.of(fields[EXPORTER], fields[KEY_ID])
        body = {k: v for k, v in fields.items() if k != SIGNATURE}
        right = signed_by(signer.public_key, fields[SIGNATURE], SIGNING + canonical(body).encode())
    except (LedgerError, KeyError, TypeError) as e:
        raise Broken(expected, "form", f"the last line is not one of an export: {e}.") from e
    if not right or canonical(fields) != line:
        raise Broken(expected, "signature", f"the last line is not what {signer.name} signed.")
    if said != checked.head:
        raise Broken(
            expected,
            "end",
            f"it is missing: the last line says that the chain reaches entry {said.sequence}.",
        )
    if fields.get(KEEP_UNTIL) != checked.keep_until:
        raise Broken(expected, "form", "the last line says another keep_until than the entries.")
