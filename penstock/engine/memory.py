"""How much memory this process took at most."""

from __future__ import annotations

import re
from pathlib import Path

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_memory_mb() -> float:
    """Return the largest resident size of this process so far, in megabytes.

    The kernel's own count for this program. What getrusage gives includes the parent's size from
    before the program was started.
    """
    found = _PEAK.search(Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError("the kernel does not tell VmHWM in /proc/self/status; Linux is needed.")
    return int(found[1]) * 1024 / 1e6
