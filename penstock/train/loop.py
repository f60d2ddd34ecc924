"""The training loop: seeded order, seeded changes, one cycle of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from penstock.stage import Refused
from penstock.stats import metrics
from penstock.train import determinism
from penstock.train.batches import FORWARD, Augment, Batches, Examples, Ranks, seed_of
from penstock.train.checkpoint import Checkpoint, Parts, Position
from penstock.workload import Training, TrainingPrecision

MEASURED_AT_ONCE = 1024
"""Validation rows of one forward pass."""


class Diverged(Refused):
    """The loss is no number any more."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained, and what it is judged by."""

    build: Callable[[], nn.Module]
    """Returns an untrained network: inputs [n, ...] to logits [n, classes]."""

    augment: Augment | None = None
    metric: str = "accuracy"
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of the training curve; losses are mean cross-entropies."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_metric: float | None
    """None where the validation rows cannot tell: an AUC of one label."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training leaves."""

    model: nn.Module
    curve: tuple[Epoch, ...]
    proof: dict[str, str]
    """Tensor hashes after ``proof_steps`` steps, model and optimizer."""

    steps: int
    """Done here, without those of a checkpoint."""


@dataclass(frozen=True)
class _Network:
    """The network itself, and the same parameters as a step calls them."""

    plain: nn.Module
    called: nn.Module


def train(
    task: Task,
    train: Examples,
    validation: Examples,
    settings: Training,
    *,
    device: str,
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
    stop_after: int | None = None,
    checkpoint: Checkpoint | None = None,
    heard: Callable[[Epoch], None] = lambda _: None,
) -> Trained:
    """Train from scratch.

    Args:
        ranks: With a world above 1, the process group must be there already; each process takes
            its part of every batch and gradients are averaged.
        stop_after: Steps after which to stop, in the midst of the cycle of learning rates.
        checkpoint: Where to go on from, if something is there, and what to keep on the way. The
            result has the same bits as one without.
        heard: Told of every epoch, those that a checkpoint brought first.

    Raises:
        Diverged: The loss is no number any more.
        RuntimeError: An operation of the network has no deterministic form; torch names it.
        ValueError: There are fewer examples than a batch holds.
    """
    determinism.enforce(seed=settings.seed, threads=settings.threads)
    batches = Batches(
        examples=train,
        size=settings.batch_size,
        seed=settings.seed,
        device=device,
        augment=task.augment,
        ranks=ranks,
        prefetch=settings.prefetch,
        channels_last=settings.channels_last,
    )
    network = _network(task, settings, device=device, world=ranks.world)
    parts = _parts(network.plain, settings, total=settings.epochs * len(batches))
    at = Position() if checkpoint is None else checkpoint.resume(parts)
    for line in at.curve:
        heard(Epoch(**line))
    last = min(stop_after or parts.total, parts.total)
    proved = min(settings.proof_steps, parts.total)
    done = 0
    # A checkpoint may have been written between an epoch's last step and its measurement.
    while at.steps < last or at.step == len(batches):
        network.called.train()
        for batch in batches.epoch(at.epoch, after=at.step):
            torch.manual_seed(seed_of(settings.seed, FORWARD, at.steps, ranks.rank))
            at.loss += _step(network.called, batch, parts, settings).to("cpu", torch.float64)
            at.step, at.steps, done = at.step + 1, at.steps + 1, done + 1
            if at.steps == proved:
                at.proof = determinism.hashes(determinism.tensors(network.plain, parts.optimizer))
            if checkpoint is not None:
                checkpoint.step_done(at, parts)
            if at.steps == last:
                break
        if at.step == len(batches):
            mean = _mean(at.loss / at.step, device=device, world=ranks.world)
            if not math.isfinite(mean):
                raise Diverged(
                    f"training diverged in epoch {at.epoch}: its loss is not finite; lower "
                    f"learning_rate, which is {settings.learning_rate:g}."
                )
            epoch = _measured(network.plain, validation, at.epoch, mean, task, device)
            heard(epoch)
            at = at.next_epoch(asdict(epoch))
    return Trained(
        model=network.plain.cpu().eval(),
        curve=tuple(Epoch(**line) for line in at.curve),
        proof=at.proof,
        steps=done,
    )


def _mean(loss: torch.Tensor, *, device: str, world: int) -> float:
    """Return the mean of all processes' losses."""
    if world == 1:
        return float(loss)
    shared = loss.to(device)
    dist.all_reduce(shared)
    return float(shared) / world


def _network(task: Task, settings: Training, *, device: str, world: int) -> _Network:
    plain = task.build().to(device)
    if settings.channels_last:
        cast(Any, plain).to(memory_format=torch.channels_last)
    called = plain
    if world > 1:
        here = [torch.cuda.current_device()] if device == "cuda" else None
        called = cast(nn.Module, nn.parallel.DistributedDataParallel(called, device_ids=here))
    if settings.compiled:
        called = cast(nn.Module, torch.compile(called))
    return _Network(plain, called)


def _parts(model: nn.Module, settings: Training, *, total: int) -> Parts:
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=settings.fused,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=total
    )
    return Parts(model=model, optimizer=optimizer, schedule=schedule, total=total)


def _step(
    called: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], parts: Parts, settings: Training
) -> torch.Tensor:
    """Do one step and return its loss, on the device: reading it here would wait for the GPU."""
    inputs, labels = batch
    mixed = settings.precision is TrainingPrecision.BF16
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=mixed):
        logits = called(inputs)
    loss = nn.functional.cross_entropy(logits.float(), labels)
    parts.optimizer.zero_grad()
    loss.backward()
    parts.optimizer.step()
    parts.schedule.step()
    return loss.detach()


def logits_of(model: nn.Module, examples: Examples, *, device: str) -> np.ndarray:
    """Return float32 logits [n, classes], computed some rows at a time."""
    model.eval()
    with torch.no_grad():
        parts = [
            model(torch.tensor(part, device=device)).float().cpu().numpy()
            for part in np.array_split(
                examples.inputs_n, max(1, -(-len(examples.labels_n) // MEASURED_AT_ONCE))
            )
        ]
    return np.concatenate(parts)


def _measured(
    model: nn.Module,
    validation: Examples,
    epoch: int,
    train_loss: float,
    task: Task,
    device: str,
) -> Epoch:
    logits = logits_of(model, validation, device=device)
    labels = validation.labels_n
    return Epoch(
        epoch=epoch,
        train_loss=train_loss,
        validation_loss=nn.functional.cross_entropy(
            torch.from_numpy(logits), torch.tensor(labels)
        ).item(),
        validation_metric=metrics.measured(task.metric, logits, labels, threshold=task.threshold),
    )
