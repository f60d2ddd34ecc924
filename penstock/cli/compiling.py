"""``penstock compile``: a pipeline as the file that Kubeflow Pipelines takes."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.servers import Workload
from penstock.workload import load


class Pipeline(StrEnum):
    """What a pipeline is for."""

    TRAIN = "train"
    WATCH = "watch"


def compile_(
    workload: Workload,
    pipeline: Annotated[
        Pipeline, typer.Option(help="train: up to a registered version. watch: what is served.")
    ] = Pipeline.TRAIN,
    profile: Annotated[
        Path | None,
        typer.Option(help="Deployment profile, TOML; without one it is for this machine."),
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("pipeline.yaml"),
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing that a cluster would refuse; say all that it would."
        ),
    ] = False,
) -> None:
    """Write a compiled pipeline, the file that Kubeflow Pipelines takes.

    Example: penstock compile digits --out digits.yaml

    Example: penstock compile digits --profile pipelines/profiles/gpu.toml --check

    Exit codes: 0 written; 1 a cluster would refuse it; 2 wrong call, or a wrong profile.
    """
    load(workload)
    command = [sys.executable, "-m", "pipelines.compiling", workload, f"--pipeline={pipeline}"]
    command += ["--out", str(out)]
    command += ["--profile", str(profile)] if profile else []
    command += ["--check"] if check else []
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    typer.echo(ended.stdout, nl=False)
    if ended.returncode:
        typer.echo("\n".join(f"penstock: {line}" for line in _said(ended.stderr)), err=True)
        raise typer.Exit(ended.returncode)


def _said(text: str) -> list[str]:
    """Return the lines that were said; of a traceback, what it ends with."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1:] if any(line.startswith("Traceback") for line in lines) else lines
