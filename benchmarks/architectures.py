"""The architectures that benchmarks.networks compares; those that were not kept live here alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn


class Cross(nn.Module):
    """A cross network of two layers beside a perceptron: DCN-v2 (Wang et al., 2021)."""

    def __init__(self, encode: nn.Module, width: int, hidden: tuple[int, int]) -> None:
        super().__init__()
        self.encode = encode
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.deep = perceptron(width, hidden)
        self.out = nn.Linear(width + hidden[-1], 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        first = crossed = self.encode(rows)
        for layer in self.crosses:
            crossed = first * layer(crossed) + crossed
        return self.out(torch.cat([crossed, self.deep(first)], dim=1))


class Factors(nn.Module):
    """Pairwise products of fields beside a perceptron: DeepFM (Guo et al., 2017).

    The numbers count as one field, by a linear map of theirs.
    """

    def __init__(self, numbers: int, rows: tuple[int, ...], width: int = 8) -> None:
        super().__init__()
        self.numbers, self.tables = numbers, tables(rows, width)
        self.weights = tables(rows, 1)
        self.field, self.linear = nn.Linear(numbers, width), nn.Linear(numbers, 2)
        self.deep = perceptron(numbers + width * len(rows), (64, 32))
        self.out = nn.Linear(32, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        numbers, ids = rows[:, : self.numbers], rows[:, self.numbers :].to(torch.int64)
        found = [table(ids[:, i]) for i, table in enumerate(self.tables)]
        fields = torch.stack([*found, self.field(numbers)], dim=1)
        pairs = fields.sum(1).square().sum(1) - fields.square().sum((1, 2))
        alone = sum(table(ids[:, i])[:, 0] for i, table in enumerate(self.weights))
        odds = pairs / 2 + alone
        deep = self.out(self.deep(torch.cat([numbers, *found], dim=1)))
        return deep + self.linear(numbers) + torch.stack([-odds, odds], dim=1)


class Beside(nn.Module):
    """Numbers, and what an encoder makes of the whole row, side by side."""

    def __init__(self, encode: nn.Module, numbers: int) -> None:
        super().__init__()
        self.encode, self.numbers = encode, numbers

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return both, [n, width]."""
        return torch.cat([rows[:, : self.numbers], self.encode(rows)], dim=1)


class First(nn.Module):
    """The first columns alone."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return them, [n, columns]."""
        return rows[:, : self.columns]


def tables(rows: tuple[int, ...], width: int) -> nn.ModuleList:
    """Return embeddings that start near 0."""
    made = nn.ModuleList(nn.Embedding(n, width) for n in rows)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.01)
    return made


def perceptron(width: int, hidden: tuple[int, int]) -> nn.Module:
    """Return two hidden layers."""
    return nn.Sequential(
        nn.Linear(width, hidden[0]), nn.ReLU(), nn.Linear(hidden[0], hidden[1]), nn.ReLU()
    )


def _with_head(encode: nn.Module, width: int, hidden: tuple[int, int]) -> nn.Module:
    return nn.Sequential(encode, perceptron(width, hidden), nn.Linear(hidden[1], 2))


def of_credit() -> dict[str, Callable[[], nn.Module]]:
    """Return what is compared for credit, by name."""
    from workloads.credit import model
    from workloads.credit.transform import FEATURES

    d, hidden = len(FEATURES), model.HIDDEN

    def crossed() -> nn.Module:
        steps = model.PiecewiseLinear({n: model.EDGES[n] for n in FEATURES})
        return Cross(steps, steps.width, hidden)

    return {
        "perceptron": lambda: _with_head(nn.Identity(), d, hidden),
        "cross network": lambda: Cross(nn.Identity(), d, hidden),
        "piecewise-linear perceptron (kept)": partial(model.build, classes=2),
        "piecewise-linear cross network": crossed,
    }


def of_streamrec() -> dict[str, Callable[[], nn.Module]]:
    """Return what is compared for streamrec, by name."""
    from workloads.streamrec import model
    from workloads.streamrec.transform import NUMBERS

    d, hidden = len(NUMBERS), model.HIDDEN
    rows = tuple(n for n, _ in model.TABLES)
    width = d + model.Embedded.width
    return {
        "perceptron without ids": lambda: _with_head(First(d), d, hidden),
        "embeddings and perceptron (kept)": partial(model.build, classes=2),
        "cross network": lambda: Cross(Beside(model.Embedded(), d), width, hidden),
        "DeepFM": lambda: Factors(d, rows),
    }


COMPARED = {"credit": of_credit, "streamrec": of_streamrec}
