"""Batches in a seeded order: which examples, in whose process, made ready ahead of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Augment = Callable[..., torch.Tensor]
"""Changes a batch of inputs [b, ...], given ``generator``."""

ORDER, CHANGES, FORWARD = range(3)
"""What a seed is for; each use has numbers of its own."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Network inputs of shape [n, ...] and labels of shape [n]."""

    inputs_n: NDArray[np.float32]
    labels_n: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Which of the processes that share every step this one is."""

    rank: int = 0
    world: int = 1


def seed_of(seed: int, use: int, *where: int) -> int:
    """Return a seed that depends on where in a training it is used, and on nothing before it.

    So an order or a change of a batch is the same whichever process or thread makes it, and after
    a resume.
    """
    return int(np.random.SeedSequence([seed, use, *where]).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The batches of a training; this process's part of each."""

    examples: Examples
    size: int
    """Examples of a batch, over all processes."""

    seed: int
    device: str
    augment: Augment | None = None
    ranks: Ranks = Ranks()
    prefetch: int = 0
    channels_last: bool = False

    def __post_init__(self) -> None:
        n = len(self.examples.labels_n)
        if n < (self.size if self.ranks.world > 1 else 1):
            raise ValueError(
                f"{n} examples for batches of {self.size}; give more rows or a smaller batch."
            )

    def __len__(self) -> int:
        """Return how many there are in an epoch; the rest that fills none is left out."""
        return max(1, len(self.examples.labels_n) // self.size)

    def epoch(self, epoch: int, *, after: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield inputs [b, ...] and labels [b] of the steps after some, on the device."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, ORDER, epoch))
        order = torch.randperm(len(self.examples.labels_n), generator=generator).numpy()
        if not self.prefetch:
            for step in range(after, len(self)):
                yield self._ready(order, epoch, step)
            return
        # One thread makes them in their order; how far ahead it is changes nothing in them.
        with self._pool() as pool:
            waiting: deque[Future[tuple[torch.Tensor, torch.Tensor]]] = deque()
            for step in range(after, len(self)):
                waiting.append(pool.submit(self._ready, order, epoch, step))
                if len(waiting) > self.prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _pool(self) -> ThreadPoolExecutor:
        """Return a pool of one thread, which has the GPU that this one has: each has its own."""
        if self.device != "cuda":
            return ThreadPoolExecutor(1, "prefetch")
        here = torch.cuda.current_device()
        return ThreadPoolExecutor(1, "prefetch", torch.cuda.set_device, (here,))

    def _ready(
        self, order: NDArray[np.int64], epoch: int, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        whole = order[step * self.size : (step + 1) * self.size]
        picked = whole[self.ranks.rank :: self.ranks.world]
        inputs = torch.from_numpy(self.examples.inputs_n[picked])
        labels = torch.from_numpy(self.examples.labels_n[picked])
        if self.augment is not None:
            seed = seed_of(self.seed, CHANGES, epoch, step, self.ranks.rank)
            inputs = self.augment(inputs, generator=torch.Generator().manual_seed(seed))
        if self.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if self.device == "cuda":
            inputs, labels = inputs.pin_memory(), labels.pin_memory()
        return (
            inputs.to(self.device, non_blocking=True),
            labels.to(self.device, non_blocking=True),
        )
