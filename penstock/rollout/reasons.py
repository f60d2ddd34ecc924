"""Reasons: what a person says why, kept in the ledger and shown on terminals for years."""

from __future__ import annotations

from penstock.stage import Refused

LONGEST = 1000
"""Characters of a reason; what needs more belongs into a document."""


def check(reason: str, *, asked: str) -> None:
    """See that a reason is one printable line that says something.

    Args:
        asked: The sentence for whoever gives none.

    Raises:
        Refused: It is empty, longer than :data:`LONGEST`, or would steer a terminal.
    """
    if not reason.strip():
        raise Refused(asked)
    if len(reason) > LONGEST:
        raise Refused(
            f"the reason has {len(reason)} characters, {LONGEST} are allowed; say it in a sentence."
        )
    if not reason.isprintable():
        wrong = next(c for c in reason if not c.isprintable())
        raise Refused(f"the reason holds {ascii(wrong)}, which cannot be printed; say it in a line.")
