"""Laws of what a package carries for servers: every runtime's model, with answers of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from penstock import workload as workloads
from penstock.bundle import Bundle, Recipe, Summary, read, write
from penstock.register import package
from penstock.register.contract import GOLDEN, GOLDEN_LEAST, GOLDEN_ROUNDING, tolerance
from penstock.workload import load
from serving.package import Served
from tests import bundles
from tests.bundles import NOW
from workloads.digits.model import build

DIGITS = load("digits")
LAYOUT: dict[str, Any] = {
    "project": "p", "service": "digits_v1", "definitions": "sha256:1", "views": [], "freshness": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """What the stages leave of one small network: weights, all graphs, a plan of one backend."""
    folder = tmp_path_factory.mktemp("stages")
    torch.manual_seed(7)
    network = build(classes=10).eval()

    def model(made: Path) -> None:
        save_file(network.state_dict(), made / "model.safetensors")

    def exported(made: Path) -> None:
        bundles.export(network, bundles.images(2), made / "model.onnx")

    def engine(made: Path) -> None:
        (made / "tensorrt-rtx.plan").write_bytes(b"plan")
        (made / "tensorrt-rtx.plan.json").write_text("{}")
        (made / "tensorrt.plan.json").write_text("{}")

    graph = bundles.bundle(folder / "onnx", "onnx", exported)
    source, images = graph.file("model.onnx"), bundles.images(32)
    return {
        "snapshot": read(bundles.snapshot(folder / "snapshot", online=LAYOUT)),
        "model": bundles.bundle(folder / "model", "model", model),
        "onnx": graph,
        "serving": bundles.bundle(
            folder / "int8", "int8", lambda made: bundles.quantize(source, made, images)
        ),
        "engine": bundles.bundle(folder / "engine", "engine", engine),
    }


def packaged(path: Path, inputs: Mapping[str, Bundle], *, serve: str = "int8") -> Bundle:
    """Write the part of a package that a server reads."""

    def make(folder: Path) -> Summary:
        package.serving(folder, replace(DIGITS, serve=serve), inputs)
        return Summary("pass", "made for a test")

    return write(path, Recipe(kind="package", workload="digits"), make=make, now=NOW)


@pytest.fixture(scope="module")
def made(stages: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a package of an int8 model with everything beside it."""
    return packaged(tmp_path_factory.mktemp("packages") / "package", stages)


def test_a_package_carries_what_every_runtime_loads(made: Bundle, stages: dict[str, Bundle]):
    """Weights, the graph that engines are made from, a plan with its manifest, and the layout."""
    for name, source in (
        ("model.onnx", stages["serving"].path / "model.int8-cpu.onnx"),
        ("model.int8.onnx", stages["serving"].path / "model.int8.onnx"),
        ("model.safetensors", stages["model"].path / "model.safetensors"),
        ("tensorrt-rtx.plan", stages["engine"].path / "tensorrt-rtx.plan"),
        ("online.json", stages["snapshot"].path / "online.json"),
    ):
        assert made.file(name).read_bytes() == source.read_bytes(), name
    assert made.file("model.safetensors").stat().st_mode & 0o044 == 0o044
    assert "tensorrt.plan" not in made.manifest["files"]
    assert set(made.json("golden.json")["runtimes"]) == {"cuda", "tensorrt", "torch"}


def test_every_runtime_that_runs_here_gives_its_golden_answers(made: Bundle):
    """The fp32 network is not the int8 graph, yet each is right by what is recorded of it."""
    by_graph, by_network = Served(made.path), Served(made.path, runtime="torch")

    assert by_graph.check_golden() == by_network.check_golden() == GOLDEN
    assert by_graph.layout is not None
    assert by_graph.layout.service == "digits_v1"
    answers = made.json("golden.json")
    graph_nk = np.array([request["logits"] for request in answers["requests"]])
    assert np.abs(graph_nk - np.array(answers["runtimes"]["torch"]["logits"])).max() > 1e-3


def share(answers: Mapping[str, Any]) -> float:
    """Return a tolerance as a share of the largest logit that it is for."""
    return float(answers["tolerance"] / np.abs(np.array(answers["logits"])).max())


def test_engines_may_round_otherwise_and_nothing_else_may(made: Bundle):
    """Only int8 engines have more room than the last bits, and less than a twentieth or so."""
    held = made.json("golden.json")
    runtimes = held["runtimes"]
    logits = [request["logits"] for request in held["requests"]]

    assert share({**held, "logits": logits}) == pytest.approx(GOLDEN_ROUNDING)
    assert share(runtimes["torch"]) == pytest.approx(GOLDEN_ROUNDING)
    assert runtimes["tensorrt"] == runtimes["cuda"]
    assert 0.05 < share(runtimes["cuda"]) < 0.06


@given(st.floats(1e-30, 1e6), st.sampled_from([0.0, 1e-6, 0.05]))
def test_what_is_the_same_answer_does_not_depend_on_the_scale(scale: float, rounding: float):
    """Logits a thousand times as large may be a thousand times as far apart, down to a floor."""
    logits_nk = np.array([[-1.0, 0.5], [0.25, 0.0]]) * scale
    expected = max(GOLDEN_LEAST, max(GOLDEN_ROUNDING, rounding) * scale)

    assert tolerance(logits_nk, rounding) == pytest.approx(expected)


def test_a_workload_that_serves_fp32_has_no_plan(stages: dict[str, Bundle], tmp_path: Path):
    """Plans compute in int8; torch and CUDA compute what its graph does, and as exactly."""
    made = packaged(tmp_path / "p", {**stages, "serving": stages["onnx"]}, serve="onnx")

    assert not [name for name in made.manifest["files"] if "plan" in name or "int8" in name]
    answers = made.json("golden.json")["runtimes"]
    assert list(answers) == ["cuda", "torch"]
    assert [share(held) for held in answers.values()] == pytest.approx([GOLDEN_ROUNDING] * 2)
    assert Served(made.path, runtime="torch").check_golden() == GOLDEN


def test_without_a_graph_to_compare_with_no_other_runtime_is_offered(
    stages: dict[str, Bundle], tmp_path: Path
):
    """Weights whose right answers nobody has recorded are not for serving."""
    cpu = stages["serving"].file("model.int8-cpu.onnx").read_bytes()
    alone = bundles.bundle(
        tmp_path / "int8", "int8", lambda f: (f / "model.int8-cpu.onnx").write_bytes(cpu)
    )
    made = packaged(tmp_path / "p", {**stages, "serving": alone})

    assert made.json("golden.json")["runtimes"] == {}
    assert "model.safetensors" not in made.manifest["files"]


def test_rules_are_carried_where_the_workload_has_them(
    stages: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Those of its folder, beside the transform."""
    transform = tmp_path / "workload" / workloads.TRANSFORM
    transform.parent.mkdir()
    transform.write_bytes(workloads.transform_file("digits").read_bytes())
    monkeypatch.setattr(workloads, "transform_file", lambda _: transform)
    assert workloads.RULES not in packaged(tmp_path / "without", stages).manifest["files"]

    (transform.parent / workloads.RULES).write_text("def rules(columns):\n    return columns\n")

    assert Served(packaged(tmp_path / "with", stages).path).rules is not None
