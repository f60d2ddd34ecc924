"""Metadata: what a server says of itself and its model; none of it changes while it serves."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from serving.reading import Names
from serving.tensors import key_datatype

Said = dict[str, Any]

PLATFORMS = {
    "onnxruntime": "onnxruntime_onnx",
    "cuda": "onnxruntime_onnx",
    "tensorrt": "tensorrt_plan",
    "torch": "pytorch",
}
"""What the protocol calls a runtime."""


def states(names: Names, *, name: str, version: str, runtime: str) -> dict[str, Said]:
    """Return what is answered at each path that is read: a server that listens is ready.

    Args:
        name: Of the model, as it stands in its routes.
        version: Of the model: the only one that this server knows.
        runtime: What runs it.
    """
    ready = {"name": name, "ready": True}
    model = {
        "name": name,
        "versions": [version],
        "platform": PLATFORMS.get(runtime, runtime),
        "inputs": inputs(names),
        "outputs": outputs(names),
    }
    server = {
        "name": "kserve",
        "version": importlib.metadata.version("kserve"),
        "extensions": ["binary_tensor_data"],
    }
    return {
        "/": {"status": "alive"},
        "/v2": server,
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        f"/v2/models/{name}": model,
        f"/v2/models/{name}/ready": ready,
        f"/v2/models/{name}/versions/{version}": model,
        f"/v2/models/{name}/versions/{version}/ready": ready,
        f"/v1/models/{name}": ready,
    }


def inputs(names: Names) -> list[Said]:
    """Return the inputs, each with the type it is best sent as, and which may be left out.

    A request leaves out all features that are looked up, and then holds the keys; or none, and
    then needs no keys.
    """
    said: list[Said] = []
    for feature in names.contract.features:
        one: Said = {
            "name": feature.name,
            "datatype": feature.datatype,
            "shape": feature.shape,
        }
        if feature.name in names.looked_up or feature.name == names.time:
            one["parameters"] = {"optional": True}
        said.append(one)
    for key, kind in names.keys.items():
        if key not in names.columns:
            optional = {"optional": True, "key": True}
            datatype = key_datatype(kind)
            said.append({"name": key, "datatype": datatype, "shape": [-1], "parameters": optional})
    return said


def outputs(names: Names) -> list[Said]:
    """Return the outputs."""
    return [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probability", "datatype": "FP32", "shape": [-1, names.contract.classes]},
    ]
