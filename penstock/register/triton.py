"""Write a package as a model repository of NVIDIA Triton, which is warm and right before ready.

Triton gets the graph, so it is asked with the graph's input: the workload's ``transform`` runs
before it, in the transformer or in whoever else asks.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.bundle import (
    SIGNATURE,
    Bundle,
    files_in,
    hash_file,
    replace_folder,
    write_json,
    write_text,
)
from penstock.register import tritoncheck
from penstock.register.tritonconfig import VERSION, Model, Platform, Tensor, config, plan_name
from penstock.register.tritonstart import SUMS, write_start
from penstock.request import Contract, Feature, packaged_transform, request_input
from penstock.runtimes import plan
from penstock.runtimes.plan import PlanManifest, PlanMismatch

IMAGE = "TRITON_REGISTRY/nvidia/tritonserver:26.07-py3"
"""Triton's image; its TensorRT must be the one that built a plan, so put the digest in."""

PLAN = "tensorrt.plan"
PLAN_PLATFORM = "linux-x86_64"
"""What Triton's image runs on."""

REPOSITORY = "models"
WARMUP = "warmup"
"""Folder of a model's in which Triton looks for the data of its warm-up."""


class Unfit(ValueError):
    """A package cannot be served by Triton as it was asked for; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written."""

    folder: Path
    model: Model
    tensorrt: str | None
    """Version that Triton's image must have, None where no plan is served."""


@dataclass(frozen=True, kw_only=True)
class _Golden:
    """Golden requests as the graph gets them, and what it must answer."""

    input_n: NDArray[np.float32]
    output_n: NDArray[np.float32]
    tolerance: float


def write(
    package: Bundle,
    out: Path,
    *,
    platform: Platform | None = None,
    name: str | None = None,
    image: str = IMAGE,
    gpu: bool = False,
    signature_checked: bool = False,
) -> Written:
    """Fill a new folder: a model repository, how to start Triton on it, and a runtime for KServe.

    Args:
        package: Verified by whoever read it.
        platform: A plan where the package has one, else the graph, unless it is said here.
        name: Of the model; the workload's unless it is said here.
        gpu: Whether ONNX Runtime computes on a GPU; a plan always does.
        signature_checked: Whether whoever asks has verified the package's signature, as its
            endpoint wants it to be: Triton verifies none.

    Raises:
        Unfit: The folder is not empty, or the package has not what was asked for.
        PlanMismatch: The plan is not what its manifest says, or must not be loaded by Triton.
        BundleError: The package lacks a file.
    """
    if out.exists() and any(out.iterdir()):
        raise Unfit(f"{out} is not empty; name a new folder.")
    chosen = platform or (Platform.PLAN if PLAN in package.manifest["files"] else Platform.ONNX)
    contract = Contract.from_dict(package.json("serving.json"))
    if contract.endpoint.signed and not signature_checked:
        raise Unfit(
            f"{contract.workload} serves signed packages only, and Triton checks no signature; "
            f"verify it: model_signing verify key --public_key KEY --signature "
            f"{package.path / SIGNATURE} {package.path}, then add --signature-checked."
        )
    on_gpu = gpu or chosen is Platform.PLAN
    graph = _graph(package, gpu=on_gpu)
    given, made = _named(graph)
    manifest = _plan(package, graph, given, contract) if chosen is Platform.PLAN else None
    golden = _golden(package, contract, graph, runtime=_runtime(chosen, gpu=on_gpu))
    model = Model(
        name=name or contract.workload,
        platform=chosen,
        given=Tensor(name=given, dims=golden.input_n.shape[1:]),
        made=Tensor(name=made, dims=golden.output_n.shape[1:]),
        rows=contract.rows,
        endpoint=contract.endpoint,
        warmed_by=[f"golden-{n}.bin" for n in range(len(golden.input_n))],
        capabilities=() if manifest is None else _exact(manifest),
        gpu=on_gpu,
    )
    served = package.file(PLAN) if manifest else graph
    part = out.with_name(f".part-{out.name}")
    shutil.rmtree(part, ignore_errors=True)
    _write_model(part / REPOSITORY / model.name, model, served, golden)
    write_start(part, model, image=image)
    write_text(part / SUMS, _sums(part))
    replace_folder(part, out)
    return Written(folder=out, model=model, tensorrt=manifest.version if manifest else None)


def _graph(package: Bundle, *, gpu: bool) -> Path:
    """Return the graph to serve; that for CPUs may hold operations that no GPU has."""
    portable = "model.int8.onnx" in package.manifest["files"]
    return package.file("model.int8.onnx" if gpu and portable else "model.onnx")


def _named(graph: Path) -> tuple[str, str]:
    """Return the names of a graph's only input and output; refused where there are others."""
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - only when there is work

    model = OnnxModel(graph)
    return model.input_name, model.output_name


def _runtime(platform: Platform, *, gpu: bool) -> str | None:
    """Return by which name a package keeps golden answers, None for the graph for CPUs."""
    if platform is Platform.PLAN:
        return "tensorrt"
    return "cuda" if gpu else None


def _plan(package: Bundle, graph: Path, given: str, contract: Contract) -> PlanManifest:
    """Return the manifest of a package's plan once everything but the GPU is known to fit.

    The GPU is Triton's to find: it takes a plan by compute capability.
    """
    if PLAN not in package.manifest["files"]:
        raise Unfit(
            f"the package has no {PLAN}; run the engine stage with backend tensorrt and register "
            "the model again, or ask for the graph."
        )
    manifest = plan.read(package.file(f"{PLAN}.json"))
    if manifest.backend != "tensorrt":
        raise PlanMismatch(f"{PLAN} is of {manifest.backend}; Triton loads plans of tensorrt.")
    target = plan.Here(
        platform=PLAN_PLATFORM,
        version=manifest.version,
        gpu=manifest.gpu or "a GPU",
        compute_capability=next(iter(manifest.runs_on), "none").removesuffix("+"),
        driver=manifest.driver,
        cuda=manifest.cuda,
    )
    plan.verified(package.file(PLAN), manifest, target, onnx=hash_file(graph))
    if given not in manifest.profiles:
        raise PlanMismatch(f"{PLAN} takes {[*manifest.profiles]}, the graph takes {given!r}.")
    small, _, large = manifest.profiles[given]
    if small[0] > 1 or large[0] < contract.rows:
        raise PlanMismatch(
            f"{PLAN} takes batches of {small[0]} to {large[0]} rows, the endpoint has 1 to "
            f"{contract.rows}: declare Engine.batches so and run the engine stage again."
        )
    return manifest


def _exact(manifest: PlanManifest) -> tuple[str, ...]:
    """Return the capabilities a plan is bound to; none where it may run on later ones too."""
    later = any(c.endswith("+") for c in manifest.runs_on)
    return () if later else manifest.runs_on


def _golden(package: Bundle, contract: Contract, graph: Path, *, runtime: str | None) -> _Golden:
    """Return golden rows and answers.

    Raises:
        Unfit: There are none, or the graph answers them otherwise.
    """
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - only when there is work

    held = package.json("golden.json")
    if not held["requests"]:
        raise Unfit("the package has no golden requests; nothing could show that Triton is right.")
    rows = _table(contract.features, [request["instance"] for request in held["requests"]])
    input_n = np.ascontiguousarray(request_input(packaged_transform(package))(rows), np.float32)
    own = held.get("runtimes", {}).get(runtime)
    answers = own["logits"] if own else [request["logits"] for request in held["requests"]]
    tolerance = float((own or held)["tolerance"])
    output_n = np.array(answers, np.float32)
    apart = float(np.abs(OnnxModel(graph, reference=own is not None).run(input_n) - output_n).max())
    if not apart <= tolerance:
        raise Unfit(f"the graph's golden answers are {apart:.4g} apart, {tolerance:g} is allowed.")
    return _Golden(input_n=input_n, output_n=output_n, tolerance=tolerance)


def _table(features: tuple[Feature, ...], instances: list[dict[str, Any]]) -> pa.Table:
    return pa.table({f.name: pa.array([i[f.name] for i in instances], f.arrow) for f in features})


def _write_model(folder: Path, model: Model, served: Path, golden: _Golden) -> None:
    version = folder / str(VERSION)
    version.mkdir(parents=True)
    (folder / WARMUP).mkdir()
    for name in [*map(plan_name, model.capabilities)] or [model.platform.file]:
        shutil.copyfile(served, version / name)
    for name, row in zip(model.warmed_by, golden.input_n, strict=True):
        (folder / WARMUP / name).write_bytes(row.astype("<f4").tobytes())
    write_json(folder / WARMUP / "golden.json", _recorded(model, golden))
    shutil.copyfile(tritoncheck.__file__, folder / WARMUP / "check.py")
    write_text(folder / "config.pbtxt", config(model))


def _sums(folder: Path) -> str:
    """Return the hash of every file, as ``sha256sum --check`` reads it."""
    hashes = ((hash_file(path).removeprefix("sha256:"), path) for path in files_in(folder))
    return "".join(f"{held}  {path.relative_to(folder).as_posix()}\n" for held, path in hashes)


def _recorded(model: Model, golden: _Golden) -> dict[str, Any]:
    rows = zip(golden.input_n, golden.output_n, strict=True)
    return {
        "model": model.name,
        "tolerance": golden.tolerance,
        "batch": min(len(golden.input_n), model.rows),
        "input": {"name": model.given.name, "dims": list(model.given.dims)},
        "output": {"name": model.made.name, "dims": list(model.made.dims)},
        "rows": [{"input": a.ravel().tolist(), "output": b.ravel().tolist()} for a, b in rows],
    }
