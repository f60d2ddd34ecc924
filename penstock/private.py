"""Private: whether the file of a secret is for our eyes alone, on a machine and in a pod."""

from __future__ import annotations

import os
import stat
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""Permissions that the file of a secret may not give, unless nobody else is there."""

EXCHANGED = "..data"
"""The link by which a kubelet exchanges all files of a mounted secret at once."""


def exposed(path: Path, held: os.stat_result, *, root: int = 0) -> bool:
    """Return whether others can read or change the file of a secret.

    What a kubelet mounts is root's and readable by a group or by all, since the user of a pod is
    nobody's; but only that pod has it.

    Args:
        held: Of the opened file, which may be another one than lies at the path by now.
        root: The user that mounts.
    """
    mode = stat.S_IMODE(held.st_mode)
    if not mode & OTHERS:
        return False
    return bool(mode & (stat.S_IWGRP | stat.S_IWOTH)) or not _mounted(path, held, root)


def _mounted(path: Path, held: os.stat_result, root: int) -> bool:
    links = (path, path.parent / EXCHANGED)
    try:
        rooted = all(link.is_symlink() and link.lstat().st_uid == root for link in links)
    except OSError:
        return False
    return rooted and held.st_uid == root
