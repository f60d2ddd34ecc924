"""What each artifact costs to start and to run, measured one after the other on this machine."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.bundle import Bundle
from penstock.engine import measure
from penstock.engine.backend import TENSORRT
from penstock.engine.measure import Asked

SAME_AS_INT8 = "onnxruntime"
"""The engine that is the int8 graph on the CPU: it is measured once, as ``int8``."""

TIMEOUT_S = 600


def measured(
    int8: Bundle, folder: Path, ran: Sequence[str], *, batches: tuple[int, int, int]
) -> dict[str, Any]:
    """Return ``budgets.json``: figures of the fp32 and both int8 graphs, and of engines that ran.

    ``artifacts`` has them by name. Each repeats at its top, for the gate, what holds at the usual
    batch size: ``latency_p50_ms``, ``latency_p99_ms``, and at the largest: ``throughput_per_s``.
    What could not be measured has ``problem`` and no figures, which is no evidence and no pass.

    Args:
        folder: Holds the plans.
        ran: Backends whose engine ran here.
        batches: Smallest, usual and largest batch size.
    """
    # numpy comes with it, whose import the measuring process must not have behind it: this module
    # is loaded there too.
    from penstock.runtimes.warmth import RULE  # noqa: PLC0415

    fp32, graph = int8.file("model.simplified.onnx"), int8.file("model.int8.onnx")
    on_cpu, golden = int8.file("model.int8-cpu.onnx"), int8.file("golden.npz")
    artifacts: dict[str, tuple[Path, str, Path, Path | None]] = {
        "fp32": (fp32, "onnxruntime", fp32, None),
        "int8": (graph, "onnxruntime", graph, fp32),
        "int8-cpu": (on_cpu, "onnxruntime", on_cpu, fp32),
    }
    for name in ran:
        if name != SAME_AS_INT8:
            path = folder / f"{name}.plan" if name in TENSORRT else graph
            artifacts[name] = (path, name, graph, None)
    found = {
        name: _one(
            Asked(
                artifact=str(path),
                backend=backend,
                floor=str(floor),
                beside=None if beside is None else str(beside),
                golden=str(golden),
                batches=batches,
            )
        )
        for name, (path, backend, floor, beside) in artifacts.items()
    }
    processor = cpu()
    return {
        "warm_up_rule": RULE,
        "floor": "raw ONNX Runtime on the CPU with one thread, in the same process and by turns",
        "batches": list(batches),
        "cpu": processor,
        "artifacts": found,
        "int8_on_cpu": int8_on_cpu(
            found["int8-cpu"], found["int8"], vnni=processor["vnni"], usual=batches[1]
        ),
    }


def _one(asked: Asked) -> dict[str, Any]:
    """Return one artifact's figures, or the problem that kept them from being taken."""
    try:
        done = subprocess.run(
            measure.command(asked), capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"not measured within {TIMEOUT_S} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return {"problem": f"measuring ended with {done.returncode}; its last words: {last}"}
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    usual, largest = figures["batches"][1], figures["batches"][2]
    return {
        **figures,
        "latency_p50_ms": usual["latency_p50_ms"],
        "latency_p99_ms": usual["latency_p99_ms"],
        "throughput_per_s": largest["throughput_per_s"],
    }


def int8_on_cpu(
    served: Mapping[str, Any], tensorrt: Mapping[str, Any], *, vnni: bool | None, usual: int
) -> dict[str, Any]:
    """Return whether int8 is slower than fp32 on this CPU, in numbers and in plain words.

    Args:
        served: Figures of the int8 graph for CPUs, with the fp32 graph beside it.
        tensorrt: Those of the int8 graph in TensorRT's form.
        vnni: Whether the CPU multiplies int8 in one instruction; None where it does not tell.
        usual: The batch size that decides.
    """
    has = {True: "has VNNI", False: "has no VNNI", None: "does not tell whether it has VNNI"}[vnni]
    if "problem" in served:
        said = f"int8 was not measured: {served['problem']}; this CPU {has}"
        return {"vnni": vnni, "ratio": None, "ratios": None, "slower": None, "said": said}
    ratios = _ratios(served)
    each = ", ".join(f"{_compared(r)} at {size}" for size, r in ratios.items() if size != usual)
    said = (
        f"int8 in the form for CPUs is {_compared(ratios[usual])} as fp32 at batch {usual} by ONNX "
        f"Runtime here{f' ({each})' if each else ''}; this CPU {has}"
    )
    if "problem" not in tensorrt:
        said += (
            f". The graph in TensorRT's form is {_compared(_ratios(tensorrt)[usual])}, and is not "
            "what serves on a CPU: the outputs of its layers stay float, and ONNX Runtime computes "
            "a convolution in int8 only where its output is int8 as well"
        )
    slower = ratios[usual] > 1
    return {"vnni": vnni, "ratio": ratios[usual], "ratios": ratios, "slower": slower, "said": said}


def _ratios(figures: Mapping[str, Any]) -> dict[int, float]:
    """Return by batch size how many times as long it takes as the fp32 graph beside it."""
    return {b["batch"]: float(b["to_beside"]) for b in figures["batches"]}


def _compared(ratio: float) -> str:
    return f"{ratio:.2f} times as slow" if ratio > 1 else f"{1 / ratio:.2f} times as fast"


def cpu(text: str | None = None) -> dict[str, Any]:
    """Return the processor's name, and whether it has VNNI; None where it does not tell.

    Args:
        text: Of ``/proc/cpuinfo``; read there when None.
    """
    from penstock.runtimes.processor import described, has_vnni  # noqa: PLC0415 - as above

    text = described() if text is None else text
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return {"name": name[1].strip() if name else platform.machine(), "vnni": has_vnni(text)}
