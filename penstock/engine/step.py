"""Run the engine stage: an engine of each backend that this machine can make, and what it costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from penstock import machine
from penstock import workload as workloads
from penstock.bundle import (
    Bundle,
    Summary,
    hash_file,
    read,
    store_from_environment,
    write_json,
)
from penstock.engine import budgets, isolated
from penstock.engine.backend import KNOWN, Built, State, Task
from penstock.stage import Refused, carry_out
from penstock.verdict import Outcome
from penstock.workload import Engine, settings_of


def run(*, workload: str, int8: Path, out: Path, now: datetime) -> None:
    """Write an engine bundle at ``out``, from the int8 bundle alone: a GPU machine needs no data.

    It holds ``engine.json`` (what each backend came to, and why, and the hashes of the graph and of
    the golden rows that all of it is about), ``budgets.json`` (what each
    artifact costs), and per backend what it made: ``<backend>.plan`` with ``<backend>.plan.json``,
    ``<backend>.npy`` (outputs [n, k] on the golden inputs, only if it ran), ``<backend>.log``.

    Plans are not repeatable byte for byte, and no two machines cost the same; so the machine and
    its libraries are a part of the fingerprint.

    Raises:
        Refused: A backend that the workload requires did not run.
        ValueError: The workload declares a backend that there is not.
        BundleError: The int8 bundle is not whole.
    """
    declared = workloads.load_network(workload).engine
    if unknown := set(declared.backends) - set(KNOWN):
        raise ValueError(f"no engine backends {sorted(unknown)}; there is {', '.join(KNOWN)}.")
    given = read(int8, kind="int8")
    bundle = carry_out(
        "engine",
        kind="engine",
        workload=workload,
        inputs={"int8": given},
        settings={"engine": settings_of(declared), "here": here()},
        make=lambda folder: _make(folder, declared, given),
        out=out,
        now=now,
    )
    built = [Built.from_dict(b) for b in bundle.json("engine.json")["backends"]]
    if lacking := missing(declared.required, built):
        raise Refused(f"a required engine did not run: {lacking[0].said}")


def here() -> dict[str, Any]:
    """Return what of this machine decides which engines are made, and how."""
    return {**machine.gpu(), "cpu": budgets.cpu()["name"], "cpus": len(os.sched_getaffinity(0))}


def missing(required: Sequence[str], built: Sequence[Built]) -> list[Built]:
    """Return the required engines that did not run."""
    return [b for b in built if b.name in required and b.state is not State.RUN]


def _make(folder: Path, declared: Engine, int8: Bundle) -> Summary:
    built = [isolated.built(_task(name, folder, declared, int8)) for name in declared.backends]
    write_json(
        folder / "engine.json",
        {
            "backends": [asdict(b) for b in built],
            "onnx": hash_file(int8.file("model.int8.onnx")),
            "golden": hash_file(int8.file("golden.npz")),
        },
    )
    ran = [b.name for b in built if b.state is State.RUN]
    cost = budgets.measured(int8, folder, ran, batches=batches_of(declared))
    write_json(folder / "budgets.json", cost)
    return Summary(_outcome(declared, built), "; ".join(b.said for b in built))


def _task(name: str, folder: Path, declared: Engine, int8: Bundle) -> Task:
    store = store_from_environment()
    gpu = (machine.gpu()["gpu"] or "none").replace(" ", "-")
    return Task(
        backend=name,
        onnx=int8.file("model.int8.onnx"),
        golden=int8.file("golden.npz"),
        folder=folder,
        batches=batches_of(declared),
        version_compatible=declared.version_compatible,
        hardware_compatibility=declared.hardware_compatibility,
        timing_cache=store / "timing" / f"{name}-{gpu}.cache" if store else None,
    )


def batches_of(declared: Engine) -> tuple[int, int, int]:
    """Return the smallest, usual and largest batch size of a declaration."""
    small, usual, large = declared.batches
    return small, usual, large


def _outcome(declared: Engine, built: Sequence[Built]) -> Outcome:
    """Return how the stage ended: with no engine that ran there is nothing to judge."""
    if missing(declared.required, built):
        return Outcome.FAIL
    return Outcome.PASS if any(b.state is State.RUN for b in built) else Outcome.ERROR
