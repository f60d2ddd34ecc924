"""Laws of the engine stage: each backend ran, was built or says why not; nothing passes unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import machine, workload
from penstock.bundle import Bundle, read
from penstock.engine import budgets, isolated, run, step
from penstock.engine.backend import KNOWN, ONNXRUNTIME, Built, State, Task, backend
from penstock.engine.onnxruntime import options
from penstock.stage import Refused
from penstock.workload import Engine
from tests.bundles import NOW
from tests.engine import graphs

NO_GPU = machine.gpu()["gpu"] is None
DIGITS = workload.load_network("digits")


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 bundle of a small graph."""
    return graphs.int8_bundle(tmp_path_factory.mktemp("int8") / "int8", graphs.residual()).path


@pytest.fixture(scope="module")
def made(int8: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The engine bundle of it, on this machine."""
    out = tmp_path_factory.mktemp("engine") / "engine"
    run(workload="digits", int8=int8, out=out, now=NOW)
    return read(out, kind="engine")


def task(folder: Path, model: onnx.ModelProto, name: str, **over: object) -> Task:
    """Return a task on a graph in a folder of its own."""
    folder.mkdir(exist_ok=True)
    graphs.filler(model)(folder)
    given = {"version_compatible": False, "hardware_compatibility": "none", **over}
    return Task(
        backend=name,
        onnx=folder / "model.int8.onnx",
        golden=folder / "golden.npz",
        folder=folder,
        batches=(1, 8, 64),
        **given,
    )


def test_every_declared_backend_says_how_far_it_got(made: Bundle):
    """In the declared order, and what did not run has a reason in the bundle's line."""
    built = [Built.from_dict(b) for b in made.json("engine.json")["backends"]]

    assert [b.name for b in built] == list(DIGITS.engine.backends)
    assert built[0].state is State.RUN
    assert all(b.said in made.summary.line for b in built)


def test_an_engine_that_ran_left_its_outputs_on_the_golden_inputs(made: Bundle, int8: Path):
    """They are what the int8 graph says, within what rounding flips by another order of sums."""
    with np.load(int8 / "golden.npz") as golden:
        wanted = golden["int8"]

    found = np.load(made.file("onnxruntime.npy"))

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_only_engines_that_ran_have_outputs(made: Bundle):
    for said in made.json("engine.json")["backends"]:
        assert (f"{said['name']}.npy" in made.manifest["files"]) == (said["state"] == "run")


@pytest.mark.parametrize(("name", "file"), [("onnx", "model.int8.onnx"), ("golden", "golden.npz")])
def test_the_bundle_names_the_graph_and_the_rows_it_was_made_of(
    made: Bundle, int8: Path, name: str, file: str
):
    """By the hashes that the int8 bundle has of them."""
    assert made.json("engine.json")[name] == read(int8).manifest["files"][file]["sha256"]


@pytest.mark.parametrize("provider", ONNXRUNTIME.values())
def test_no_provider_is_told_to_write(provider: str):
    """What lies beside a graph is a sealed bundle: no option names a place or turns a cache on."""
    told = options(provider)

    assert not [name for name, value in told.items() if "path" in name or "/" in value]
    assert not [name for name, value in told.items() if "cache" in name and value != "False"]


def test_another_machine_makes_another_bundle(made: Bundle):
    """What the machine is stands in the settings that name the bundle."""
    assert made.manifest["settings"]["here"]["cpu"] == budgets.cpu()["name"]
    assert "gpu" in made.manifest["settings"]["here"]


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU: tests/gpu looks at what it does")
def test_without_a_gpu_tensorrt_is_not_built_and_says_so(made: Bundle):
    said = made.json("engine.json")["backends"][2]

    assert (said["name"], said["state"]) == ("tensorrt", "not built")
    assert "this machine has none" in said["reason"]


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU: TensorRT may run")
def test_a_required_engine_that_did_not_run_is_refused(
    int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The bundle is there to be read, and the stage fails."""
    engine = Engine(backends=("onnxruntime", "tensorrt"), required=("tensorrt",))
    asked = replace(DIGITS, engine=engine)
    monkeypatch.setattr(step.workloads, "load_network", lambda name: asked)

    with pytest.raises(Refused, match="required engine did not run: tensorrt not built, because"):
        run(workload="digits", int8=int8, out=tmp_path / "out", now=NOW)

    assert read(tmp_path / "out", kind="engine").summary.outcome == "fail"


def test_a_backend_that_there_is_not_is_refused(
    int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = replace(DIGITS, engine=Engine(backends=("openvino",)))
    monkeypatch.setattr(step.workloads, "load_network", lambda name: asked)

    with pytest.raises(ValueError, match="no engine backends \\['openvino'\\]"):
        run(workload="digits", int8=int8, out=tmp_path / "out", now=NOW)


states = st.dictionaries(st.sampled_from(KNOWN), st.sampled_from(State), min_size=1)


@given(states, st.sets(st.sampled_from(KNOWN)))
def test_only_an_engine_that_ran_satisfies_a_requirement(
    found: dict[str, State], required: set[str]
):
    """Built is not run, however well it was built."""
    built = [
        Built(name=n, state=s, reason=None if s is State.RUN else "of the test")
        for n, s in found.items()
    ]

    lacking = {b.name for b in step.missing(tuple(required), built)}

    assert lacking == {n for n in required & found.keys() if found[n] is not State.RUN}


@pytest.mark.parametrize(
    ("state", "reason"), [("run", "why"), ("built", None), ("not built", None)]
)
def test_a_state_without_its_reason_cannot_be_said(state: str, reason: str | None):
    with pytest.raises(ValueError, match="for the reason"):
        Built(name="tensorrt", state=State(state), reason=reason)


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_is_not_there_is_no_run_on_the_cpu(tmp_path: Path, name: str):
    """ONNX Runtime falls back by itself, which would be a CPU's outputs under a GPU's name."""
    import onnxruntime  # noqa: PLC0415 - only here

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the provider: tests/gpu looks at what it does")

    found = isolated.built(task(tmp_path / "t", graphs.residual(), name))

    assert found.state is State.NOT_BUILT
    assert "ExecutionProvider" in (found.reason or "")
    assert not (tmp_path / "t" / f"{name}.npy").exists()


def test_a_builder_that_raises_is_a_reason(tmp_path: Path):
    """Golden examples that cannot be read are an outcome of this backend, with its cause."""
    asked = task(tmp_path / "t", graphs.residual(), "onnxruntime")
    asked.golden.write_bytes(b"no archive")

    found = isolated.built(asked)

    assert found.state is State.NOT_BUILT
    assert (found.reason or "").startswith("the builder raised ")


def test_a_builder_that_dies_is_a_reason_and_leaves_no_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A native fault ends its own process only; what it wrote half is gone."""
    asked = task(tmp_path / "t", graphs.residual(), "onnxruntime")
    asked.file("plan").write_bytes(b"half")
    die = "#!/bin/sh\necho something native >&2\nkill -SEGV $$\n"
    (tmp_path / "python").write_text(die)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(isolated.sys, "executable", str(tmp_path / "python"))

    found = isolated.built(asked)

    assert found.state is State.NOT_BUILT
    assert found.reason == "the builder was ended by SIGSEGV; its last words: something native"
    assert not asked.file("plan").exists()


def test_a_builder_that_never_ends_is_a_reason(tmp_path: Path):
    asked = task(tmp_path / "t", graphs.residual(), "onnxruntime")

    assert "not done after" in (isolated.built(asked, timeout_s=0.01).reason or "")


def test_a_task_and_its_result_survive_the_way_to_another_process(tmp_path: Path):
    asked = task(tmp_path / "t", graphs.residual(), "tensorrt", timing_cache=tmp_path / "c")

    assert Task.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked


def test_there_is_no_backend_of_another_name():
    with pytest.raises(ValueError, match="no engine backend 'openvino'"):
        backend("openvino")
