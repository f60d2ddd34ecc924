"""Write a ledger as JSON Lines, and check such a file without the database.

One line an entry: its fields, the body as an object. The last line says where the chain ends and
until when it must be kept, so that a file that was cut is seen.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from penstock.ledger.audit import Audit, Broken
from penstock.ledger.chain import Ledger
from penstock.ledger.entry import EMPTY, Head, line_of, row_of

END, KEEP_UNTIL = "end", "keep_until"
"""Fields of the last line."""


def export(ledger: Ledger, path: Path) -> Audit:
    """Write every entry, checked on the way; the whole file or none.

    Raises:
        ValueError: The file exists; an export is evidence and is not written over.
        Broken: The chain is not whole; nothing is left behind.
    """
    if path.exists():
        raise ValueError(f"{path} exists; name a file that does not.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{secrets.token_hex(4)}")
    try:
        checked = _write(ledger, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return checked


def verify_export(path: Path, *, head: Head | None = None) -> Audit:
    """Check an export as ``Ledger.audit`` checks a table.

    Args:
        head: An end that the chain is known to have had; the file's own last line by default.

    Raises:
        Broken: The first entry that is wrong, or the file was cut.
    """
    checked, end = Audit(known=head or EMPTY), None
    with path.open(encoding="ascii", errors="replace") as f:
        for line in f:
            if end is not None:
                raise Broken(checked.head.sequence + 1, "form", "it stands behind the last line.")
            end = _take(checked, line.rstrip("\n"))
    if end is None:
        raise Broken(checked.head.sequence + 1, "end", f"it is missing: {path} was cut.")
    if end != checked.head:
        raise Broken(
            checked.head.sequence + 1,
            "end",
            f"it is missing: the last line says that the chain reaches entry {end.sequence}.",
        )
    checked.close()
    return checked


def _write(ledger: Ledger, part: Path) -> Audit:
    checked = Audit(known=ledger.known())
    with part.open("x", encoding="ascii") as f:
        for row in ledger.rows():
            checked.take(row)
            f.write(line_of(row) + "\n")
        checked.close()
        end = {END: checked.head._asdict(), KEEP_UNTIL: checked.keep_until}
        f.write(json.dumps(end, separators=(",", ":")) + "\n")
        f.flush()
        os.fsync(f.fileno())
    return checked


def _take(checked: Audit, line: str) -> Head | None:
    """Check one line; return the end of the chain where the line is the last."""
    expected = checked.head.sequence + 1
    try:
        fields = json.loads(line)
        if END in fields:
            return Head(fields[END]["sequence"], fields[END]["hash"])
        row = row_of(fields)
    except (ValueError, KeyError, TypeError) as e:
        raise Broken(expected, "form", f"its line cannot be read: {e}.") from e
    checked.take(row)
    if line_of(row) != line:
        raise Broken(expected, "form", "its line is not written as it was exported.")
    return None
