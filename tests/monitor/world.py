"""A small world of card clients: what a champion was trained on, and what it is asked about now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from penstock.bundle import Bundle, Recipe, Summary, write, write_json
from penstock.endpoint import Endpoint
from penstock.gate.judge import judge
from penstock.register.profile import column
from penstock.request import Contract, Feature
from penstock.stats.scored import Scored
from penstock.stats.slices import masks
from penstock.workload import Workload, load
from tests.predictions import logs

T0 = datetime.fromtimestamp(logs.T0, UTC)
HOUR = timedelta(hours=1)
FEATURES = ("credit_limit", "use", "months_late", "late_count", "repaid_share")
CREDIT = replace(
    load("credit"),
    label_delay=timedelta(0),
    slices=tuple(part for part in load("credit").slices if part.column in FEATURES),
)
"""The workload with labels that come at once, and slices of its few features."""

CONTRACT = Contract(
    workload="credit",
    classes=2,
    threshold=CREDIT.threshold,
    rows=64,
    features=tuple(Feature(name=name, dtype="double", nullable=True) for name in FEATURES),
)


def clients(n: int, *, seed: int, richer: float = 1.0, upside_down: float = 0.0) -> pa.Table:
    """Return clients with their features, the model's probability and whether they defaulted.

    Args:
        richer: Multiplies their limits: p(x) moves.
        upside_down: Share of them for whom the opposite is right: p(y given x) moves.
    """
    rng = np.random.default_rng(seed)
    made = {
        "credit_limit": np.exp(rng.normal(11, 0.8, n)) * richer,
        "use": rng.uniform(0, 1.2, n),
        "months_late": rng.choice([0.0, 0.0, 0.0, 1.0, 2.0, 3.0], n),
        "late_count": rng.integers(0, 7, n).astype(float),
        "repaid_share": rng.uniform(0, 1, n),
    }
    odds = -2.5 + 1.2 * made["months_late"] + made["use"]
    chance = 1 / (1 + np.exp(-odds))
    right = np.where(rng.random(n) < upside_down, 1 - chance, chance)
    return pa.table({**made, "chance": chance, CREDIT.label: (rng.random(n) < right).astype(int)})


def numbers(rows: pa.Table, declared: Workload = CREDIT) -> dict[str, Any]:
    """Return what the gate says of a holdout: what ``scores.json`` holds."""
    chance = rows["chance"].to_numpy()
    logits = np.column_stack([np.zeros(len(rows)), np.log(chance / (1 - chance))])
    return judge(
        declared,
        Scored(
            labels_n=rows[CREDIT.label].to_numpy(), logits_nk=logits, threshold=CREDIT.threshold
        ),
        None,
        slices=masks(rows, declared),
        groups={},
        validation=None,
        budget={},
        data_age_days=None,
        rng=np.random.default_rng(1),
    ).numbers


def package(path: Path, *, train: pa.Table, scores: Mapping[str, Any]) -> Bundle:
    """Write what a champion's package says of its training, as far as the monitor reads it."""

    def fill(folder: Path) -> Summary:
        columns = {name: column(train[name]) for name in FEATURES}
        write_json(folder / "profile.json", {"rows": len(train), "columns": columns})
        write_json(folder / "scores.json", dict(scores))
        write_json(folder / "serving.json", CONTRACT.to_dict())
        write_json(folder / "lineage.json", {"rehearsal": None})
        return Summary("pass", "made for a test")

    recipe = Recipe(kind="package", workload="credit", settings={"of": path.name})
    return write(path, recipe, make=fill, now=T0)


def asked(rows: pa.Table, **over: Any) -> list[dict[str, Any]]:
    """Return the log's records of a request for each client, a second apart."""
    threshold = CREDIT.threshold or 0.5
    found: list[dict[str, Any]] = []
    for number, row in enumerate(rows.to_pylist()):
        decided = int(row["chance"] >= threshold)
        found.append(
            logs.record(
                number,
                user=f"{number:032x}",
                features={name: [row[name]] for name in FEATURES},
                label=[decided],
                probability=[row["chance"] if decided else 1 - row["chance"]],
                **over,
            )
        )
    return found


def log(
    folder: Path, records: Iterable[Mapping[str, Any]], *, contract: Contract = CONTRACT
) -> str:
    """Write a log and return its address."""
    logs.journal(folder, records, of=contract)
    return str(folder)


def outcomes(path: Path, rows: pa.Table) -> str:
    """Write what became of the clients' requests, and return the file's name."""
    lines = [
        orjson.dumps({"request_id": f"r{number}", "label": label, "at": logs.T0 + number + 60})
        for number, label in enumerate(rows[CREDIT.label].to_pylist())
    ]
    path.write_bytes(b"\n".join([*lines, b""]))
    return str(path)


def hashing(*names: str) -> Contract:
    """Return the contract of a service that keeps hashes of some features alone."""
    return replace(CONTRACT, endpoint=Endpoint(hashed=names))
