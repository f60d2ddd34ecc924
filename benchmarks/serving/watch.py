"""What a process with its children costs, as the kernel says: CPU, memory, open files."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a process and all that descend from it, at one moment."""

    cpu_s: float
    private_mb: float
    """In pages that no other process shares."""

    rss_mb: float
    files: int
    threads: int


def tree(pid: int) -> list[int]:
    """Return a process and its descendants, those that live."""
    found = [pid]
    for one in found:
        for task in PROC.glob(f"{one}/task/*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a tree, with those of children that ended."""
    return sum(_cpu_s(one) for one in tree(pid))


def _cpu_s(pid: int) -> float:
    try:
        # The name, in brackets, may hold spaces.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) * TICK_S


def core_s(core: int) -> float:
    """Return the seconds for which a core has worked, for whomever, since it was started."""
    for line in (PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _waiting, *others = (int(f) for f in fields[:8])
            return (user + nice + system + sum(others)) * TICK_S
    raise ValueError(f"this machine has no core {core}; name one of its own.")


def cost(pid: int) -> Cost:
    """Return what a tree costs now."""
    pids = tree(pid)
    return Cost(
        cpu_s=sum(_cpu_s(one) for one in pids),
        private_mb=sum(_kb(one, "smaps_rollup", "Private_") for one in pids) / 1024,
        rss_mb=sum(_kb(one, "status", "VmRSS:") for one in pids) / 1024,
        files=sum(len(list((PROC / str(one) / "fd").glob("*"))) for one in pids),
        threads=sum(len(list((PROC / str(one) / "task").glob("*"))) for one in pids),
    )


def _kb(pid: int, file: str, name: str) -> int:
    """Return the sum of a file's lines whose names begin so; nothing of a process that ended."""
    try:
        lines = (PROC / str(pid) / file).read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(name))


def free_port() -> int:
    """Return a loopback port nobody uses now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
