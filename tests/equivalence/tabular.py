"""A small tabular task with a network for it: two categories and three numbers, made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from penstock import workload as workloads
from penstock.equivalence.holdout import Holdout
from penstock.workload import DataRules, Equivalence, Limits, Network, Rung, Slice

CITIES, JOBS = 6, 4
NUMBERS = ("age", "income", "debt")
RARE_CITY = 5

DECLARED: Network = replace(
    workloads.load_network("digits"),
    label="late",
    classes=2,
    metric="auc",
    threshold=0.3,
    data=DataRules(columns=(), unique=("client",), at_least_rows=1),
    slices=(
        Slice(name="far city", column="city", low=RARE_CITY),
        Slice(name="young", column="age", high=-1.0),
    ),
    equivalence=Equivalence(
        int8=Rung(
            whole=Limits(min_agreement=0.96, max_metric_drop=0.01, min_snr_db=20.0),
            slices=Limits(min_agreement=0.9, max_metric_drop=0.05, min_snr_db=15.0),
        )
    ),
)


def rows(n: int, *, seed: int) -> pa.Table:
    """Return n clients."""
    rng = np.random.default_rng(seed)
    shares = [0.24, 0.24, 0.24, 0.16, 0.08, 0.04]
    city, job = rng.choice(CITIES, n, p=shares), rng.integers(0, JOBS, n)
    numbers = rng.normal(size=(3, n))
    odds = numbers[1] - numbers[2] * 2 + np.linspace(-1, 1, CITIES)[city] + 0.3 * job - 1
    late = rng.random(n) < 1 / (1 + np.exp(-odds))
    held = dict(zip(NUMBERS, numbers, strict=True))
    return pa.table(
        {"client": np.arange(n), "city": city, "job": job, **held, "late": late.astype(np.int64)}
    )


def training_input(held: pa.Table) -> np.ndarray:
    """Return the packed matrix: city, job, and the numbers, shape [n, 5]."""
    columns = [held[name].to_numpy() for name in ("city", "job", *NUMBERS)]
    return np.stack(columns, axis=1).astype(np.float32)


class Client(nn.Module):
    """Embeddings and three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.city, self.job = nn.Embedding(CITIES, 4), nn.Embedding(JOBS, 3)
        self.deep = nn.Sequential(
            nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 2)
        )

    def forward(self, packed_nd: torch.Tensor) -> torch.Tensor:
        """Return logits [n, 2]."""
        city, job = packed_nd[:, 0].long(), packed_nd[:, 1].long()
        return self.deep(torch.cat([self.city(city), self.job(job), packed_nd[:, 2:]], dim=1))


def network() -> Client:
    """Return a trained network."""
    torch.manual_seed(3)
    made = Client().train()
    held = rows(2000, seed=1)
    inputs, labels = torch.tensor(training_input(held)), torch.tensor(held["late"].to_numpy())
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(made(inputs), labels).backward()
        optimizer.step()
    return made.eval()


def holdout(path: Path, n: int = 1500) -> Holdout:
    """Write clients that the network has not seen, in parts that are no whole batches."""
    pq.write_table(rows(n, seed=2), path, row_group_size=700)
    return Holdout(path=path, declared=DECLARED, transform=training_input)
