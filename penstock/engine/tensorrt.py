"""Build a plan of TensorRT 10, 11 or TensorRT-RTX from the Q/DQ graph, and run it where it can run.

The network is strongly typed: every datatype comes from the graph, and no calibrator or precision
flag exists. TensorRT chooses kernels by timing them, so it builds on the GPU that is to run the
plan; TensorRT-RTX compiles ahead of time on any machine and finishes on the GPU. Builds are not
repeatable byte for byte: two of one graph, on one machine, are of one size and differ. So a plan is
kept and named by what made it, never rebuilt to compare hashes.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx

from penstock.bundle import hash_file
from penstock.engine import coverage
from penstock.engine.backend import Built, State, Task
from penstock.engine.memory import peak_memory_mb
from penstock.runtimes import plan, tensorrt
from penstock.runtimes.cuda import NoDevice
from penstock.runtimes.plan import Here, PlanManifest, Shapes
from penstock.runtimes.tensorrt import Message, NotInstalled, TensorRTModel

WARNING = 2

CHANGES_MEANING = ("Defaulting to INT8",)
"""Warnings after which the engine computes something else than the graph says."""

ALWAYS_SAID = "catchCudaError"
"""In an error that goes with every other one on a machine without a driver, and explains none."""

OLDEST = (8, 0)
"""Compute capability: TensorRT-RTX has no int8 for older ones."""


class _Stopped(RuntimeError):
    """The build cannot go on. The text is the reason."""


class TensorRT:
    """Builds with whichever of the two libraries the task names."""

    def build(self, task: Task) -> Built:
        """Build the plan, check that it is int8 where the graph is, and run it on the GPU."""
        here = tensorrt.here(task.backend)
        heard: list[Message] = []
        try:
            if task.backend == "tensorrt" and here.gpu is None:
                raise _Stopped("TensorRT times kernels on the GPU, and this machine has none")
            manifest = _plan(task, here, heard)
            found = _coverage(task, manifest, heard)
        except (_Stopped, NotInstalled, coverage.NoLayerTable) as e:
            return Built(name=task.backend, state=State.NOT_BUILT, reason=str(e))
        finally:
            _keep_log(task, heard)
        layers = found.to_dict()
        if found.problem:
            # A plan that computes otherwise than the graph says must not be found by anybody.
            task.file("plan").unlink()
            task.file("plan.json").unlink()
            reason = found.problem
            return Built(
                name=task.backend, state=State.NOT_BUILT, reason=reason, int8_layers=layers
            )
        return _run(task, manifest, layers)


def _plan(task: Task, here: Here, heard: list[Message]) -> PlanManifest:
    """Build the plan, write it with its manifest, and return that."""
    began = time.perf_counter()
    trt = tensorrt.library(task.backend)
    logger = tensorrt.listening(trt, heard.append)
    builder = trt.Builder(logger)
    network = builder.create_network(_creation_flags(trt))
    _parse(trt, network, logger, task, heard)
    config = builder.create_builder_config()
    profiles = _configure(trt, builder, config, network, task)
    runs_on = _targets(trt, config, task, here)
    cache = _take_cache(config, task)
    made = builder.build_serialized_network(network, config)
    if made is None:
        raise _Stopped(f"the builder refused: {_last_error(heard)}")
    data = bytes(made)
    task.file("plan").write_bytes(data)
    manifest = PlanManifest(
        backend=task.backend,
        version=str(trt.__version__),
        platform=here.platform,
        cuda=tensorrt.made_for_cuda(task.backend),
        driver=here.driver,
        gpu=here.gpu,
        compute_capability=here.compute_capability,
        runs_on=runs_on,
        plan=plan.hash_bytes(data),
        onnx=hash_file(task.onnx),
        timing_cache=_keep_cache(cache, task),
        profiles=profiles,
        precision="int8",
        version_compatible=task.version_compatible,
        hardware_compatibility=task.hardware_compatibility,
        peak_memory_mb=peak_memory_mb(),
        build_s=time.perf_counter() - began,
    )
    plan.write(task.file("plan.json"), manifest)
    return manifest


def _creation_flags(trt: Any) -> int:
    """Return the flag for strong typing where it is a choice; TensorRT 11 knows nothing else."""
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if typed is None else 1 << int(typed)


def _parse(trt: Any, network: Any, logger: Any, task: Task, heard: list[Message]) -> None:
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(task.onnx)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        # The innermost error comes first and names the cause; the others say who passed it on.
        said = f"{errors[0].node_name()}: {_one_line(errors[0].desc())}" if errors else ""
        raise _Stopped(f"the parser refused {task.onnx.name}: {said or _last_error(heard)}")
    for message in heard:
        if message.severity == WARNING and any(w in message.text for w in CHANGES_MEANING):
            raise _Stopped(f"the parser would compute something else: {message.text}")


def _configure(trt: Any, builder: Any, config: Any, network: Any, task: Task) -> dict[str, Shapes]:
    """Set what the declaration asks for; return the optimization profile."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # TF32 rounds what the graph says is float32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if task.version_compatible:
        config.set_flag(_member(trt.BuilderFlag, "VERSION_COMPATIBLE"))
    if task.hardware_compatibility != "none":
        level = _member(trt.HardwareCompatibilityLevel, task.hardware_compatibility.upper())
        config.hardware_compatibility_level = level
    profile = builder.create_optimization_profile()
    shapes = {}
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shapes[str(tensor.name)] = _shapes(task, str(tensor.name), tuple(tensor.shape))
        profile.set_shape(tensor.name, *shapes[str(tensor.name)])
    config.add_optimization_profile(profile)
    return shapes


def _shapes(task: Task, name: str, shape: tuple[int, ...]) -> Shapes:
    """Return an input's smallest, usual and largest shape; only the batch may be open."""
    if shape[:1] != (-1,) or -1 in shape[1:]:
        raise _Stopped(f"input {name!r} is {shape}; an open first axis, and no other, is wanted")
    small, usual, large = ((size, *shape[1:]) for size in task.batches)
    return small, usual, large


def _member(enumeration: Any, name: str) -> Any:
    found = getattr(enumeration, name, None)
    if found is None:
        raise _Stopped(f"this version has no {enumeration.__name__}.{name}; do not declare it")
    return found


def _targets(trt: Any, config: Any, task: Task, here: Here) -> tuple[str, ...]:
    """Say which GPUs the plan is for; return their compute capabilities."""
    if task.backend == "tensorrt":
        if task.hardware_compatibility == "ampere_plus":
            return ("8.0+",)
        return (here.compute_capability or "unknown",)
    known = {_capability(name): m for name, m in trt.ComputeCapability.__members__.items()}
    chosen = sorted(c for c in known if c is not None and c >= OLDEST)
    config.num_compute_capabilities = len(chosen)
    for i, capability in enumerate(chosen):
        config.set_compute_capability(known[capability], i)
    return tuple(f"{major}.{minor}" for major, minor in chosen)


def _capability(name: str) -> tuple[int, int] | None:
    """Return the compute capability in a name, None where it is none.

    >>> _capability("SM120"), _capability("CURRENT")
    ((12, 0), None)
    """
    digits = name.removeprefix("SM")
    return (int(digits[:-1]), int(digits[-1])) if digits.isdigit() else None


def _take_cache(config: Any, task: Task) -> Any:
    """Give the builder the timings of earlier builds; TensorRT-RTX times nothing."""
    if task.backend != "tensorrt":
        return None
    kept = task.timing_cache
    held = kept.read_bytes() if kept is not None and kept.exists() else b""
    cache = config.create_timing_cache(held)
    # Timings of another GPU would choose its kernels, so a mismatch starts an empty cache.
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _keep_cache(cache: Any, task: Task) -> str | None:
    """Write the timings beside the plan, and for the next build; return their hash."""
    if cache is None:
        return None
    data = bytes(cache.serialize())
    task.file("timing").write_bytes(data)
    if task.timing_cache is not None:
        task.timing_cache.parent.mkdir(parents=True, exist_ok=True)
        part = task.timing_cache.with_suffix(".part")
        part.write_bytes(data)
        part.replace(task.timing_cache)
    return plan.hash_bytes(data)


def _coverage(task: Task, manifest: PlanManifest, heard: list[Message]) -> coverage.Coverage:
    """Return what became of the layers: from the build log, else from the loaded engine."""
    rows = coverage.rows_of_log(m.text for m in heard)
    if not rows and manifest.gpu is not None:
        try:
            loaded = TensorRTModel(task.file("plan"), manifest, onnx=hash_file(task.onnx))
        except (NoDevice, ValueError) as e:
            raise _Stopped(f"no log tells its layers, and it does not load: {e}") from e
        rows = coverage.rows_of_inspector(loaded.layers())
    return coverage.cover(onnx.load(task.onnx), rows)


def _run(task: Task, manifest: PlanManifest, layers: dict[str, Any]) -> Built:
    """Run the plan on the golden inputs, if this machine may."""
    reason = None
    try:
        model = TensorRTModel(task.file("plan"), manifest, onnx=hash_file(task.onnx))
        np.save(task.file("npy"), model.run(np.load(task.golden)["inputs"]))
    except (NoDevice, ValueError) as e:
        reason = str(e).rstrip(".")
    return Built(
        name=task.backend,
        state=State.BUILT if reason else State.RUN,
        reason=reason,
        manifest=asdict(manifest),
        int8_layers=layers,
    )


def _keep_log(task: Task, heard: list[Message]) -> None:
    if not heard:
        return
    lines = [f"[{m.severity}] {m.text}\n" for m in heard]
    task.file("log").write_text("".join(lines), encoding="utf-8")


def _last_error(heard: list[Message]) -> str:
    errors = [m.text for m in heard if m.severity < WARNING and ALWAYS_SAID not in m.text]
    return errors[-1] if errors else "it gave no reason"


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if ALWAYS_SAID not in line]
    return "; ".join(lines)[:400]
