"""The network: embeddings of who, what and when beside the numbers, then a small perceptron."""

from __future__ import annotations

import torch
from torch import nn

from workloads.streamrec.transform import CATEGORIES, HOURS, ITEM_BUCKETS, NUMBERS, USER_BUCKETS

TABLES = ((HOURS, 4), (CATEGORIES, 4), (USER_BUCKETS, 8), (ITEM_BUCKETS, 8))
"""Rows and width of each embedding, in the order of ``transform.IDS``."""

START_SPREAD = 0.01
"""Standard deviation of an untrained embedding: near 0, so that a user or item that training never
saw says nothing."""

HIDDEN = (64, 32)


class Embedded(nn.Module):
    """Looks up the ids of packed rows [n, d]; returns their embeddings side by side, [n, width]."""

    width = sum(width for _, width in TABLES)

    def __init__(self) -> None:
        """Make the tables."""
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for rows, width in TABLES)
        for parameter in self.tables.parameters():
            nn.init.normal_(parameter, std=START_SPREAD)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Look them up; they are whole numbers that a float32 holds exactly."""
        ids = rows[:, len(NUMBERS) :].to(torch.int64)
        return torch.cat([table(ids[:, i]) for i, table in enumerate(self.tables)], dim=1)


class ClickNetwork(nn.Module):
    """Packed rows [n, d] to logits [n, classes].

    The first layer is two: a tensor has one int8 scale, and the numbers, up to forty times as large
    as the embeddings, would leave those some six steps. Apart, each has its own 255.
    """

    def __init__(self, *, classes: int) -> None:
        """Make the layers."""
        super().__init__()
        first, second = HIDDEN
        self.embedded = Embedded()
        self.of_embedded = nn.Linear(Embedded.width, first, bias=False)
        self.of_numbers = nn.Linear(len(NUMBERS), first)
        self.rest = nn.Sequential(
            nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, classes)
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        numbers = self.of_numbers(rows[:, : len(NUMBERS)])
        return self.rest(numbers + self.of_embedded(self.embedded(rows)))


def build(*, classes: int) -> nn.Module:
    """Return an untrained network: packed rows [n, len(FEATURES)] to logits [n, classes]."""
    return ClickNetwork(classes=classes)
