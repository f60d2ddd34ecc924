"""The anchor: the chain's end, noted outside of the table.

A chain cannot show that its last entries were taken away; a note of where it ended can. It is
written after each append: a crash may leave it behind the chain, never ahead of it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.ledger.entry import EMPTY, Head, LedgerError
from penstock.ledger.schema import SQLITE

HEAD_VARIABLE = "PENSTOCK_LEDGER_HEAD"
"""Environment variable: the anchor's file. Best where who writes the table cannot write."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Anchor:
    """A file with the last known head, or no file and nothing known."""

    path: Path | None

    def read(self) -> Head:
        """Return the head that was noted last; that of an empty chain where none was.

        Raises:
            LedgerError: The file cannot be read or holds no head.
        """
        if self.path is None:
            return EMPTY
        try:
            said = json.loads(self.path.read_text())
            return Head(int(said["sequence"]), str(said["hash"]))
        except FileNotFoundError:
            return EMPTY
        except OSError as e:
            raise LedgerError(f"the note of the ledger's end cannot be read: {e}.") from e
        except (ValueError, KeyError, TypeError) as e:
            raise LedgerError(
                f"{self.path} holds no head of a ledger; verify the ledger against an export, then "
                "remove the file: the next entry writes it anew."
            ) from e

    def probe(self) -> None:
        """Find out whether a head can be noted, before the entry that needs it is made.

        Raises:
            LedgerError: It cannot.
        """
        if self.path is None:
            return
        try:
            with _alone(self.path):
                pass
        except OSError as e:
            raise LedgerError(
                f"the end of the ledger cannot be noted in {self.path}: {e}. Nothing was entered; "
                f"make its folder writable, or name another file in {HEAD_VARIABLE}."
            ) from e

    def note(self, head: Head) -> None:
        """Note a head, unless a later one is noted; a reader sees the old note or the new one.

        The entry is in the ledger already, so what goes wrong here is logged and not raised: the
        next entry notes its own end.
        """
        if self.path is None:
            return
        try:
            with _alone(self.path):
                if self.read().sequence < head.sequence:
                    part = self.path.with_name(f".part-{secrets.token_hex(4)}")
                    part.write_text(json.dumps(head._asdict()) + "\n")
                    part.replace(self.path)
        except (OSError, LedgerError) as e:
            _log.warning(
                "entry %d is in the ledger, but its end could not be noted in %s: %s",
                head.sequence,
                self.path,
                e,
            )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep every other process and thread that notes in this file waiting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def anchor_of(url: str, environment: Mapping[str, str] = os.environ) -> Anchor:
    """Return the anchor of the ledger at a URL: where the variable says, or beside its file."""
    named = environment.get(HEAD_VARIABLE)
    if named:
        return Anchor(Path(named))
    if url.startswith(SQLITE):
        return Anchor(Path(url.removeprefix(SQLITE)).with_suffix(".head"))
    return Anchor(None)
