"""Environments of rivals: each has its own, made when it is asked for and kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

REQUIREMENTS = {
    "mlflow": ("mlflow==3.17.2", "onnx==1.23.2", "onnxruntime==1.31.1"),
    "bentoml": ("bentoml==1.4.39", "onnxruntime==1.31.1"),
    "litserve": ("litserve==0.2.19", "onnxruntime==1.31.1"),
    "mlserver": ("mlserver==1.7.1", "onnxruntime==1.31.1"),
}
"""Of each rival that lives in an environment of its own."""


def run(command: Sequence[Any], environment: Mapping[str, str]) -> None:
    """Run a command to its end.

    Raises:
        LookupError: It failed; the text is its own last line.
    """
    done = subprocess.run(
        [str(part) for part in command], env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise LookupError(f"{command[2]} failed: {last_line(done.stderr)}")


def environment(name: str, home: Path) -> Path:
    """Return a rival's environment, made if it is not there.

    Raises:
        LookupError: It cannot be made; the text says why.
    """
    folder = home / name
    if (folder / ".whole").exists():
        return folder
    uv = shutil.which("uv") or str(ROOT / ".venv" / "bin" / "uv")
    for command in (
        [uv, "venv", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--python", str(folder / "bin/python"), *REQUIREMENTS[name]],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as e:
            raise LookupError(f"{name} is left out: {e}") from e
        if done.returncode:
            raise LookupError(f"{name} is left out: {last_line(done.stderr)}")
    (folder / ".whole").touch()
    return folder


def last_line(text: str) -> str:
    """Return the last line of what a process wrote."""
    return (text.strip().splitlines() or ["no reason given"])[-1]
