"""Laws of running a graph: what it computes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock.runtimes.onnxruntime import PROVIDERS, OnnxModel
from tests.packages import graph

INPUTS = np.random.default_rng(5).normal(0, 1, (17, 1, 8, 8)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of a linear graph with known weights."""
    onnx.save(graph(7), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def weights() -> np.ndarray:
    """Return the graph's weights [64, 10]."""
    return numpy_helper.to_array(graph(7).graph.initializer[0])


@pytest.mark.parametrize("reference", [False, True])
def test_a_graph_computes_its_own_formula(path: Path, reference: bool):
    """Optimized or not, a linear graph gives inputs times weights."""
    found = OnnxModel(path, reference=reference).run(INPUTS)

    np.testing.assert_allclose(found, INPUTS.reshape(-1, 64) @ weights(), atol=1e-4)


def test_the_same_input_gives_the_same_bits(path: Path):
    """Two sessions, and two calls of one, agree in every bit."""
    one, other = OnnxModel(path), OnnxModel(path, threads=2)

    assert one.run(INPUTS).tobytes() == one.run(INPUTS).tobytes()
    assert one.run(INPUTS).tobytes() == OnnxModel(path).run(INPUTS).tobytes()
    assert other.run(INPUTS).tobytes() == other.run(INPUTS).tobytes()


def test_a_model_knows_its_names_and_classes(path: Path):
    """Names and the number of classes are the graph's own."""
    model = OnnxModel(path)

    assert (model.input_name, model.output_name, model.classes) == ("image", "logits", 10)


@pytest.mark.parametrize("wrong", [INPUTS.astype(np.float64), INPUTS[:, 0], INPUTS.astype(int)])
def test_an_input_of_another_kind_is_refused(path: Path, wrong: np.ndarray):
    """Another type or number of axes is refused by name before the runtime sees it."""
    with pytest.raises(ValueError, match=r"'image' got .*float32 with 4 was wanted"):
        OnnxModel(path).run(wrong)


def test_a_provider_that_leaves_the_layers_to_the_cpu_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Registered and first in the list, it would give a CPU's answers under its own name."""
    registered = "AzureExecutionProvider"
    if registered not in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has no {registered}, which starts and computes no layer")
    monkeypatch.setitem(PROVIDERS, "remote", registered)

    with pytest.raises(ValueError, match="assigned to the default CPU EP"):
        OnnxModel(path, provider="remote")


def test_a_run_that_fails_is_not_tried_again_on_the_cpu(path: Path):
    """ONNX Runtime's Python layer would go on there with a printed line and no error."""
    session: Any = OnnxModel(path)._session

    assert not session._enable_fallback


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path):
    """What cannot be loaded gives a ValueError that names the file."""
    (tmp_path / "m.onnx").write_bytes(b"no graph")

    with pytest.raises(ValueError, match=r"m\.onnx cannot be loaded"):
        OnnxModel(tmp_path / "m.onnx")


def test_a_graph_of_two_outputs_is_refused(tmp_path: Path):
    """One float32 input and one float32 output, or nothing."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    z = helper.make_tensor_value_info("z", TensorProto.INT64, ["n"])
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Cast", ["x"], ["z"], to=TensorProto.INT64),
    ]
    made = helper.make_model(
        helper.make_graph(nodes, "two", [x], [y, z]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(made, tmp_path / "m.onnx")

    with pytest.raises(ValueError, match="one float32 output is wanted"):
        OnnxModel(tmp_path / "m.onnx")
