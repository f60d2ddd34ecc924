"""Measure one artifact in a fresh process, beside raw ONNX Runtime in the same seconds.

    python -m penstock.engine.measure '<what to measure as JSON>'

The last line of its output is the figures as JSON. Its imports are what is measured first, so they
are inside functions here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FIRST_ANSWERS = 120
"""Answers from the first on, by which warm-up is told."""

WARM_UP_S = 1.0
"""No more seconds than this for them, once there are enough to tell."""

BATCH_S = 0.35
"""Seconds for each batch size, shared by what is measured beside each other."""

FEWEST, MOST = 12, 2000
"""Answers of each for one batch size."""

Answer = Callable[[Any], Any]

CORES = 1
"""Threads that run the artifact, here and where it serves."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to measure."""

    artifact: str
    """Path of a graph or of a plan, whose manifest lies beside it as ``.plan.json``."""

    backend: str
    """``onnxruntime`` and its siblings, ``tensorrt`` or ``tensorrt-rtx``."""

    floor: str
    """Path of the graph that raw ONNX Runtime runs; of a plan, the one that it must be made of."""

    beside: str | None
    """Path of another graph to run by turns with the artifact, by the same runtime as ours."""

    golden: str
    batches: tuple[int, ...]


def main() -> None:
    """Measure what the first argument asks for."""
    asked = Asked(**json.loads(sys.argv[1]))
    print(json.dumps(figures(asked), allow_nan=False))


def figures(asked: Asked) -> dict[str, Any]:
    """Return what the artifact costs; the memory is this process's, so call it in a fresh one."""
    began = time.perf_counter()
    load = loader(asked)
    imported = time.perf_counter()
    model = load()
    loaded = time.perf_counter()
    # numpy came with the runtime.
    import numpy as np  # noqa: PLC0415

    with np.load(asked.golden) as golden:
        inputs_n = golden["inputs"]
    of = {size: batch(inputs_n, size) for size in asked.batches}
    warm = warm_up(model.run, of[asked.batches[0]])
    model.run(of[asked.batches[-1]])
    peak = _peak(model)
    by_turns: dict[str, Answer] = {"own": model.run, "floor": raw(Path(asked.floor))}
    if asked.beside:
        by_turns["beside"] = onnx_model(Path(asked.beside)).run
    taken = {size: timed(by_turns, of[size]) for size in asked.batches}
    return {
        "import_s": imported - began,
        "load_s": loaded - imported,
        "cold_start_s": loaded - began + warm["first_ms"] / 1e3,
        **warm,
        **peak,
        "cores": CORES,
        "batches": [{"batch": size, **figured(taken[size], size)} for size in asked.batches],
    }


def loader(asked: Asked) -> Callable[[], Any]:
    """Import what runs the artifact; return what loads it."""
    path = Path(asked.artifact)
    if path.suffix == ".plan":
        from penstock.bundle import hash_file  # noqa: PLC0415 - the import is measured
        from penstock.runtimes import plan, tensorrt  # noqa: PLC0415

        manifest = plan.read(path.with_suffix(".plan.json"))
        tensorrt.library(manifest.backend)
        graph = Path(asked.floor)
        return lambda: tensorrt.TensorRTModel(path, manifest, onnx=hash_file(graph))
    from penstock.engine.backend import ONNXRUNTIME  # noqa: PLC0415
    from penstock.engine.onnxruntime import options  # noqa: PLC0415
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415

    provider = ONNXRUNTIME[asked.backend]
    told = options(provider)
    return lambda: OnnxModel(path, provider=provider, provider_options=told)


def onnx_model(path: Path) -> Any:
    """Return a graph loaded as the serving predictor loads it."""
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - not for a plan alone

    return OnnxModel(path)


def raw(path: Path) -> Answer:
    """Return ONNX Runtime with its own defaults but for one thread, which ours has too."""
    from penstock.runtimes.onnxruntime import raw_session  # noqa: PLC0415 - as above

    return raw_session(path, threads=1)


def batch(inputs_n: Any, size: int) -> Any:
    """Return inputs [size, ...]: the first ones, from the start again where they do not suffice."""
    import numpy as np  # noqa: PLC0415 - loaded with the runtime

    return np.ascontiguousarray(inputs_n[np.arange(size) % len(inputs_n)])


def warm_up(answer: Answer, inputs_b: Any) -> dict[str, Any]:
    """Return the first answer's milliseconds, and when latency settled, which may be never."""
    from penstock.runtimes.warmth import WINDOW, settled_at  # noqa: PLC0415 - numpy comes with it

    taken: list[float] = []
    while len(taken) < 2 * WINDOW or (len(taken) < FIRST_ANSWERS and sum(taken) < WARM_UP_S):
        taken.append(_seconds(answer, inputs_b))
    at = settled_at(taken)
    return {
        "first_ms": taken[0] * 1e3,
        "settled_at": at,
        "warm_up_s": None if at is None else sum(taken[:at]),
        "first_answers": len(taken),
    }


def timed(by_turns: Mapping[str, Answer], inputs_b: Any) -> dict[str, list[float]]:
    """Return seconds of each, taken by turns, so that what slows the machine slows all."""
    taken: dict[str, list[float]] = {name: [] for name in by_turns}
    for answer in by_turns.values():
        answer(inputs_b)
    end = time.perf_counter() + BATCH_S
    rounds = 0
    while rounds < FEWEST or (rounds < MOST and time.perf_counter() < end):
        for name, answer in by_turns.items():
            taken[name].append(_seconds(answer, inputs_b))
        rounds += 1
    return taken


def figured(taken: Mapping[str, list[float]], size: int) -> dict[str, Any]:
    """Return the figures of one batch size; with under 100 answers, p99 is the slowest."""
    import numpy as np  # noqa: PLC0415 - loaded with the runtime

    ms = {name: np.asarray(seconds) * 1e3 for name, seconds in taken.items()}
    median = {name: float(np.median(values)) for name, values in ms.items()}
    found: dict[str, Any] = {
        "answers": len(ms["own"]),
        "latency_p50_ms": median["own"],
        "latency_p99_ms": float(np.quantile(ms["own"], 0.99, method="higher")),
        "floor_p50_ms": median["floor"],
        "floor_p99_ms": float(np.quantile(ms["floor"], 0.99, method="higher")),
        "to_floor": median["own"] / median["floor"],
        "throughput_per_s": size / median["own"] * 1e3,
    }
    if "beside" in ms:
        found |= {"beside_p50_ms": median["beside"], "to_beside": median["own"] / median["beside"]}
    return found


def _seconds(answer: Answer, inputs_b: Any) -> float:
    began = time.perf_counter()
    answer(inputs_b)
    return time.perf_counter() - began


def _peak(model: Any) -> dict[str, float | None]:
    from penstock.engine.memory import peak_memory_mb  # noqa: PLC0415 - after what is measured

    return {
        "peak_memory_mb": peak_memory_mb(),
        "device_memory_mb": getattr(model, "device_memory_mb", None),
    }


def command(asked: Asked) -> list[str]:
    """Return the command that measures in a fresh process."""
    return [sys.executable, "-m", "penstock.engine.measure", json.dumps(asdict(asked))]


if __name__ == "__main__":
    main()
