"""One CUDA, one TensorRT, one Triton: every file that names one names the same."""

import json
import re

import yaml

from components import images
from components.images import layers
from penstock.register import triton
from tests.images.containerfile import HERE

PINS = dict(
    line.split("=", 1) for line in (HERE / "gpu.env").read_text().splitlines() if line[:1].isupper()
)


def version(lock: str, name: str) -> str:
    """Return the version that a lock pins."""
    path = HERE / "gpu.txt" if lock == "gpu" else images.ROOT / "requirements" / f"{lock}.txt"
    return layers.parse(path.read_text())[name].partition("==")[2].split()[0]


def test_train_and_engine_have_the_cuda_that_is_pinned():
    for group in ("train", "engine"):
        assert version(group, "nvidia-cuda-runtime").startswith(PINS["CUDA"] + ".")


def test_the_gpu_lock_is_what_the_pins_say():
    assert version("gpu", "tensorrt-cu13-libs") == PINS["TENSORRT"]
    assert version("gpu", "tensorrt-cu13-bindings") == PINS["TENSORRT"]
    assert version("gpu", "onnxruntime-gpu") == PINS["ONNXRUNTIME_GPU"]


def test_servers_answer_by_one_onnx_runtime_with_and_without_a_gpu():
    assert version("serve", "onnxruntime") == PINS["ONNXRUNTIME_GPU"]


def test_cuda_libraries_are_of_one_major_version():
    majors = {PINS["CUDA"].split(".")[0]}
    majors |= {
        found
        for name in layers.parse((HERE / "gpu.txt").read_text())
        for found in re.findall(r"-cu(\d+)", name)
    }
    assert len(majors) == 1


def test_triton_is_the_release_that_holds_this_tensorrt():
    """Both the folder that `penstock triton` writes and the cluster's runtime name it."""
    assert triton.IMAGE.endswith(f"tritonserver:{PINS['TRITON']}-py3")
    runtimes = images.ROOT / "manifests" / "base" / "runtimes.yaml"
    said = {
        document["metadata"]["name"]: document["metadata"].get("annotations", {})
        for document in yaml.safe_load_all(runtimes.read_text())
        if document
    }
    assert said["penstock-triton"]["penstock.io/triton"] == PINS["TRITON"], json.dumps(said)
