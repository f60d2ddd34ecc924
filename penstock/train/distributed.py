"""Training shared by several processes: what they are asked, and what they answer, in a folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from penstock import workload as workloads
from penstock.bundle import write_json
from penstock.stage import Refused
from penstock.train.batches import Examples, Ranks
from penstock.train.checkpoint import Checkpoint
from penstock.train.determinism import Certificate
from penstock.train.loop import Epoch, Task, Trained
from penstock.train.proved import Proved, Speed
from penstock.workload import Network, Training

CHECKPOINT_S = 5.0
"""Seconds of training that a kill may cost."""

ARRAYS = ("train_inputs", "train_labels", "validation_inputs", "validation_labels")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the processes are to train."""

    task: Task
    examples: Examples
    validation: Examples
    settings: Training
    checkpoint: Checkpoint | None
    """Of the first process; None in the others, which read it and write none."""


def task_of(declared: Network) -> Task:
    """Return a workload's network as the loop takes it."""
    module = workloads.part(declared.name, "model")
    return Task(
        build=lambda: module.build(classes=declared.classes),
        augment=getattr(module, "augment", None),
        metric=declared.metric,
        threshold=declared.threshold,
    )


def ask(
    folder: Path,
    workload: str,
    examples: Examples,
    validation: Examples,
    settings: Training,
    *,
    identity: str,
) -> None:
    """Write what is to be trained; a result of the same training that is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = (examples.inputs_n, examples.labels_n, validation.inputs_n, validation.labels_n)
    for name, array in zip(ARRAYS, arrays, strict=True):
        part = folder / f".part-{name}.npy"
        np.save(part, array)
        part.replace(folder / f"{name}.npy")
    said = {**asdict(replace(settings, search=None)), "precision": str(settings.precision)}
    write_json(
        folder / "request.json", {"workload": workload, "settings": said, "identity": identity}
    )


def asked(folder: Path, ranks: Ranks) -> Asked:
    """Read what :func:`ask` wrote."""
    request = json.loads((folder / "request.json").read_text())
    train_inputs, train_labels, validation_inputs, validation_labels = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS
    )
    due = every(CHECKPOINT_S, time.monotonic) if ranks.rank == 0 else lambda: False
    return Asked(
        task=task_of(workloads.load_network(request["workload"])),
        examples=Examples(inputs_n=train_inputs, labels_n=train_labels),
        validation=Examples(inputs_n=validation_inputs, labels_n=validation_labels),
        settings=Training(**request["settings"]),
        checkpoint=Checkpoint(folder / "checkpoint.pt", identity=request["identity"], due=due),
    )


def answer(folder: Path, proved: Proved) -> None:
    """Write a training's result; ``answer.json`` comes last and makes it whole."""
    request = json.loads((folder / "request.json").read_text())
    part = folder / f".part-model-{os.getpid()}.safetensors"
    save_file(proved.trained.model.state_dict(), part)
    part.replace(folder / "model.safetensors")
    said = {**proved.to_dict(), "identity": request["identity"], "steps": proved.trained.steps}
    write_json(folder / "answer.json", said)


def answered(folder: Path, declared: Network, *, identity: str) -> Proved | None:
    """Return the result in a folder; None if there is none, or one of another training."""
    try:
        said: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    except FileNotFoundError:
        return None
    if said["identity"] != identity:
        return None
    model = task_of(declared).build()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    stated = {k: v for k, v in said["certificate"].items() if k != "holds"}
    stated["differed"] = tuple(stated["differed"])
    return Proved(
        trained=Trained(
            model=model.eval(),
            curve=tuple(Epoch(**line) for line in said["curve"]),
            proof={},
            steps=said["steps"],
        ),
        certificate=Certificate(**stated),
        speed=Speed(**said["speed"]),
    )


def forget(folder: Path) -> None:
    """Remove a folder whose result is kept elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)


def torchrun(folder: Path, settings: Training) -> None:
    """Run all processes of a training on this machine and wait for them.

    Raises:
        Refused: One of them failed; the text is the last line it wrote.
    """
    command = [sys.executable, "-m", "penstock.train.launch", *arguments_of(folder, settings)]
    # torchrun would set it to 1 and warn: threads are declared, and set by each process itself.
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment,
        cwd=workloads.root(),
    )  # fmt: skip
    if done.returncode:
        raise Refused(f"training in {settings.processes} processes failed: {_reason(done.stderr)}")


def _reason(stderr: str) -> str:
    """Return the error of the process that failed first: torchrun's own report comes after it."""
    said = stderr.strip().splitlines()
    errors = [line for line in said if "Error: " in line and "ChildFailed" not in line]
    return [*errors, *said[-1:], "it wrote nothing"][0].strip()


def arguments_of(folder: Path, settings: Training) -> list[str]:
    """Return torchrun's arguments for the processes of one machine.

    On several machines the cluster says, in the environment, who leads.
    """
    return [
        *(["--standalone"] if settings.nodes == 1 else []),
        f"--nproc-per-node={settings.processes}",
        "-m",
        "penstock.train.worker",
        str(folder),
    ]


def every(seconds: float, clock: Callable[[], float]) -> Callable[[], bool]:
    """Return a function that is true once in so many seconds of a clock."""
    last = clock()

    def due() -> bool:
        nonlocal last
        now = clock()
        if now - last < seconds:
            return False
        last = now
        return True

    return due
