"""The configuration of a model for NVIDIA Triton: values in, ``config.pbtxt`` out.

Field names and meanings: ``model_config.proto`` of triton-inference-server/common.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

from penstock.endpoint import Endpoint

ROUNDS = 10
"""Times that each warm-up sample is run on each instance. Triton cannot wait until it settles."""

VERSION = 1
"""Of the model as Triton counts them: one model version a slot, so there is no other."""


class Platform(StrEnum):
    """What of Triton runs a model."""

    ONNX = "onnxruntime_onnx"
    PLAN = "tensorrt_plan"

    @property
    def backend(self) -> str:
        """Triton's name of the library."""
        return self.split("_", maxsplit=1)[0]

    @property
    def file(self) -> str:
        """Name of the model's file, as Triton expects it."""
        return "model.onnx" if self is Platform.ONNX else "model.plan"


class _Word(str):
    """A name of an enumeration, which is written without quotes."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A float32 input or output of a graph."""

    name: str
    dims: tuple[int, ...]
    """Without the batch."""

    def described(self) -> dict[str, Any]:
        """Return how a configuration describes it."""
        return {"name": self.name, "data_type": _Word("TYPE_FP32"), "dims": list(self.dims)}


@dataclass(frozen=True, kw_only=True)
class Model:
    """What Triton is to serve."""

    name: str
    platform: Platform
    given: Tensor
    made: Tensor
    rows: int
    """Most of a batch."""

    endpoint: Endpoint
    warmed_by: Sequence[str]
    """Files in the folder ``warmup``, one real row each."""

    capabilities: Sequence[str] = field(default_factory=tuple[str, ...])
    """Compute capabilities of the only GPUs that may load a plan; empty where none is excluded."""

    gpu: bool = False


def config(model: Model) -> str:
    """Return the configuration of a model."""
    fields: dict[str, Any] = {
        "name": model.name,
        "platform": model.platform.value,
        "backend": model.platform.backend,
        "max_batch_size": model.rows,
        "input": [model.given.described()],
        "output": [model.made.described()],
        "version_policy": {"specific": {"versions": [VERSION]}},
        "instance_group": [_instances(model)],
        "dynamic_batching": _batching(model.endpoint),
        "model_warmup": list(_warmup(model)),
        **_files(model),
    }
    if model.platform is Platform.ONNX:
        # A batch is for one core: instances answer others at the same time.
        threads = ("intra_op_thread_count", "inter_op_thread_count")
        fields["parameters"] = [{"key": n, "value": {"string_value": "1"}} for n in threads]
    return "\n".join(_lines(fields)) + "\n"


def buckets(rows: int) -> list[int]:
    """Return the batch sizes to warm: doubling, up to the most rows of a batch.

    >>> buckets(20)
    [1, 2, 4, 8, 16, 20]
    """
    return [*(2**i for i in range((rows - 1).bit_length())), rows]


def _files(model: Model) -> dict[str, Any]:
    """Name a plan by the GPUs that may load it, so that Triton finds none for another."""
    if not model.capabilities:
        return {"default_model_filename": model.platform.file}
    named = [{"key": c, "value": plan_name(c)} for c in model.capabilities]
    return {"cc_model_filenames": named}


def plan_name(capability: str) -> str:
    """Return the name of a plan's file for one compute capability.

    >>> plan_name("9.0")
    'model_sm90.plan'
    """
    return f"model_sm{capability.replace('.', '')}.plan"


def _instances(model: Model) -> dict[str, Any]:
    """Two on a GPU, so that one copies while the other computes; one on a processor."""
    if model.gpu:
        return {"kind": _Word("KIND_GPU"), "count": 2}
    return {"kind": _Word("KIND_CPU"), "count": 1}


def _batching(endpoint: Endpoint) -> dict[str, Any]:
    """Run what waits together without waiting for more; refuse what is too much or too late."""
    return {
        "max_queue_delay_microseconds": 0,
        "default_queue_policy": {
            "timeout_action": _Word("REJECT"),
            "default_timeout_microseconds": round(endpoint.timeout_ms * 1000),
            "allow_timeout_override": False,
            "max_queue_size": endpoint.max_in_flight,
        },
    }


def _warmup(model: Model) -> Iterator[dict[str, Any]]:
    """Yield a sample for every bucket, made of the golden rows in turn.

    Triton makes a batch of n by asking n times for the one row that it reads from the file.
    """
    for number, size in enumerate(buckets(model.rows)):
        told = {
            "data_type": _Word("TYPE_FP32"),
            "dims": list(model.given.dims),
            "input_data_file": model.warmed_by[number % len(model.warmed_by)],
        }
        yield {
            "name": f"rows-{size}",
            "batch_size": size,
            "count": ROUNDS,
            "inputs": [{"key": model.given.name, "value": told}],
        }


def _lines(fields: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield the lines of a message in protobuf's text format."""
    for name, held in fields.items():
        values: list[Any] = cast("list[Any]", held) if isinstance(held, list) else [held]
        for value in values:
            if isinstance(value, dict):
                yield f"{indent}{name} {{"
                yield from _lines(cast("dict[str, Any]", value), indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | _Word) else json.dumps(value)
