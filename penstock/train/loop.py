"""The training loop: seeded order, seeded shifts, one cycle of the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from penstock.train import determinism
from penstock.train.checkpoint import Checkpoint, Parts, Position
from penstock.workload import Training


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Network inputs of shape [n, channels, height, width] and labels of shape [n]."""

    images_nchw: NDArray[np.float32]
    labels_n: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of the training curve; losses are mean cross-entropies."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training leaves: the network, its curve, and tensor hashes after the proof epochs."""

    model: nn.Module
    curve: tuple[Epoch, ...]
    proof: dict[str, str]


def train(
    build: Callable[[], nn.Module],
    train: Examples,
    validation: Examples,
    settings: Training,
    *,
    epochs: int,
    device: str,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train from scratch for ``epochs`` of the cycle that ``settings.epochs`` describes.

    Args:
        checkpoint: Where to go on from, if something is there, and what to keep on the way. The
            result has the same bits as one without.

    Raises:
        RuntimeError: An operation of the network has no deterministic form; torch names it.
    """
    determinism.enforce(seed=settings.seed, threads=settings.threads)
    order = torch.Generator().manual_seed(settings.seed)
    model = build().to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    size = settings.batch_size
    batches = max(1, len(train.labels_n) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * batches
    )
    parts = Parts(model=model, optimizer=optimizer, schedule=schedule, order=order)
    images, labels = torch.tensor(train.images_nchw), torch.tensor(train.labels_n)
    at = Position() if checkpoint is None else checkpoint.resume(parts)
    while at.epoch <= epochs:
        model.train()
        if at.picks is None:
            at.picks = torch.randperm(len(labels), generator=order)
        for picked in at.picks.split(size)[at.step : batches]:
            batch = shifted(images[picked], generator=order).to(device)
            loss = nn.functional.cross_entropy(model(batch), labels[picked].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            at.losses.append(loss.item())
            at.step += 1
            if checkpoint is not None:
                checkpoint.step_done(at, parts)
        measured = _measured(model, validation, at.epoch, float(np.mean(at.losses)), device)
        if at.epoch == settings.proof_epochs:
            at.proof = determinism.hashes(determinism.tensors(model, optimizer))
        curve = [*at.curve, asdict(measured)]
        at = Position(epoch=at.epoch + 1, curve=curve, proof=at.proof)
    return Trained(
        model=model.cpu().eval(),
        curve=tuple(Epoch(**line) for line in at.curve),
        proof=at.proof,
    )


def shifted(images_nchw: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Return the images, each moved by up to one pixel each way; the rim is repeated."""
    n, _, height, width = images_nchw.shape
    padded = nn.functional.pad(images_nchw, (1, 1, 1, 1), mode="replicate")
    offsets = torch.randint(0, 3, (n, 2), generator=generator)
    rows = offsets[:, :1] + torch.arange(height)
    columns = offsets[:, 1:] + torch.arange(width)
    picked = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def _measured(
    model: nn.Module, validation: Examples, epoch: int, train_loss: float, device: str
) -> Epoch:
    model.eval()
    labels = torch.tensor(validation.labels_n)
    with torch.no_grad():
        logits = model(torch.tensor(validation.images_nchw).to(device)).cpu()
    return Epoch(
        epoch=epoch,
        train_loss=train_loss,
        validation_loss=nn.functional.cross_entropy(logits, labels).item(),
        validation_accuracy=(logits.argmax(1) == labels).double().mean().item(),
    )
