"""Laws of runtimes: each is held to its own answers, and refused where it cannot run here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save_file

from penstock import machine
from penstock.bundle import hash_file, write_json
from penstock.runtimes import plan
from penstock.runtimes.plan import PlanManifest
from penstock.runtimes.tensorrt import this_platform
from penstock.runtimes.torch import TorchModel
from serving.package import NotServable, Served
from serving.runtime import RUNTIMES, CannotRun
from tests.packages import GOLDEN, body, graph, make_package, predictor, table
from workloads.digits.model import build
from workloads.digits.transform import request_input

ANY = {"tolerance": 1.0, "logits": [[0.0] * 10] * len(GOLDEN)}
"""Answers of a runtime that does not come as far as giving any."""


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """Return an untrained network of digits: another model than the packages' graph."""
    torch.manual_seed(7)
    return build(classes=10).eval()


def answers(network: torch.nn.Module, *, shift: float = 0.0) -> dict[str, Any]:
    """Return what the network says to the golden rows, or something else."""
    logits_nk = TorchModel(network).run(request_input(table(GOLDEN))) + shift
    return {"torch": {"tolerance": 1e-3, "logits": logits_nk.tolist()}}


def weights(network: torch.nn.Module) -> Callable[[Path], None]:
    """Return what writes the network's weights into a package."""
    held = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return lambda folder: save_file(held, folder / "model.safetensors")


def test_torch_serves_the_network_and_is_held_to_its_own_answers(
    network: torch.nn.Module, tmp_path: Path
):
    """The weights answer as the network does, though the graph beside them says otherwise."""
    made = make_package(tmp_path / "p", runtimes=answers(network), more=weights(network))
    served, graph_served = Served(made.path, runtime="torch"), Served(made.path)

    assert served.check_golden() == graph_served.check_golden() == len(GOLDEN)
    actual = served.infer({"pixels": GOLDEN})
    np.testing.assert_allclose(np.array(answers(network)["torch"]["logits"]), actual, atol=1e-5)
    assert not np.allclose(graph_served.infer({"pixels": GOLDEN}), actual, atol=0.1)


def test_a_runtime_that_answers_otherwise_is_refused(network: torch.nn.Module, tmp_path: Path):
    """Right answers of the graph do not vouch for wrong ones of another runtime."""
    wrong = answers(network, shift=0.01)
    made = make_package(tmp_path / "p", runtimes=wrong, more=weights(network))

    with pytest.raises(NotServable, match="answered otherwise than recorded"):
        Served(made.path, runtime="torch").check_golden()
    assert Served(made.path).check_golden() == len(GOLDEN)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    """Code that has changed since the training cannot take its weights, and says so."""
    other = weights(torch.nn.Linear(3, 2))
    made = make_package(tmp_path / "p", runtimes={"torch": ANY}, more=other)

    with pytest.raises(CannotRun, match="serve from the code that trained them"):
        Served(made.path, runtime="torch")


@pytest.mark.parametrize("runtime", [*list(RUNTIMES)[1:], "pigeon"])
def test_what_a_package_has_no_model_for_is_refused(runtime: str, tmp_path: Path):
    """The refusal names the runtimes that there are, and what to do."""
    made = make_package(tmp_path / "p")

    with pytest.raises(CannotRun, match=r"has one for onnxruntime: serve with --runtime onnxrun"):
        Served(made.path, runtime=runtime)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="CUDA may run here"
)
def test_cuda_is_refused_where_there_is_none(tmp_path: Path):
    """Nothing turns to the CPU by itself: the reason and the way out are in one sentence."""
    made = make_package(tmp_path / "p", runtimes={"cuda": ANY})

    with pytest.raises(CannotRun, match=r"no CUDAExecutionProvider.*NVIDIA GPU.*--runtime onnx"):
        Served(made.path, runtime="cuda")


def planned(folder: Path, **over: Any) -> None:
    """Write bytes that stand for a plan, with a manifest of this platform unless told."""
    onnx.save(graph(7), folder / "model.int8.onnx")
    (folder / "tensorrt.plan").write_bytes(b"plan")
    shapes = ((1, 1, 8, 8), (8, 1, 8, 8), (64, 1, 8, 8))
    made = PlanManifest(
        backend="tensorrt", version="10.16.1.11", platform=this_platform(), cuda=None, driver=None,
        gpu=None, compute_capability=None, runs_on=("1.0",), plan=plan.hash_bytes(b"plan"),
        onnx=hash_file(folder / "model.int8.onnx"), timing_cache=None, profiles={"image": shapes},
        precision="int8", version_compatible=False, hardware_compatibility="none",
        peak_memory_mb=1.0, build_s=1.0,
    )  # fmt: skip
    write_json(folder / "tensorrt.plan.json", asdict(replace(made, **over)))


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"onnx": "sha256:another"}, "built from another graph.*run the engine stage"),
        ({"plan": "sha256:another"}, "was altered.*run the engine stage"),
        ({"platform": "plan9-mips"}, "built for plan9-mips, this is.*run the engine stage"),
    ],
)
def test_a_plan_of_another_graph_or_machine_is_refused(
    over: Mapping[str, Any], said: str, tmp_path: Path
):
    """The manifest decides before the library sees a byte, and says what to build where."""
    made = make_package(
        tmp_path / "p", runtimes={"tensorrt": ANY}, more=lambda folder: planned(folder, **over)
    )

    with pytest.raises(CannotRun, match=said):
        Served(made.path, runtime="tensorrt")


@pytest.mark.skipif(machine.gpu()["gpu"] is not None, reason="a plan may run here")
def test_a_plan_without_a_gpu_is_refused(tmp_path: Path):
    """A right plan on a machine that has no GPU says which one it needs."""
    made = make_package(tmp_path / "p", runtimes={"tensorrt": ANY}, more=planned)

    with pytest.raises(CannotRun, match=r"no NVIDIA GPU was found.*compute capability 1\.0"):
        Served(made.path, runtime="tensorrt")


def test_answers_for_a_plan_that_is_not_there_are_no_plan(tmp_path: Path):
    """A package whose plan is missing says how to come by one."""
    made = make_package(tmp_path / "p", runtimes={"tensorrt": ANY})

    with pytest.raises(CannotRun, match="no plan in this package: run the engine stage"):
        Served(made.path, runtime="tensorrt")


def test_the_server_answers_with_the_runtime_it_was_told(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A real server with torch: ready only with its golden answers, and these are what it gives."""
    # On a busy machine its threads wait for each other, half a second a call instead of 4 ms.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = make_package(tmp_path / "p", runtimes=answers(network), more=weights(network))

    with predictor(made.path, tmp_path / "log", "--runtime", "torch") as (_, port):
        url = f"http://127.0.0.1:{port}/v2/models/digits/infer"
        answered = httpx.post(url, content=body(GOLDEN), timeout=10).json()
        ready = json.loads((tmp_path / "log" / "ready.json").read_text())

    outputs = {output["name"]: output["data"] for output in answered["outputs"]}
    expected = np.array(answers(network)["torch"]["logits"]).argmax(axis=1)
    assert outputs["label"] == expected.tolist()
    assert ready["golden"] == len(GOLDEN)
    assert {"batch", "first_ms", "steady_ms"} <= ready["warmth"][0].keys()


def test_a_server_that_cannot_run_ends_before_it_is_ready(tmp_path: Path):
    """One sentence and a failed process; nobody is told that it is ready."""
    made = make_package(tmp_path / "p", runtimes={"tensorrt": ANY})
    command = [sys.executable, "-m", "serving.predictor", "--bundle", made.path, "--version", "3"]
    given = ["--model-name", "digits", "--log", tmp_path, "--port", "0", "--runtime", "tensorrt"]

    run = subprocess.run([*command, *given], capture_output=True, text=True, check=False)

    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("not serving version 3: runtime tensorrt has no plan in this package")
    assert not (tmp_path / "ready.json").exists()
