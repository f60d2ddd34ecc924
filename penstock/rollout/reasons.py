"""Reasons that people give: for other people's eyes, so nothing that would steer a terminal."""

from __future__ import annotations

LONGEST_REASON = 1000


def stated(reason: str, what: str) -> str:
    """Return a reason without the spaces around it.

    Args:
        what: That the reason is for, as the sentence that refuses it begins.

    Raises:
        ValueError: There is none, it is too long, or not of printable characters alone.
    """
    said = reason.strip()
    if not said:
        raise ValueError(f"{what} wants a reason; say in a sentence why.")
    if len(said) > LONGEST_REASON or not said.isprintable():
        raise ValueError(
            f"{what} wants a reason of up to {LONGEST_REASON} printable characters in one line; "
            f"{len(said)} came: {said[:40]!a}."
        )
    return said


def spelt(reason: str) -> str:
    """Return a reason that a machine gives, so that it can be kept: what cannot be printed spelt.

    An abort must not fail because the error that it is for has two lines.
    """
    seen = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in reason)
    return seen[:LONGEST_REASON]
