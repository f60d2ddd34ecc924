"""Models that tests of the ladder climb with, each made once."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from penstock.bundle import read
from penstock.equivalence.climb import Ladder, climb
from penstock.runtimes.onnxruntime import OnnxModel
from penstock.workload import Network
from tests import bundles
from tests.equivalence import tabular

HELD_OUT = 400
"""Digits of the holdout: enough for every class, and few seconds."""

Planting = Callable[[Path], None]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small networks on many threads wait for each other more than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Climb:
    """Climbs with a network's graphs, some of them tampered with."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.network = tabular.network()
        self.holdout = tabular.holdout(root / "holdout.parquet")
        made = root / "made"
        made.mkdir()
        calibration = tabular.training_input(tabular.rows(400, seed=4))
        bundles.export(self.network, calibration, made / "model.onnx")
        bundles.quantize(made / "model.onnx", made, calibration)

    def __call__(
        self,
        *,
        plant: dict[str, Planting] | None = None,
        engine: Callable[[np.ndarray], np.ndarray] = lambda logits: logits,
        others: tuple[dict[str, Any], ...] = (),
        declared: Network = tabular.DECLARED,
    ) -> Ladder:
        """Climb after each named graph was tampered with; the graphs after it stay as they are.

        Args:
            engine: What the engine that ran gave, from what the int8 graph gives.
            others: What ``engine.json`` says of engines that did not.
        """
        folder = self.root / f"climb-{len(list(self.root.iterdir()))}"
        inputs_n = self.holdout.pick(np.arange(len(self.holdout)))
        self.graphs = graphs = {
            "onnx": folder / "model.onnx",
            "simplified": folder / "model.simplified.onnx",
            "int8": folder / "model.int8.onnx",
            "int8-cpu": folder / "model.int8-cpu.onnx",
        }

        def fill(made: Path) -> None:
            for path in (self.root / "made").iterdir():
                shutil.copy(path, made)
            for name, change in (plant or {}).items():
                change(made / graphs[name].name)
            bundles.golden(made, inputs_n, self.holdout.labels(), self.holdout.slices())

        int8 = bundles.bundle(folder, "int8", fill)
        ran = {"onnxruntime": engine(OnnxModel(graphs["int8"]).run(inputs_n))}
        place = folder.with_name(f"{folder.name}-engine")
        engines = read(bundles.engine(place, int8.path, ran, *others), kind="engine")
        holdout = replace(self.holdout, declared=declared)
        return climb(holdout, copy.deepcopy(self.network), graphs, int8, engines)


@pytest.fixture(scope="session")
def climbing(tmp_path_factory: pytest.TempPathFactory) -> Climb:
    """Climbs with a tabular network."""
    return Climb(tmp_path_factory.mktemp("tabular"))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the bundles of a digits network: snapshot, model, onnx, int8, engine."""
    root = tmp_path_factory.mktemp("digits")
    network = bundles.trained(epochs=3)
    bundles.snapshot(root / "snapshot", holdout=bundles.rows().slice(1197, HELD_OUT))
    held = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    bundles.bundle(root / "model", "model", lambda f: save_file(held, f / "model.safetensors"))
    bundles.bundle(
        root / "onnx",
        "onnx",
        lambda f: bundles.export(network, bundles.images(2), f / "model.onnx"),
    )
    inputs_n = bundles.images(HELD_OUT, start=1197)
    labels_n = bundles.rows()["label"].to_numpy()[1197:][:HELD_OUT]

    def int8(folder: Path) -> None:
        bundles.quantize(root / "onnx" / "model.onnx", folder, bundles.images(320))
        slices = {f"class {c}": labels_n == c for c in range(10)}
        bundles.golden(folder, inputs_n, labels_n, slices)

    bundles.bundle(root / "int8", "int8", int8)
    logits = OnnxModel(root / "int8" / "model.int8.onnx").run(inputs_n)
    bundles.engine(
        root / "engine",
        root / "int8",
        {"onnxruntime": logits},
        bundles.backend("tensorrt-rtx", "built", "this machine has no GPU"),
        bundles.backend("tensorrt", "not built", "tensorrt is not installed"),
    )
    return root
