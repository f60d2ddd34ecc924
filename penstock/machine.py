"""What this machine is: code revision, libraries, processor, GPU. Looked up, never guessed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

FIELDS = ("gpu", "compute_capability", "driver", "cuda")
NAMED = ("torch", "torchvision", "onnx", "onnxruntime", "feast", "numpy")


def environment(root: Path) -> dict[str, Any]:
    """Return Python, lock, libraries, CUDA, driver and GPU; None where there is none.

    Args:
        root: Folder of the checkout, which holds ``requirements/``.
    """
    lock = root / "requirements" / "all.txt"
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
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
    """Return the commit, with ``+changes`` when the tree differs; None outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    asked = [[git, "rev-parse", "HEAD"], [git, "status", "--porcelain"]]
    done = [subprocess.run(a, cwd=root, capture_output=True, text=True, check=False) for a in asked]
    if any(d.returncode for d in done):
        return None
    return done[0].stdout.strip() + ("+changes" if done[1].stdout.strip() else "")
