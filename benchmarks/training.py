"""Training beside a bare PyTorch loop: the same model, data, order and determinism flags.

``python -m benchmarks.training [--workload digits] [--rows N] [--rounds N] [--json]``
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from penstock import workload as workloads
from penstock.train import determinism, distributed
from penstock.train.batches import Batches, Examples
from penstock.train.checkpoint import Checkpoint
from penstock.train.loop import Task, train
from penstock.workload import Training


def bare(task: Task, examples: Examples, settings: Training, device: str) -> None:
    """Train as one would by hand: batches in a seeded order, and nothing written down."""
    determinism.enforce(seed=settings.seed, threads=settings.threads)
    model = task.build().to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    inputs, labels = torch.tensor(examples.inputs_n), torch.tensor(examples.labels_n)
    order = torch.Generator().manual_seed(settings.seed)
    batches = len(labels) // settings.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * batches
    )
    for _ in range(settings.epochs):
        model.train()
        for picked in torch.randperm(len(labels), generator=order).split(settings.batch_size)[
            :batches
        ]:
            batch = inputs[picked]
            if task.augment is not None:
                batch = task.augment(batch, generator=order)
            loss = nn.functional.cross_entropy(model(batch.to(device)), labels[picked].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            model(inputs[:VALIDATION].to(device)).argmax(1)


VALIDATION = 120


def measured(
    rounds: int, ways: dict[str, Callable[[], None]], clock: Callable[[], float]
) -> dict[str, float]:
    """Return the median seconds of each way; rounds go through all ways in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = clock()
            way()
            seconds[name].append(clock() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}


def run(workload: str, rows: int, rounds: int) -> dict[str, float]:
    """Measure every way of training a workload's network on made-up rows of its real shape."""
    declared = workloads.load_network(workload)
    settings = replace(declared.training, search=None, processes=1, nodes=1)
    task = distributed.task_of(declared)
    examples = _examples(workload, rows, declared.classes)
    validation = Examples(
        inputs_n=examples.inputs_n[:VALIDATION], labels_n=examples.labels_n[:VALIDATION]
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    steps = settings.epochs * len(
        Batches(examples=examples, size=settings.batch_size, seed=1, device=device)
    )
    with tempfile.TemporaryDirectory(prefix="penstock-benchmark-") as folder:
        kept = Path(folder) / "checkpoint.pt"

        def ours(stop_after: int | None = None, *, checkpoints: bool = False) -> None:
            kept.unlink(missing_ok=True)
            due = distributed.every(distributed.CHECKPOINT_S, time.monotonic)
            held = Checkpoint(kept, identity="benchmark", due=due) if checkpoints else None
            train(task, examples, validation, settings, device=device, stop_after=stop_after,
                  checkpoint=held)  # fmt: skip

        found = measured(
            rounds,
            {
                "bare": lambda: bare(task, examples, settings, device),
                "ours": ours,
                "checkpoints": lambda: ours(checkpoints=True),
                "certificate": lambda: ours(settings.proof_steps),
            },
            # Seconds of all processor cores: what else a machine does costs none of them. A GPU's
            # work is in none of them either.
            time.perf_counter if device == "cuda" else time.process_time,
        )
    return {
        "steps": steps,
        "rows": rows,
        "bare_s": found["bare"],
        "ours_s": found["ours"],
        "speed_of_bare": found["bare"] / found["ours"],
        "checkpoints_cost": found["checkpoints"] / found["ours"] - 1,
        "certificate_cost": found["certificate"] / found["ours"],
    }


def _examples(workload: str, rows: int, classes: int) -> Examples:
    rng = np.random.default_rng(1)
    features = getattr(workloads.part(workload, "transform"), "FEATURES", None)
    shape = (1, 8, 8) if features is None else (len(features),)
    # Whole numbers below two are a valid category of every column.
    inputs = rng.integers(0, 2, (rows, *shape)).astype(np.float32)
    return Examples(inputs_n=inputs, labels_n=rng.integers(0, classes, rows))


def main() -> None:
    """Print one line a workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="digits")
    parser.add_argument("--rows", type=int, default=1077)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = run(given.workload, given.rows, given.rounds)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print(
        f"{given.workload}: {found['steps']} steps on {found['rows']} rows; bare "
        f"{found['bare_s']:.2f} s, ours {found['ours_s']:.2f} s ({found['speed_of_bare']:.0%} of "
        f"its speed); certificate {found['certificate_cost']:.1%}, checkpoints "
        f"{found['checkpoints_cost']:+.1%}"
    )


if __name__ == "__main__":
    main()
