"""Train, train the first steps again, and say whether the bits repeated and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist

from penstock.train import determinism
from penstock.train.batches import Examples, Ranks
from penstock.train.busy import Busy
from penstock.train.checkpoint import Checkpoint
from penstock.train.determinism import Certificate
from penstock.train.loop import Epoch, Task, Trained, train
from penstock.workload import Training


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What a training cost; a measurement, so two runs differ in it."""

    seconds: float
    """Of the training itself, checkpoints and validation included."""

    examples_per_s: float | None
    """None where everything came from a checkpoint."""

    certificate_s: float
    """For the steps that were trained a second time."""

    checkpoint_s: float
    gpu_busy: float | None
    """Share of the time in which the GPU worked, 0 to 1; None without one."""


@dataclass(frozen=True, kw_only=True)
class Proved:
    """A training with its certificate."""

    trained: Trained
    certificate: Certificate
    speed: Speed

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the network as plain values."""
        return {
            "curve": [asdict(epoch) for epoch in self.trained.curve],
            "certificate": self.certificate.to_dict(),
            "speed": asdict(self.speed),
        }


def prove(
    task: Task,
    examples: Examples,
    validation: Examples,
    settings: Training,
    *,
    device: str,
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
    checkpoint: Checkpoint | None = None,
    heard: Callable[[Epoch], None] = lambda _: None,
) -> Proved:
    """Train, and train the first ``proof_steps`` steps a second time.

    The second time never starts from a checkpoint: it shows that the whole path repeats.
    """
    began = time.monotonic()
    with Busy.of(device, index=torch.cuda.current_device() if device == "cuda" else 0) as busy:
        whole = train(
            task, examples, validation, settings,
            device=device, ranks=ranks, checkpoint=checkpoint, heard=heard,
        )  # fmt: skip
    trained_s = time.monotonic() - began
    again = train(
        task, examples, validation, settings,
        device=device, ranks=ranks, stop_after=settings.proof_steps,
    )  # fmt: skip
    certificate = determinism.certify(
        {**whole.proof, **_of_all_ranks(whole, ranks)},
        {**again.proof, **_of_rank_0(whole, ranks)},
        steps=min(settings.proof_steps, again.steps),
        threads=settings.threads,
        device=device,
        world=ranks.world,
    )
    speed = Speed(
        seconds=trained_s,
        examples_per_s=whole.steps * settings.batch_size / trained_s if whole.steps else None,
        certificate_s=time.monotonic() - began - trained_s,
        checkpoint_s=0.0 if checkpoint is None else checkpoint.seconds,
        gpu_busy=busy.share,
    )
    return Proved(trained=whole, certificate=certificate, speed=speed)


def _of_all_ranks(trained: Trained, ranks: Ranks) -> dict[str, str]:
    """Return the hash of each process's parameters at the end, by name of the process.

    Buffers are left out: those of rank 0 count, the others are overwritten before every step.
    """
    if ranks.world == 1:
        return {}
    mine = _parameters(trained.model)
    found: list[Any] = [None] * ranks.world
    dist.all_gather_object(found, mine)
    return {f"parameters of rank {rank}": hashed for rank, hashed in enumerate(found)}


def _of_rank_0(trained: Trained, ranks: Ranks) -> dict[str, str]:
    """Return what the processes' parameters must be: those of the first."""
    if ranks.world == 1:
        return {}
    held: list[Any] = [_parameters(trained.model)]
    dist.broadcast_object_list(held, src=0)
    return {f"parameters of rank {rank}": held[0] for rank in range(ranks.world)}


def _parameters(model: torch.nn.Module) -> str:
    return determinism.combined(determinism.hashes(dict(model.named_parameters())))
