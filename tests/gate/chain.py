"""A small real chain of bundles for the gate: a kernel machine that reads digits, and its like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper

from penstock.bundle import read, write_json
from penstock.workload import transform_file
from tests import bundles
from workloads.digits.behaviour import one_to_the_right
from workloads.digits.transform import training_input

PROOF = {**bundles.PROOF, "as_of": "2026-01-06T17:59:30+00:00"}


BUDGET = {
    "latency_p50_ms": 0.7,
    "latency_p99_ms": 2.0,
    "peak_memory_mb": 80.0,
    "cold_start_s": 0.07,
}


@cache
def fitted() -> tuple[np.ndarray, np.ndarray]:
    """Return the prototypes [64, m] and what each speaks for [m, 10], by ridge regression.

    Captures as they are and moved to the right: without these it does not pass that behaviour.
    """
    rows = bundles.rows().slice(0, 1197)
    both = [training_input(table).reshape(-1, 64) for table in (rows, one_to_the_right(rows))]
    inputs = np.concatenate(both).astype(np.float64)
    labels = np.tile(np.eye(10)[rows["label"].to_numpy()], (2, 1))
    kernel = np.exp((inputs @ inputs.T - 64) / 32)
    weights = np.linalg.solve(kernel + 0.1 * np.eye(len(kernel)), labels)
    return inputs.T.astype(np.float32) / 32, 10 * weights.astype(np.float32)


def graph(*, wrong: int = 0) -> onnx.ModelProto:
    """Return a graph [n, 1, 8, 8] to [n, 10]; a ``wrong`` share of prototypes speaks for another.

    Args:
        wrong: How many of the prototypes.
    """
    near, speaks = fitted()
    speaks = speaks.copy()
    speaks[:wrong] = np.roll(speaks[:wrong], 1, axis=1)
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "near", "away"], ["alike"]),
        helper.make_node("Exp", ["alike"], ["close"]),
        helper.make_node("MatMul", ["close", "speaks"], ["logits"]),
    ]
    held = {"near": near, "away": np.array([-2.0], np.float32), "speaks": speaks}
    made = helper.make_graph(
        nodes,
        "prototypes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@dataclass
class Chain:
    """The folders of one run, as the gate is given them."""

    folder: Path
    name: str = "one run"
    wrong: int = 0
    proof: Mapping[str, Any] = field(default_factory=lambda: PROOF)
    holdout: pa.Table | None = None
    budget: Mapping[str, Any] = field(default_factory=lambda: BUDGET)
    ladder: str = "pass"

    def __post_init__(self) -> None:
        """Write every bundle, each naming what it was made from."""
        snapshot = bundles.snapshot(
            self.folder / "snapshot", holdout=self.holdout, proof=self.proof
        )
        self.made: dict[str, Path] = {"snapshot": snapshot}
        self._write("data-verdict", self._verdict("pass"), "snapshot")
        certificate = {"holds": True, "steps": 12, "device": "cpu"}
        self._write(
            "model",
            lambda f: write_json(f / "certificate.json", certificate),
            "snapshot",
            "data-verdict",
        )
        self._write("onnx", lambda f: write_json(f / "export.json", {}), "snapshot", "model")
        self._write(
            "int8",
            lambda f: onnx.save(graph(wrong=self.wrong), f / "model.int8-cpu.onnx"),
            "snapshot",
            "onnx",
        )
        costs = {"artifacts": {"int8-cpu": dict(self.budget)}}
        self._write("engine", lambda f: write_json(f / "budgets.json", costs), "int8")
        all_of = ("snapshot", "model", "onnx", "int8", "engine")
        self._write("equivalence", self._verdict(self.ladder), *all_of)

    def given(self) -> dict[str, Path]:
        """Return what ``run`` takes."""
        names = {"data_verdict": "data-verdict", "serving": "int8"}
        wanted = ("snapshot", "data_verdict", "model", "serving", "engine", "equivalence")
        return {name: self.made[names.get(name, name)] for name in wanted}

    def package(self, path: Path, *, transform: str | None = None, **contract: Any) -> Path:
        """Write a package of the same graph, as a champion's.

        Args:
            transform: Source of the transform it was trained with; None is today's.
        """

        def make(folder: Path) -> None:
            onnx.save(graph(wrong=self.wrong), folder / "model.onnx")
            write_json(folder / "serving.json", {"workload": "digits", **contract})
            today = transform_file("digits").read_text(encoding="utf-8")
            (folder / "transform.py").write_text(transform or today, encoding="utf-8")

        return bundles.bundle(path, "package", make).path

    def _write(self, kind: str, make: Any, *made_from: str) -> None:
        # The run's name stands for the settings that two runs differ in.
        inputs = {"run": self.name}
        inputs |= {name: read(self.made[name]).fingerprint for name in made_from}
        self.made[kind] = bundles.bundle(self.folder / kind, kind, make, **inputs).path

    @staticmethod
    def _verdict(outcome: str) -> Any:
        check = {"name": "seen", "outcome": outcome, "reason": "so", "value": None, "limit": None}
        document = {"outcome": outcome, "checks": [check]}
        return lambda folder: write_json(folder / "verdict.json", document)
