"""Checkpoints: a training that was killed goes on where it was, to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penstock.workload import Training

FORM = 2
"""Of the file; one of another form is left alone and training begins anew."""


@dataclass(kw_only=True)
class Position:
    """How far a training is."""

    epoch: int = 1
    step: int = 0
    """Batches of the epoch that are done."""

    steps: int = 0
    """Batches done in all."""

    loss: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    """Sum over the epoch's batches so far."""

    curve: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    proof: dict[str, str] = field(default_factory=dict[str, str])

    def next_epoch(self, measured: dict[str, Any]) -> Position:
        """Return the beginning of the next epoch, this one's line added to the curve."""
        curve = [*self.curve, measured]
        return Position(epoch=self.epoch + 1, steps=self.steps, curve=curve, proof=self.proof)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything whose state decides the next step; the order of examples follows from the seed."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    total: int
    """Steps of the whole training."""


class Checkpoint:
    """One training's file; written under a temporary name, then renamed."""

    def __init__(self, path: Path, *, identity: str, due: Callable[[], bool]) -> None:
        """Keep checkpoints at ``path``.

        Args:
            identity: What decides the training's bits; a checkpoint of another is not resumed.
            due: Asked after every step whether to write one. When it says so does not change a bit
                of the result.
        """
        self._path, self._identity, self._due = path, identity, due
        self.seconds = 0.0
        """Spent on writing."""

    def resume(self, parts: Parts) -> Position:
        """Put back what was kept and return where it was; the beginning where nothing fits."""
        held = self._read()
        if held is None:
            return Position()
        parts.model.load_state_dict(held["model"])
        parts.optimizer.load_state_dict(held["optimizer"])
        parts.schedule.load_state_dict(held["schedule"])
        _set_random(held["random"])
        return Position(**held["position"])

    def _read(self) -> Mapping[str, Any] | None:
        try:
            # Only tensors and plain values are read: a file that somebody put here runs no code.
            held = torch.load(self._path, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return None
        fits = isinstance(held, dict) and (held.get("form"), held.get("identity")) == (
            FORM, self._identity,
        )  # fmt: skip
        return held if fits else None

    def step_done(self, position: Position, parts: Parts) -> None:
        """Write a checkpoint if one is due.

        Raises:
            OSError: It could not be written; the one before it is still whole.
        """
        if not self._due():
            return
        began = time.monotonic()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f".part-{self._path.name}-{os.getpid()}")
        held = {
            "form": FORM,
            "identity": self._identity,
            "model": parts.model.state_dict(),
            "optimizer": parts.optimizer.state_dict(),
            "schedule": parts.schedule.state_dict(),
            "random": _random(),
            "position": vars(position),
        }
        try:
            torch.save(held, part)
            part.replace(self._path)
        finally:
            part.unlink(missing_ok=True)
            self.seconds += time.monotonic() - began

    def done(self) -> None:
        """Remove the file: what it led to is kept elsewhere."""
        self._path.unlink(missing_ok=True)


def identity_of(settings: Training, *, base: str) -> str:
    """Return a hash of what decides a training's bits.

    Args:
        base: Hash of the examples, the sources and the device, see :func:`identity_of_data`.
    """
    said = json.dumps({**asdict(settings), "base": base}, sort_keys=True)
    return "sha256:" + hashlib.sha256(said.encode()).hexdigest()


def identity_of_data(*arrays: np.ndarray, code: str, device: str, task: Mapping[str, Any]) -> str:
    """Return a hash of examples, sources, device and task.

    Args:
        arrays: All examples.
        code: Hash of the network's and the loop's sources.
        task: What the network is for, and what it is judged by, as plain values.
    """
    h = hashlib.sha256()
    h.update(json.dumps([code, device, torch.__version__, task], sort_keys=True).encode())
    for array in arrays:
        h.update(f"{array.dtype} {array.shape}".encode())
        h.update(np.ascontiguousarray(array).data)
    return "sha256:" + h.hexdigest()


def _random() -> dict[str, Any]:
    name, keys, at, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - libraries use it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, np.asarray(keys).tolist(), at, has_gauss, gauss],
        "python": random.getstate(),
    }


def _set_random(held: Mapping[str, Any]) -> None:
    torch.set_rng_state(held["torch"])
    if held["cuda"]:
        torch.cuda.set_rng_state_all(held["cuda"])
    name, keys, at, has_gauss, gauss = held["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), at, has_gauss, gauss))  # noqa: NPY002
    random.setstate(held["python"])
