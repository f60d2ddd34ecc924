"""What this machine's processor can do that decides how an int8 graph runs."""

from __future__ import annotations

import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

VNNI = {"avx512_vnni", "avx_vnni"}


def described() -> str:
    """Return what the kernel says of the processor; nothing where it does not."""
    return CPUINFO.read_text(encoding="utf-8") if CPUINFO.exists() else ""


def has_vnni(text: str) -> bool | None:
    """Return whether it multiplies int8 in one instruction; None where it does not tell.

    Args:
        text: Of :func:`described`.
    """
    flags = re.search(r"^flags\s*: (.+)$", text, re.MULTILINE)
    return None if flags is None else bool(VNNI & {*flags[1].split()})
