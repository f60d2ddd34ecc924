"""Compare network architectures for the tabular workloads, beside a simple baseline and a ceiling.

    python -m benchmarks.networks SNAPSHOT... [--seeds 5] [--json networks.json]

Each architecture is trained with each of a few settings; the one with the best mean AUC on
validation rows is shown. The holdout is measured, and decides nothing. Validation rows are the
newest fifth of the training rows, or, where all rows have one time, a fifth by the seed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn

from benchmarks.architectures import COMPARED
from penstock.bundle import read
from penstock.stats.metrics import auc
from penstock.workload import Training, load_network, part

Floats = NDArray[np.float64]
Fit = Callable[["Data", NDArray[np.bool_], int, Training], Callable[["Data"], Floats]]
"""From data, the rows to learn from, a seed and settings to what gives probabilities, shape [n]."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """One part of a snapshot."""

    rows: pa.Table
    packed: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one architecture reached; each list has a value for each seed."""

    name: str
    settings: str
    validation_auc: list[float] = field(default_factory=list[float])
    log_loss: list[float] = field(default_factory=list[float])
    holdout_auc: list[float] = field(default_factory=list[float])
    seconds: list[float] = field(default_factory=list[float])


def by_network(build: Callable[[], nn.Module]) -> Fit:
    """Return how a network is fitted: AdamW, one cycle of the learning rate, cross-entropy."""

    def fit(
        data: Data, learn: NDArray[np.bool_], seed: int, settings: Training
    ) -> Callable[[Data], Floats]:
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        network = build()
        inputs, labels = torch.from_numpy(data.packed[learn]), torch.from_numpy(data.labels[learn])
        batches, rate = len(labels) // settings.batch_size, settings.learning_rate
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=rate, weight_decay=settings.weight_decay
        )
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, total_steps=settings.epochs * batches
        )
        for _ in range(settings.epochs):
            picks = torch.randperm(len(labels), generator=order)
            for picked in picks.split(settings.batch_size)[:batches]:
                loss = nn.functional.cross_entropy(network(inputs[picked]), labels[picked])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cycle.step()
        return lambda of: _probabilities(network.eval(), of)

    return fit


def _probabilities(network: nn.Module, data: Data) -> Floats:
    with torch.no_grad():
        logits = network(torch.from_numpy(data.packed))
    return torch.softmax(logits.double(), 1)[:, 1].numpy()


def by_sklearn(make: Callable[[int], Any], columns: Callable[[Data], NDArray[Any]]) -> Fit:
    """Return how an estimator is fitted on columns of the data; it has settings of its own."""

    def fit(
        data: Data, learn: NDArray[np.bool_], seed: int, _: Training
    ) -> Callable[[Data], Floats]:
        made = make(seed).fit(columns(data)[learn], data.labels[learn])
        return lambda of: made.predict_proba(columns(of))[:, 1]

    return fit


def baselines(numbers: int) -> dict[str, Fit]:
    """Return logistic regression on the packed numbers, and boosted trees on all packed columns."""
    trees = partial(
        HistGradientBoostingClassifier,
        max_iter=120, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=50,
    )  # fmt: skip
    return {
        "logistic regression": by_sklearn(
            lambda _: LogisticRegression(max_iter=2_000), lambda d: d.packed[:, :numbers]
        ),
        "boosted trees": by_sklearn(
            lambda seed: trees(random_state=seed), lambda d: d.packed[:, : numbers + 2]
        ),
    }


def splits(data: Data, seeds: int) -> list[NDArray[np.bool_]]:
    """Return for each seed which rows are validation."""
    times = data.rows["event_timestamp"]
    if pc.count_distinct(times).as_py() > 1:
        newest = np.argsort(times.to_numpy(), kind="stable")[int(0.8 * len(times)) :]
        return [np.isin(np.arange(len(times)), newest)] * seeds
    return [np.random.default_rng(seed).random(len(times)) < 0.2 for seed in range(seeds)]


def grid(declared: Training) -> Iterator[Training]:
    """Yield the declared settings, and some with other lengths and weight decays."""
    for epochs in (declared.epochs, max(1, declared.epochs // 2), 2 * declared.epochs):
        for decay in dict.fromkeys((declared.weight_decay, 0.05)):
            yield replace(declared, epochs=epochs, weight_decay=decay)


def measure(
    name: str, fit: Fit, train: Data, held: Data, seeds: int, settings: list[Training]
) -> Line:
    """Return the line of the settings with the best mean AUC on validation rows."""
    lines = [_line(name, fit, train, held, seeds, s, alone=len(settings) == 1) for s in settings]
    return max(lines, key=lambda line: np.mean(line.validation_auc))


def _line(
    name: str, fit: Fit, train: Data, held: Data, seeds: int, settings: Training, *, alone: bool
) -> Line:
    said = "" if alone else f"{settings.epochs} epochs, decay {settings.weight_decay:g}"
    line = Line(name=name, settings=said)
    for seed, validation in enumerate(splits(train, seeds)):
        begun = time.perf_counter()
        predict = fit(train, ~validation, seed, settings)
        line.seconds.append(time.perf_counter() - begun)
        _add(line, predict(train)[validation], train.labels[validation], predict(held), held.labels)
    return line


def _add(line: Line, p: Floats, y: NDArray[np.int64], p_held: Floats, y_held: Any) -> None:
    line.validation_auc.append(auc(p, y) or 0.0)
    line.log_loss.append(float(-np.log(np.where(y == 1, p, 1 - p)).mean()))
    line.holdout_auc.append(auc(p_held, y_held) or 0.0)


def truth(settings: dict[str, Any], rows: pa.Table) -> Floats:
    """Return the probability with which the simulator drew each click: no model ranks better."""
    from workloads.streamrec.simulator import START, Settings, World

    world = World(Settings(**settings))
    since = rows["event_timestamp"].to_numpy() - np.datetime64(START.replace(tzinfo=None))
    hour_n = since // np.timedelta64(1, "h")
    user, item, mobile = (rows[n].to_numpy() for n in ("user_id", "item_id", "mobile"))
    found = np.empty(len(rows))
    for hour in np.unique(hour_n):
        at = hour_n == hour
        found[at] = world.probability(int(hour), user[at], item[at], mobile[at])
    return found


def compared(snapshot: Path, seeds: int) -> tuple[str, list[Line]]:
    """Return the workload of a snapshot with its rows, and a line for each architecture."""
    bundle = read(snapshot, kind="snapshot")
    name = bundle.manifest["workload"]
    declared, transform = load_network(name), part(name, "transform")
    train, held = (
        Data(rows=rows, packed=transform.training_input(rows),
             labels=rows[declared.label].to_numpy())
        for rows in (pq.read_table(bundle.file(f"{n}.parquet")) for n in ("train", "holdout"))
    )  # fmt: skip
    numbers = len(getattr(transform, "NUMBERS", transform.FEATURES))
    lines = [
        measure(n, fit, train, held, seeds, [declared.training])
        for n, fit in baselines(numbers).items()
    ]
    for n, build in COMPARED[name]().items():
        tried = list(grid(declared.training))
        lines.append(measure(n, by_network(build), train, held, seeds, tried))
    if name == "streamrec":
        lines.append(_ceiling(bundle.manifest["settings"]["data"], train, held))
    return f"{name}, {len(train.labels):,} training and {len(held.labels):,} holdout rows", lines


def _ceiling(settings: dict[str, Any], train: Data, held: Data) -> Line:
    line = Line(name="true probability", settings="")
    (validation,) = splits(train, 1)
    known, known_held = truth(settings, train.rows), truth(settings, held.rows)
    _add(line, known[validation], train.labels[validation], known_held, held.labels)
    return line


def table(title: str, lines: list[Line]) -> Table:
    """Return the lines as what a reader compares: means, and the spread over the seeds."""
    made = Table(title=title)
    for head in ("", "settings", "validation AUC", "log loss", "holdout AUC", "seconds"):
        made.add_column(head, justify="left" if head in ("", "settings") else "right")
    for line in lines:
        spread = [f"{np.mean(v):.4f} ± {np.std(v):.4f}" for v in (line.validation_auc,
                  line.holdout_auc)]  # fmt: skip
        seconds = f"{np.mean(line.seconds):.1f}" if line.seconds else ""
        loss = f"{np.mean(line.log_loss):.4f}"
        made.add_row(line.name, line.settings, spread[0], loss, spread[1], seconds)
    return made


def main() -> None:
    """Compare for each snapshot, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("snapshots", nargs="+", type=Path, help="snapshot bundles of the workloads")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every number of every seed here")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # a second thread only waits on layers this small
    torch.use_deterministic_algorithms(True)
    found = [compared(path, asked.seeds) for path in asked.snapshots]
    for title, lines in found:
        Console(width=120).print(table(title, lines))
    if asked.json:
        held = {title: [asdict(line) for line in lines] for title, lines in found}
        asked.json.write_text(json.dumps(held, indent=1) + "\n")


if __name__ == "__main__":
    main()
