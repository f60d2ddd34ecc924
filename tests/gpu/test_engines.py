"""Laws of engines on a real GPU: they run what the graph says, and only where they may.

make test-gpu
"""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from penstock import machine, workload
from penstock.bundle import read
from penstock.engine import budgets, isolated, run, step
from penstock.engine.backend import ONNXRUNTIME, Built, State
from penstock.runtimes import plan
from penstock.runtimes.cuda import Device
from penstock.runtimes.plan import PlanManifest, PlanMismatch
from penstock.runtimes.tensorrt import MODULES, TensorRTModel
from penstock.stats.distance import snr_db
from penstock.workload import Engine
from tests.bundles import NOW
from tests.engine import graphs
from tests.engine.test_engine import task

pytestmark = pytest.mark.gpu

LEAST_DB = 25.0
"""Of an engine against what the Q/DQ say: rounding turns a last bit into a step of int8."""


class Engined(NamedTuple):
    """An engine that ran here."""

    built: Built
    path: Path
    manifest: PlanManifest
    golden: dict[str, np.ndarray]

    def model(self) -> TensorRTModel:
        return TensorRTModel(self.path, self.manifest, onnx=self.manifest.onnx)


@pytest.fixture(scope="module", autouse=True)
def device() -> str:
    """The GPU's name; nothing here means anything without one."""
    name = machine.gpu()["gpu"]
    assert name, "these tests were asked for and need an NVIDIA GPU with its driver"
    return name


def made(name: str, folder: Path) -> Engined:
    """Build on a small graph; skip where this GPU or its libraries are not for that backend."""
    if importlib.util.find_spec(MODULES[name]) is None:
        pytest.skip(f"{name} is not installed here")
    built = isolated.built(task(folder, graphs.residual(), name))
    if built.state is State.BUILT:
        assert "compute capability" in (built.reason or ""), built.reason
        pytest.skip(f"{name} is not for this GPU: {built.reason}")
    assert built.state is State.RUN, built.reason
    manifest = plan.read(folder / f"{name}.plan.json")
    with np.load(folder / "golden.npz") as archive:
        golden = dict(archive)
    return Engined(built, folder / f"{name}.plan", manifest, golden)


@pytest.fixture(scope="module", params=list(MODULES))
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engined:
    """An engine of each library that is here."""
    return made(request.param, tmp_path_factory.mktemp(request.param))


def test_it_computes_what_the_graph_says(engine: Engined):
    """Far above the noise of a wrong scale or a swapped channel, on every golden row."""
    found = np.load(engine.path.with_suffix(".npy"))

    assert found.shape == engine.golden["int8"].shape
    assert np.isfinite(found).all()
    assert snr_db(engine.golden["int8"], found) >= LEAST_DB


def test_every_layer_meant_to_be_int8_is(engine: Engined):
    assert engine.built.int8_layers is not None
    assert engine.built.int8_layers["int8"] == list(graphs.LAYERS)


def test_the_same_inputs_give_the_same_bits(engine: Engined):
    """Run ten times, and in another thread."""
    model, inputs = engine.model(), engine.golden["inputs"]
    first = model.run(inputs)
    other: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: other.append(model.run(inputs)))
    thread.start()
    thread.join()

    assert all(model.run(inputs).tobytes() == first.tobytes() for _ in range(10))
    assert other[0].tobytes() == first.tobytes()


@pytest.mark.parametrize("n", [1, 7, 8, 63, 64, 65, 70])
def test_any_number_of_rows_gives_the_rows_answers(engine: Engined, n: int):
    """Smaller than, equal to and larger than the profile's sizes."""
    model, inputs = engine.model(), engine.golden["inputs"]

    found = model.run(inputs[:n])

    assert found.shape == (n, graphs.CLASSES)
    assert snr_db(model.run(inputs)[:n], found) >= LEAST_DB


def test_a_profile_that_starts_above_one_is_filled_up(tmp_path: Path, engine: Engined):
    """A batch below the smallest size is padded and the padding's answers dropped."""
    asked = replace(task(tmp_path, graphs.residual(), engine.manifest.backend), batches=(4, 8, 16))

    assert isolated.built(asked).state is State.RUN
    assert np.load(asked.file("npy")).shape == engine.golden["int8"].shape


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 8), np.float32), np.zeros((2, 1, 8, 8))])
def test_an_input_of_another_kind_is_refused(engine: Engined, wrong: np.ndarray):
    with pytest.raises(ValueError, match="was wanted"):
        engine.model().run(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "0.1"},
        {"platform": "windows-amd64"},
        {"runs_on": ("7.5",)},
        {"gpu": "NVIDIA Another", "hardware_compatibility": "none"},
        {"cuda": "99"},
        {"plan": plan.hash_bytes(b"another")},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_plan_of_another_machine_is_refused_before_it_is_loaded(
    engine: Engined, change: dict[str, object]
):
    with pytest.raises(PlanMismatch):
        TensorRTModel(engine.path, replace(engine.manifest, **change), onnx=engine.manifest.onnx)


def test_a_plan_of_another_graph_is_refused(engine: Engined):
    with pytest.raises(PlanMismatch, match="built from another graph"):
        TensorRTModel(engine.path, engine.manifest, onnx=plan.hash_bytes(b"another"))


def test_a_plan_that_the_library_refuses_is_a_reason(engine: Engined, tmp_path: Path):
    """Damaged bytes with a manifest that vouches for them: the library's own check speaks."""
    data = engine.path.read_bytes()[:1000]
    (tmp_path / "cut.plan").write_bytes(data)
    vouched = replace(engine.manifest, plan=plan.hash_bytes(data))

    with pytest.raises(ValueError, match="the library refused the plan"):
        TensorRTModel(tmp_path / "cut.plan", vouched, onnx=vouched.onnx)


def test_built_twice_the_outputs_agree(engine: Engined, tmp_path: Path):
    """Bytes may differ and kernels too; what they compute may not."""
    again = made(engine.manifest.backend, tmp_path)

    first, second = (np.load(e.path.with_suffix(".npy")) for e in (engine, again))
    assert snr_db(first, second) >= LEAST_DB
    assert again.built.int8_layers == engine.built.int8_layers


def test_timings_of_kernels_are_kept_for_the_next_build(tmp_path: Path):
    """TensorRT leaves a timing cache whose hash is in the manifest, and takes it up again."""
    kept = tmp_path / "kept.cache"
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("tensorrt is not installed here")
    for folder in (tmp_path / "one", tmp_path / "two"):
        asked = task(folder, graphs.residual(), "tensorrt", timing_cache=kept)
        found = isolated.built(asked)

        assert found.manifest is not None, found.reason
        assert found.manifest["timing_cache"] == plan.hash_bytes(kept.read_bytes())
        assert asked.file("timing").read_bytes() == kept.read_bytes()


@pytest.mark.parametrize("level", ["ampere_plus", "same_compute_capability"])
def test_hardware_compatibility_is_built_or_says_why_not(tmp_path: Path, level: str):
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("tensorrt is not installed here")
    asked = task(tmp_path, graphs.residual(), "tensorrt", hardware_compatibility=level)

    found = isolated.built(asked)

    if found.state is State.RUN:
        assert found.manifest is not None
        assert found.manifest["hardware_compatibility"] == level
    else:
        assert found.reason


def test_a_plan_for_newer_versions_is_loaded_by_this_one(tmp_path: Path):
    """It brings a runtime of its own, which the library loads only where host code is allowed."""
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("tensorrt is not installed here")
    found = isolated.built(task(tmp_path, graphs.residual(), "tensorrt", version_compatible=True))

    assert found.state is State.RUN, found.reason
    assert found.manifest is not None
    assert found.manifest["version_compatible"] is True


@pytest.mark.parametrize("name", [n for n in ONNXRUNTIME if n != "onnxruntime"])
def test_measuring_a_provider_leaves_the_bundle_as_it_was(tmp_path: Path, name: str):
    """What it kept of its own beside the graph would break the bundle's seal."""
    made = graphs.int8_bundle(tmp_path / "int8", graphs.residual())

    found = budgets.measured(made, tmp_path, [name], batches=(1, 8, 64))["artifacts"][name]

    if "problem" in found:
        pytest.skip(f"{found['problem']}")
    assert read(made.path).digest == made.digest
    assert [path.name for path in tmp_path.iterdir()] == ["int8"]


@pytest.mark.parametrize("name", [n for n in ONNXRUNTIME if n != "onnxruntime"])
def test_a_provider_on_the_gpu_computes_what_the_graph_says(tmp_path: Path, name: str):
    """All of the graph on it: what leaves a layer to the CPU is not built, and says so."""
    found = isolated.built(task(tmp_path, graphs.residual(), name))
    if found.state is State.NOT_BUILT:
        pytest.skip(f"{found.reason}")

    with np.load(tmp_path / "golden.npz") as golden:
        assert snr_db(golden["int8"], np.load(tmp_path / f"{name}.npy")) >= LEAST_DB


def test_budgets_hold_the_engine_beside_onnx_runtime(engine: Engined, tmp_path: Path):
    """Every figure, and the GPU's memory as well."""
    bundle = read(graphs.int8_bundle(tmp_path / "int8", graphs.residual()).path)
    name = engine.manifest.backend

    found = budgets.measured(bundle, engine.path.parent, [name], batches=(1, 8, 64))

    figures = found["artifacts"][name]
    assert figures["device_memory_mb"] > 0
    assert all(b["latency_p50_ms"] > 0 and b["to_floor"] > 0 for b in figures["batches"])


def test_the_stage_is_content_where_the_required_engine_ran(
    engine: Engined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A workload that requires an engine passes on a machine that ran it."""
    name = engine.manifest.backend
    declared = Engine(backends=("onnxruntime", name), required=(name,))
    asked = replace(workload.load_network("digits"), engine=declared)
    monkeypatch.setattr(step.workloads, "load_network", lambda _: asked)
    int8 = graphs.int8_bundle(tmp_path / "int8", graphs.residual()).path

    run(workload="digits", int8=int8, out=tmp_path / "engine", now=NOW)

    bundle = read(tmp_path / "engine", kind="engine")
    assert bundle.summary.outcome == "pass"
    assert f"{name}.npy" in bundle.manifest["files"]


def test_memory_goes_to_the_device_and_back():
    """What is copied comes back in every bit, and poisoned memory is NaN."""
    device = Device()
    sent = np.random.default_rng(3).normal(0, 1, (33, 7)).astype(np.float32)
    address, received = device.allocate(sent.nbytes), np.zeros_like(sent)

    device.upload(sent, address)
    device.download(address, received)
    device.wait()
    assert received.tobytes() == sent.tobytes()

    device.poison(address, sent.size)
    device.download(address, received)
    device.wait()
    assert np.isnan(received).all()
