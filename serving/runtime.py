"""Runtimes: what can run a package's model here; one that cannot is refused with what to do."""

from __future__ import annotations

from collections.abc import Callable

from penstock.bundle import Bundle, hash_file
from penstock.runtimes import Runtime

DEFAULT = "onnxruntime"

BACKENDS = ("tensorrt", "tensorrt-rtx")
"""Whose plans a package may hold, the one that is asked first before the other."""


class CannotRun(ValueError):
    """A runtime cannot run a package on this machine; the text says why and what to do."""


def opened(package: Bundle, runtime: str, *, workload: str, classes: int) -> Runtime:
    """Load a package's model with one of :data:`RUNTIMES`.

    Raises:
        CannotRun: The package has nothing for it, or this machine lacks what it needs.
    """
    try:
        opens = RUNTIMES[runtime]
    except KeyError:
        raise CannotRun(f"no runtime {runtime!r}; there is {', '.join(RUNTIMES)}.") from None
    return opens(package, workload, classes)


def _onnxruntime(package: Bundle, _workload: str, _classes: int) -> Runtime:
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - only the one that runs

    return OnnxModel(package.file("model.onnx"))


def _cuda(package: Bundle, _workload: str, _classes: int) -> Runtime:
    from penstock.runtimes.onnxruntime import OnnxModel, options  # noqa: PLC0415

    # The int8 graph for CPUs has operations of ONNX Runtime's own that CUDA has not.
    held = "model.int8.onnx" in package.manifest["files"]
    graph = package.file("model.int8.onnx" if held else "model.onnx")
    try:
        return OnnxModel(graph, provider="cuda", provider_options=options("cuda"))
    except ValueError as e:
        raise CannotRun(
            f"runtime cuda cannot run here: {e} It needs an NVIDIA GPU and onnxruntime-gpu; "
            f"without them serve with --runtime {DEFAULT}."
        ) from e


def _tensorrt(package: Bundle, _workload: str, _classes: int) -> Runtime:
    held = [name for name in BACKENDS if f"{name}.plan" in package.manifest["files"]]
    if not held:
        raise CannotRun(
            "runtime tensorrt has no plan in this package: run the engine stage where TensorRT is, "
            f"and register the model again, or serve with --runtime {DEFAULT}."
        )
    reasons: list[str] = []
    for name in held:
        try:
            return _planned(package, name)
        except (ValueError, RuntimeError) as e:
            reasons.append(f"{name}: {e}")
    raise CannotRun(f"runtime tensorrt cannot run here: {' '.join(reasons)}")


def _planned(package: Bundle, backend: str) -> Runtime:
    """Return a plan, loaded once its manifest allows it here.

    Raises:
        ValueError: It must not be loaded here, or the library refuses it.
        RuntimeError: The library or a GPU is missing.
    """
    from penstock.runtimes import plan, tensorrt  # noqa: PLC0415 - only the one that runs

    manifest = plan.read(package.file(f"{backend}.plan.json"))
    graph = hash_file(package.file("model.int8.onnx"))
    return tensorrt.TensorRTModel(package.file(f"{backend}.plan"), manifest, onnx=graph)


def _torch(package: Bundle, workload: str, classes: int) -> Runtime:
    weights = package.file("model.safetensors")
    try:
        from penstock.runtimes.torch import TorchModel, network  # noqa: PLC0415 - seconds to import

        return TorchModel(network(weights, workload=workload, classes=classes))
    except ImportError as e:
        raise CannotRun(
            f"runtime torch cannot run here: {e}. Install penstock[train] and the workload's "
            f"folder, or serve with --runtime {DEFAULT}."
        ) from e
    except RuntimeError as e:
        raise CannotRun(
            f"runtime torch: the network of workload {workload!r} is not the one that these "
            f"weights are of; serve from the code that trained them. {e}"
        ) from e


RUNTIMES: dict[str, Callable[[Bundle, str, int], Runtime]] = {
    DEFAULT: _onnxruntime,
    "cuda": _cuda,
    "tensorrt": _tensorrt,
    "torch": _torch,
}
"""By the word that ``--runtime`` takes."""
