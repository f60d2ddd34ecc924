"""A package of a workload for tables: a linear graph, and rows drawn from its contract."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from penstock import workload as workloads
from penstock.bundle import Bundle, Recipe, Summary, read, write, write_json
from penstock.register.contract import contract_of, golden
from penstock.request import EARLIEST_US, STAMP, Contract, Feature, request_input
from tests.bundles import NOW

MISSING = 0.3
"""Share of missing values in columns that may have them."""

DAYS_US = 365 * 24 * 3600 * 1_000_000


def rows(contract: Contract, n: int, *, seed: int = 1) -> pa.Table:
    """Return n rows as a snapshot has them: in range, some missing where they may be."""
    rng = np.random.default_rng(seed)
    return pa.table({f.name: _values(f, n, rng) for f in contract.features})


def _values(feature: Feature, n: int, rng: np.random.Generator) -> pa.Array:
    low = 0.0 if feature.low is None else feature.low
    high = low + 500 if feature.high is None else feature.high
    if feature.dtype == STAMP:
        return pa.array(EARLIEST_US + rng.integers(0, DAYS_US, n)).view(feature.arrow)
    if feature.length is not None:
        return pa.array(list(rng.uniform(low, high, (n, feature.length))), feature.arrow)
    drawn = rng.integers(int(low), int(high), n, endpoint=True) if feature.whole else None
    values = rng.uniform(low, high, n) if drawn is None else drawn
    mask = rng.random(n) < MISSING if feature.nullable else np.zeros(n, bool)
    return pa.array(values, feature.arrow, mask=mask)


def graph(inputs_nd: np.ndarray, *, seed: int = 7) -> onnx.ModelProto:
    """Return one linear layer of seeded weights, [n, d] to [n, 2].

    Of such inputs half have a probability above 0.3, where neither 0.2 nor 0.5 is a safe guess.
    """
    each = 1 / (np.abs(inputs_nd).max(axis=0) + 1)
    weights = np.random.default_rng(seed).normal(0, 1, (inputs_nd.shape[1], 2)) * each[:, None]
    odds = inputs_nd @ (weights[:, 1] - weights[:, 0])
    bias = np.array([0, np.log(0.3 / 0.7) - np.median(odds)])
    held = [(weights, "w"), (bias, "b")]
    table = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", inputs_nd.shape[1]])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    node = helper.make_node("Gemm", ["rows", "w", "b"], ["logits"])
    constants = [numpy_helper.from_array(v.astype(np.float32), name) for v, name in held]
    made = helper.make_graph([node], "linear", [table], [logits], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def make_package(path: Path, workload: str) -> Bundle:
    """Write a package of a linear graph, by the contract and golden requests of the library."""
    declared = workloads.load(workload)
    contract = contract_of(declared)
    held = rows(contract, 40)
    label = pa.array(np.arange(40) % 2)

    def snapshot(folder: Path) -> Summary:
        pq.write_table(held.append_column(declared.label, label), folder / "holdout.parquet")
        return Summary("pass", "made for a test")

    recipe = Recipe(kind="snapshot", workload=workload)
    made = write(path.with_name("snapshot"), recipe, make=snapshot, now=NOW)

    def package(folder: Path) -> Summary:
        transform = request_input(workloads.part(workload, "transform"))
        onnx.save(graph(transform(held)), folder / "model.onnx")
        source = workloads.transform_file(workload)
        for name in (workloads.TRANSFORM, workloads.RULES):
            if source.with_name(name).exists():
                shutil.copy(source.with_name(name), folder / name)
        write_json(folder / "serving.json", contract.to_dict())
        write_json(folder / "golden.json", golden(folder / "model.onnx", declared, made))
        return Summary("pass", "made for a test")

    return write(path, Recipe(kind="package", workload=workload), make=package, now=NOW)


def altered(package: Bundle, path: Path, file: str, **changed: object) -> Bundle:
    """Write a copy of a package with fields of one of its documents replaced."""

    def make(folder: Path) -> Summary:
        for name in package.manifest["files"]:
            shutil.copy(package.file(name), folder / name)
        write_json(folder / file, {**package.json(file), **changed})
        return Summary("pass", "made for a test")

    write(path, Recipe(kind="package", workload=package.manifest["workload"]), make=make, now=NOW)
    return read(path)


_KINDS = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}


def binary(document: Mapping[str, Any]) -> tuple[bytes, int]:
    """Return a v2 document with its numbers as bytes behind it, and how long the document is."""
    raw = [_bytes(t["datatype"], t["data"]) for t in document["inputs"]]
    inputs = [
        {**{k: v for k, v in t.items() if k != "data"}, "parameters": {"binary_data_size": len(r)}}
        for t, r in zip(document["inputs"], raw, strict=True)
    ]
    said = json.dumps({**document, "inputs": inputs}).encode()
    return said + b"".join(raw), len(said)


def _bytes(datatype: str, data: Any) -> bytes:
    if datatype in _KINDS:
        known = [np.nan if v is None else v for v in data] if datatype == "FP64" else data
        return np.array(known, _KINDS[datatype]).tobytes()
    texts = [str(v).encode() for v in data]
    return b"".join(len(t).to_bytes(4, "little") + t for t in texts)
