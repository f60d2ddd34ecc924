"""Packages of the recommender whose one number is the truth, and impressions that carry it.

The network passes an item's rate through, and the rate of each impression is the very chance that
it is clicked: no training, and yet a ranking that simulated visitors feel when it is turned round.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from penstock import workload as workloads
from penstock.bundle import Bundle, Recipe, Summary, write, write_json
from penstock.register.contract import contract_of, golden
from penstock.workload import Endpoint
from tests.bundles import NOW
from tests.serving import tables
from workloads.streamrec.simulator import START, Settings, World
from workloads.streamrec.transform import FEATURES, USUAL_RATE

NAME = "streamrec"
MOBILE = 0.3
"""Share of impressions on a phone: few enough that what only they meet is usual for nobody."""

ENDPOINT = Endpoint(timeout_ms=4000.0, max_in_flight=512, hashed=("user_id",))
"""Patient, as the machine of a test may be busy; and nothing stands in for an answer."""


def graph(sharpness: float) -> onnx.ModelProto:
    """Return a graph whose answer is the item's rate itself, or one that is surer by a little."""
    weights = np.zeros((len(FEATURES), 2), np.float32)
    weights[FEATURES.index("item_rate_24h"), 1] = sharpness
    bias = np.array([0, np.log(USUAL_RATE / (1 - USUAL_RATE))], np.float32)
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", len(FEATURES)])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    node = helper.make_node("Gemm", ["rows", "w", "b"], ["logits"])
    held = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
    made = helper.make_graph([node], "rate", [rows], [logits], held)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def impressions(n: int, *, seed: int = 4) -> pa.Table:
    """Return impressions of the simulation's first days; each one's rate is its true chance."""
    world, rng = World(Settings()), np.random.default_rng(seed)
    hour_n = rng.integers(0, 24, n)
    ids = {
        "user_id": rng.integers(0, world.users, n),
        "item_id": rng.integers(0, world.items, n),
        "mobile": (rng.random(n) < MOBILE).astype(np.int64),
    }
    chance_n = np.empty(n)
    for hour in np.unique(hour_n):
        of = hour_n == hour
        chance_n[of] = world.probability(int(hour), *(column[of] for column in ids.values()))
    stamp_n = int(START.timestamp()) * 1_000_000 + hour_n * 3_600_000_000
    told = ids | {"category": world.category[ids["item_id"]], "item_rate_24h": chance_n}
    told["event_timestamp"] = pa.array(stamp_n, pa.timestamp("us", tz="UTC"))
    made = tables.rows(contract_of(workloads.load(NAME)), n, seed=seed)
    for name, column in told.items():
        place = made.schema.get_field_index(name)
        made = made.set_column(place, name, pa.array(column).cast(made.schema.types[place]))
    return made.append_column("clicked", pa.array((rng.random(n) < chance_n).astype(np.int64)))


def package(path: Path, snapshot: Bundle, *, sharpness: float, champion: Bundle | None) -> Bundle:
    """Write a package that says with whom it was compared."""
    declared = replace(workloads.load(NAME), endpoint=ENDPOINT)
    compared: dict[str, Mapping[str, Any]] = {"artifacts": {}, "digests": {}}
    if champion is not None:
        named = {"artifacts": champion.fingerprint, "digests": champion.digest}
        compared = {name: {"champion": value} for name, value in named.items()}

    def fill(folder: Path) -> Summary:
        onnx.save(graph(sharpness), folder / "model.onnx")
        source = workloads.transform_file(NAME)
        for name in (workloads.TRANSFORM, workloads.RULES):
            shutil.copy(source.with_name(name), folder / name)
        write_json(folder / "serving.json", contract_of(declared).to_dict())
        write_json(folder / "golden.json", golden(folder / "model.onnx", declared, snapshot))
        write_json(folder / "lineage.json", compared)
        return Summary("pass", "made for a test")

    recipe = Recipe(kind="package", workload=NAME, settings={"sharpness": sharpness})
    return write(path, recipe, make=fill, now=NOW)


def snapshot(path: Path) -> Bundle:
    """Write a snapshot, of which golden requests are taken and visitors replay impressions."""

    def fill(folder: Path) -> Summary:
        pq.write_table(impressions(800), folder / "holdout.parquet")
        return Summary("pass", "made for a test")

    return write(path, Recipe(kind="snapshot", workload=NAME), make=fill, now=NOW)
