"""How a row of evidence reads: its number with the interval, its limit, its users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.report.documents import FOUR_DIGITS, number

Row = Mapping[str, Any]

MARKS = {"pass": "✓", "fail": "✗", "error": "!", "inconclusive": "?"}

OPEN = "…"
"""Stands for the end of an interval that nothing is known of yet."""


def quantity(value: float | None, unit: str, *, sign: bool = False) -> str:
    """Return a number with its unit, as people read it.

    >>> quantity(0.0213, "share"), quantity(1.5, "×"), quantity(-0.004, "per user", sign=True)
    ('2.13 %', '1.5×', '-0.004')
    >>> quantity(12.3456, "ms"), quantity(None, "share")
    ('12.35 ms', '…')
    """
    if value is None:
        return OPEN
    if unit == "share":
        return f"{100 * value:{'+' if sign else ''}.3g} %"
    if unit == "×":
        return f"{value:.3g}×"
    if unit == "ms":
        return f"{number(value)} ms"
    small = abs(value) < FOUR_DIGITS
    return format(value, ("+" if sign else "") + (".3g" if small else ",.0f"))


def interval(row: Row) -> str:
    """Return a row's number and the confidence sequence around it; nothing where none was measured.

    >>> interval({"estimate": 1.42, "low": 0.9, "high": None, "unit": "×"})
    '1.42× [0.9, …]'
    """
    if row.get("estimate") is None:
        return ""
    unit, sign = _unit(row), row.get("role") == "primary"
    said = quantity(row["estimate"], unit, sign=sign)
    low, high = row.get("low"), row.get("high")
    if low is None and high is None:
        return said
    ends = [
        quantity(end, unit, sign=sign).removesuffix("×").removesuffix(" ms") for end in (low, high)
    ]
    if unit == "share":
        ends[0] = ends[0].removesuffix(" %")
    return f"{said} [{ends[0]}, {ends[1]}]"


def limit(row: Row) -> str:
    """Return what a row's number must stay below or above; of a split, what it is meant to be.

    >>> limit({"limit": 2.0, "side": "below", "unit": "×"})
    '< 2×'
    """
    if row.get("limit") is None:
        return ""
    side = ">" if row.get("side") == "above" else "<"
    side = "=" if row.get("role") == "split" else side
    return f"{side} {quantity(row['limit'], _unit(row), sign=row.get('role') == 'primary')}"


def users(row: Row) -> str:
    """Return how many users of the challenger a row is of, and how many are needed.

    >>> users({"users": {"challenger": 1204, "champion": 9000}, "needed": 2000})
    '1,204/2,000'
    """
    counted = (row.get("users") or {}).get("challenger")
    if counted is None:
        return ""
    needed = row.get("needed")
    return f"{counted:,}" + (f"/{needed:,}" if needed else "")


def _unit(row: Row) -> str:
    return str(row.get("unit") or "")


def lasting(seconds: float) -> str:
    """Return a time as people say it, in its two largest parts.

    >>> lasting(0.42), lasting(75), lasting(3 * 86400 + 7200), lasting(-3)
    ('0.4 s', '1 min 15 s', '3 d 2 h', '0 s')
    """
    if seconds < 60:
        return f"{max(0.0, round(seconds, 1)):g} s"
    parts: list[str] = []
    left = round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
        if len(parts) == 2 or (parts and not count):
            break
    return " ".join(parts)
