"""The anchor: the chain's end, noted outside of the table.

A chain cannot show that its last entries were taken away; a note of where it ended can. It is
written after each append: a crash may leave it behind the chain, never ahead of it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.ledger.entry import EMPTY, Head, LedgerError
from penstock.ledger.schema import SQLITE

HEAD_VARIABLE = "PENSTOCK_LEDGER_HEAD"
"""Environment variable: the anchor's file. Best where who writes the table cannot write."""


@dataclass(frozen=True)
class Anchor:
    """A file with the last known head, or no file and nothing known."""

    path: Path | None

    def read(self) -> Head:
        """Return the head that was noted last; that of an empty chain where none was.

        Raises:
            LedgerError: The file holds no head.
        """
        if self.path is None or not self.path.exists():
            return EMPTY
        try:
            said = json.loads(self.path.read_text())
            return Head(int(said["sequence"]), str(said["hash"]))
        except (ValueError, KeyError, TypeError) as e:
            raise LedgerError(
                f"{self.path} holds no head of a ledger; verify the ledger against an export, then "
                "remove the file: the next entry writes it anew."
            ) from e

    def write(self, head: Head) -> None:
        """Note a head, unless a later one is noted; a reader sees the old note or the new one."""
        if self.path is None or self.read().sequence >= head.sequence:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".part-{secrets.token_hex(4)}")
        part.write_text(json.dumps(head._asdict()) + "\n")
        part.replace(self.path)


def anchor_of(url: str, environment: Mapping[str, str] = os.environ) -> Anchor:
    """Return the anchor of the ledger at a URL: where the variable says, or beside its file."""
    named = environment.get(HEAD_VARIABLE)
    if named:
        return Anchor(Path(named))
    if url.startswith(SQLITE):
        return Anchor(Path(url.removeprefix(SQLITE)).with_suffix(".head"))
    return Anchor(None)
