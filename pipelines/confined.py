"""Run one command in the file system of an image, confined as a cluster confines a pod's container.

Runs as a process of its own in new namespaces (``unshare`` begins it): no network but loopback, no
other processes to be seen, the root file system read-only, no privilege, and only the folders that
it was given, /tmp and /dev/shm to write to. What a container run time does, in a page, so that
tests need none.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

DEVICES = ("null", "zero", "full", "random", "urandom")
HOME = "/tmp"  # noqa: S108 - in the container, where nobody else is
NO_NEW_PRIVILEGES = 38
"""``PR_SET_NO_NEW_PRIVS``, see prctl(2): no program gives back what was laid down."""

PARENT_DEATH = 1
"""``PR_SET_PDEATHSIG``: the signal of a process whose parent has ended."""

NAMESPACES = ("--mount", "--pid", "--ipc", "--uts")


@dataclass(frozen=True, kw_only=True)
class Confined:
    """A command and where it runs."""

    root: str
    """Folder with the image's files, as a container's own copy of them."""

    command: Sequence[str]
    environment: Mapping[str, str]
    user: int
    folders: Mapping[str, str]
    """Folders it may write to: where they are here, and there."""

    network: bool = False
    """Whether it has this machine's network, as who is to be asked something must."""


def started(confined: Confined, **pipes: int) -> subprocess.Popen[bytes]:
    """Start the command; the caller, who must be root, waits for it. Killed, it takes all along.

    Args:
        pipes: What :class:`subprocess.Popen` takes: ``stdout``, ``stderr``, ``stdin``.
    """
    for folder in confined.folders.values():
        _point(confined.root, folder).mkdir(parents=True, exist_ok=True)
    # Clusters write this file too; without it nobody is called localhost.
    _point(confined.root, "/etc/hosts").write_text("127.0.0.1 localhost\n", encoding="utf-8")
    own = [sys.executable, "-m", "pipelines.confined", json.dumps(asdict(confined))]
    apart = NAMESPACES if confined.network else (*NAMESPACES, "--net")
    return subprocess.Popen(["unshare", *apart, "--fork", "--kill-child", "--", *own], **pipes)


def _point(root: str, folder: str) -> Path:
    return Path(root) / folder.lstrip("/")


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _arrange(confined: Confined) -> None:
    """Mount what the command may see; the rest of the machine is out of its reach."""
    root = confined.root
    _mount("--make-rprivate", "/")
    _mount("--bind", root, root)
    _mount("-o", "remount,bind,ro", root)
    _mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", f"{root}/proc")
    _mount("--rbind", "/sys", f"{root}/sys")
    _mount("-o", "remount,bind,ro", f"{root}/sys")
    _mount("-t", "tmpfs", "-o", "nosuid,mode=755", "tmpfs", f"{root}/dev")
    for device in DEVICES:
        _point(root, f"dev/{device}").touch()
        _mount("--bind", f"/dev/{device}", f"{root}/dev/{device}")
    _point(root, "dev/shm").mkdir()
    for place in ("tmp", "dev/shm"):
        _mount("-t", "tmpfs", "-o", "nosuid,nodev,mode=1777", "tmpfs", f"{root}/{place}")
    for here, there in confined.folders.items():
        # One below /tmp has vanished under what was just mounted there.
        _point(root, there).mkdir(parents=True, exist_ok=True)
        _mount("--bind", here, str(_point(root, there)))
    if not confined.network:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _become(confined: Confined) -> None:
    """Lay down every privilege, for good."""
    os.chroot(confined.root)
    os.chdir(HOME)
    os.setgroups([])
    os.setresgid(confined.user, confined.user, confined.user)
    os.setresuid(confined.user, confined.user, confined.user)
    prctl = ctypes.CDLL(None).prctl
    # unshare asked for this too; whoever becomes another user is asked anew.
    if prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or prctl(PARENT_DEATH, signal.SIGKILL, 0, 0, 0):
        raise OSError("prctl was refused")


def main(text: str) -> None:
    """Become the command that is described; this returns only by an exception."""
    confined = Confined(**json.loads(text))
    _arrange(confined)
    _become(confined)
    os.umask(0o022)
    os.execvpe(  # noqa: S606 - the command is the image's and the step's
        confined.command[0], list(confined.command), dict(confined.environment)
    )


if __name__ == "__main__":
    main(sys.argv[1])
