"""What this machine is: code revision, libraries, processor, GPU. Looked up, never guessed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FIELDS = ("gpu", "compute_capability", "driver", "cuda")
NAMED = (
    "feast",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "pandas",
    "pyarrow",
    "safetensors",
    "scikit-learn",
    "scipy",
    "sympy",
    "torch",
    "torchvision",
)
"""Libraries that can change a bit of a snapshot, a model or a graph."""

CHANGES = "+changes"
"""Follows a commit when the tree held what no commit does."""

COMMITS = 8
"""Of a range, those that are named."""


def environment(root: Path) -> dict[str, Any]:
    """Return Python, lock, libraries, CUDA, driver and GPU; None where there is none.

    Args:
        root: Folder of the checkout, which holds ``requirements/``.
    """
    lock = root / "requirements" / "all.txt"
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
        "libraries": {name: version for name in NAMED if (version := _version(name))},
        **gpu(),
    }


def gpu() -> dict[str, str | None]:
    """Return name and compute capability of the first GPU, its driver, and the driver's CUDA."""
    nothing: dict[str, str | None] = dict.fromkeys(FIELDS)
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return nothing
    query = [tool, "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, check=False)
    first = said.stdout.strip().splitlines()[:1]
    if said.returncode or not first:
        return nothing
    name, capability, driver = (part.strip() for part in first[0].split(","))
    return {
        "gpu": name,
        "compute_capability": capability,
        "driver": driver,
        "cuda": _cuda(subprocess.run([tool], capture_output=True, text=True, check=False).stdout),
    }


def _cuda(said: str) -> str | None:
    """Return the CUDA version in the driver tool's table.

    >>> _cuda("| NVIDIA-SMI 580.1   Driver Version: 580.1   CUDA Version: 13.0 |")
    '13.0'
    """
    _, found, rest = said.partition("CUDA Version:")
    return rest.split()[0] if found and rest.split() else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_revision(root: Path) -> str | None:
    """Return the commit, with ``CHANGES`` when the tree differs; None outside a checkout."""
    head, status = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    if head is None or status is None:
        return None
    return head.strip() + (CHANGES if status.strip() else "")


def has_commit(root: Path, commit: str) -> bool:
    """Return whether the checkout's git holds a commit, so that its sources can be had again."""
    return _git(root, "cat-file", "-e", f"{commit}^{{commit}}") is not None


def commits_between(root: Path, old: str, new: str, paths: Sequence[str]) -> list[str]:
    """Return short hash and subject of the newest commits that changed paths; [] if not known."""
    asked = ("log", f"--max-count={COMMITS}", "--format=%h %s", f"{old}..{new}", "--", *paths)
    return (_git(root, *asked) or "").splitlines()


@contextmanager
def checked_out(root: Path, commit: str, *, at: Path) -> Iterator[Path]:
    """Yield a folder with the sources of a commit; the checkout itself is not touched.

    Raises:
        OSError: Git could not check it out.
    """
    if _git(root, "worktree", "add", "--detach", str(at), commit) is None:
        raise OSError(f"git could not check out {commit} at {at}; try git worktree prune.")
    try:
        yield at
    finally:
        _git(root, "worktree", "remove", "--force", str(at))


def _git(root: Path, *asked: str) -> str | None:
    """Return what git said, None where it failed or is not there."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, *asked], cwd=root, capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout
