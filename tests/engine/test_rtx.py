"""Laws of a real compiler: TensorRT-RTX parses and builds the graph, and tells what is int8."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx
import pytest

from penstock.engine import isolated
from penstock.engine.backend import Built, State
from penstock.runtimes import plan, tensorrt
from penstock.runtimes.plan import PlanMismatch
from penstock.runtimes.tensorrt import TensorRTModel
from tests.engine import graphs
from tests.engine.test_engine import NO_GPU, task

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="needs TensorRT-RTX; to install it: make rtx",
)
NAME = "tensorrt-rtx"


def built(folder: Path, model: onnx.ModelProto, **over: object) -> Built:
    return isolated.built(task(folder, model, NAME, **over))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rtx")


@pytest.fixture(scope="module")
def good(folder: Path) -> Built:
    """The small graph in TensorRT's form, built."""
    return built(folder, graphs.residual())


def test_every_layer_meant_to_be_int8_is(good: Built):
    """By name, from the compiler's own table."""
    assert good.int8_layers == {
        "meant": 3,
        "int8": list(graphs.LAYERS),
        "not_int8": [],
        "kept_float": [],
    }


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU: tests/gpu runs the plan")
def test_without_a_gpu_it_is_built_and_says_where_it_runs(good: Built, folder: Path):
    assert good.state is State.BUILT
    assert (good.reason or "").startswith("no NVIDIA GPU was found here")
    assert not (folder / f"{NAME}.npy").exists()


def test_the_manifest_says_what_made_the_plan(good: Built, folder: Path):
    """Its hashes are those of the files, its profile the declared batches."""
    manifest = plan.read(folder / f"{NAME}.plan.json")

    assert manifest.plan == plan.hash_bytes((folder / f"{NAME}.plan").read_bytes())
    assert manifest.onnx == plan.hash_bytes((folder / "model.int8.onnx").read_bytes())
    assert manifest.profiles == {"image": tuple((n, 1, 8, 8) for n in (1, 8, 64))}
    assert "8.9" in manifest.runs_on
    assert "7.5" not in manifest.runs_on
    assert manifest.cuda == "13"
    assert manifest.timing_cache is None
    assert (manifest.peak_memory_mb > 0, manifest.build_s > 0) == (True, True)
    assert good.manifest is not None
    assert plan.PlanManifest.from_dict(good.manifest) == manifest


def test_built_twice_it_covers_the_same(good: Built, tmp_path: Path):
    """The bytes may differ; which layers are int8, and where the plan runs, may not."""
    again = built(tmp_path, graphs.residual())

    assert again.int8_layers == good.int8_layers
    assert again.manifest is not None
    assert good.manifest is not None
    assert again.manifest["runs_on"] == good.manifest["runs_on"]


@pytest.mark.parametrize(
    "form", [{"channel_axis": 1}, {"act_only": True}], ids=["axis", "one input"]
)
def test_a_form_that_parses_and_runs_in_float_is_named(tmp_path: Path, form: dict[str, object]):
    """No plan is left to be loaded, and the reason names the layer."""
    found = built(tmp_path, graphs.residual(**form))

    assert found.state is State.NOT_BUILT
    assert "n_second (correlation of Float × Float)" in (found.reason or "")
    assert [o["name"] for o in (found.int8_layers or {})["not_int8"]] == ["n_second"]
    assert not list(tmp_path.glob(f"{NAME}.plan*"))


def test_a_graph_of_floats_is_built_and_nothing_was_meant_to_be_int8(tmp_path: Path):
    found = built(tmp_path, graphs.residual(quantized=False))

    assert found.int8_layers is not None
    assert found.int8_layers["kept_float"] == list(graphs.LAYERS)


def test_a_graph_that_does_not_parse_gives_the_parsers_reason(tmp_path: Path):
    found = built(tmp_path, graphs.unparsable())

    assert found.state is State.NOT_BUILT
    assert "the parser refused model.int8.onnx: n_b: " in (found.reason or "")
    assert "input has type Int32" in (found.reason or "")


def test_a_graph_that_would_compute_something_else_is_refused(tmp_path: Path):
    """uint8 is taken for int8 with a warning only: 0 to 255 would become -128 to 127."""
    found = built(tmp_path, graphs.unsigned())

    assert found.state is State.NOT_BUILT
    assert "would compute something else" in (found.reason or "")


def test_a_graph_of_one_fixed_batch_has_no_profile(tmp_path: Path):
    """The batches that the workload declares must be possible."""
    asked = task(tmp_path, graphs.residual(), NAME)
    model = onnx.load(asked.onnx)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, asked.onnx)

    found = isolated.built(asked)

    assert found.state is State.NOT_BUILT
    assert "an open first axis" in (found.reason or "")


@pytest.mark.parametrize(
    "asked", [{"version_compatible": True}, {"hardware_compatibility": "ampere_plus"}]
)
def test_a_compatibility_that_is_asked_for_is_there_or_refused(
    tmp_path: Path, asked: dict[str, object]
):
    """Never left out in silence: the manifest has it, or the builder's reason is given."""
    found = built(tmp_path, graphs.residual(), **asked)

    if found.state is State.NOT_BUILT:
        assert (found.reason or "").startswith("the builder refused: ")
    else:
        assert found.manifest is not None
        assert asked.items() <= found.manifest.items()


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU")
def test_a_plan_is_not_loaded_where_it_cannot_run(good: Built, folder: Path):
    """The manifest refuses before the library sees the plan."""
    manifest = plan.read(folder / f"{NAME}.plan.json")

    with pytest.raises(PlanMismatch, match="no NVIDIA GPU"):
        TensorRTModel(folder / f"{NAME}.plan", manifest, onnx=manifest.onnx)


@pytest.mark.parametrize("compatible", [False, True])
def test_only_a_plan_for_newer_versions_may_bring_code_for_the_host(compatible: bool):
    """Its own runtime, without which the library refuses it."""
    trt = tensorrt.library(NAME)
    logger = tensorrt.listening(trt, lambda _: None)

    made = tensorrt.runtime(trt, logger, version_compatible=compatible)

    assert made.engine_host_code_allowed is compatible


def test_the_log_of_the_build_is_kept(good: Built, folder: Path):
    assert "Layers:" in (folder / f"{NAME}.log").read_text(encoding="utf-8")


def test_the_network_of_a_workload_is_int8_throughout(tmp_path: Path):
    """The quantize stage's own graph of digits: every convolution and the product."""
    model, layers = graphs.digits(tmp_path / "m.onnx")

    found = built(tmp_path / "t", model)

    assert found.int8_layers is not None
    assert found.int8_layers["int8"] == layers
    assert found.int8_layers["not_int8"] == []
    assert len(layers) == 13
