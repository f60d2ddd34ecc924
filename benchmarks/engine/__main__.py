"""Measure torch, ONNX Runtime and engines on one network, by turns, in one run.

    .venv/bin/python -m benchmarks.engine
    .venv/bin/python -m benchmarks.engine --network resnet50 --batches 1 8 64 --json engine.json

One CPU thread for all; times hold the copies to and from a GPU, as a server pays them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from penstock import machine
from penstock.bundle import hash_file
from penstock.engine import isolated
from penstock.engine.backend import KNOWN, TENSORRT, Built, State, Task
from penstock.engine.budgets import cpu
from penstock.engine.measure import batch, timed

NETWORKS = {"digits": (1, 8, 8), "resnet50": (3, 224, 224)}
"""Shape of one input of each. The first is for accuracy; the second is large enough for speed."""

CLASSES = 10
EXAMPLES = 64
Answer = Callable[[Any], Any]


def network(name: str) -> Any:
    """Return an untrained network: its speed is that of a trained one."""
    import torch

    torch.manual_seed(7)
    if name == "digits":
        from workloads.digits.model import build

        return build(classes=CLASSES).eval()
    from torchvision.models import resnet50

    return resnet50(weights=None, num_classes=CLASSES).eval()


def graphs(name: str, folder: Path, *, largest: int) -> np.ndarray:
    """Write the fp32 graph, both int8 graphs and golden inputs; return the inputs [n, ...]."""
    import onnx
    import torch

    from penstock.quantize import cpu as cpu_form
    from penstock.quantize import graph
    from penstock.quantize.ranges import observe
    from penstock.quantize.simplify import simplify

    inputs_n = np.random.default_rng(5).normal(0, 1, (EXAMPLES, *NETWORKS[name]))
    inputs_n = inputs_n.astype(np.float32)
    open_batch = {0: torch.export.Dim("n", min=1, max=max(largest, EXAMPLES))}
    with warnings.catch_warnings():
        # The exporter's own, of libraries that it uses.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network(name),
            (torch.tensor(inputs_n[:2]),),
            folder / "exported.onnx",
            dynamo=True,
            dynamic_shapes=(open_batch,),
            external_data=False,
            verbose=False,
        )
    model = simplify(folder / "exported.onnx", folder / "fp32.onnx")
    names = graph.tensors(graph.layers(model))
    ranges = {n: seen.amax for n, seen in observe(model, names, inputs_n[:16]).items()}
    onnx.save(graph.quantize(model, ranges), folder / "int8.onnx")
    served = cpu_form.quantize(model, cpu_form.observe(model, inputs_n[:16]), ranges)
    onnx.save(served, folder / "int8-cpu.onnx")
    np.savez(folder / "golden.npz", inputs=inputs_n)
    return inputs_n


def engines(folder: Path, batches: tuple[int, int, int]) -> list[Built]:
    """Return what every backend came to on the int8 graph."""
    tasks = [
        Task(
            backend=name,
            onnx=folder / "int8.onnx",
            golden=folder / "golden.npz",
            folder=folder,
            batches=batches,
            version_compatible=False,
            hardware_compatibility="none",
        )
        for name in KNOWN
    ]
    return [isolated.built(task) for task in track(tasks, description="engines")]


def ways(name: str, folder: Path, built: list[Built]) -> dict[str, Answer]:
    """Return every way to answer that this machine has."""
    from penstock.engine.backend import ONNXRUNTIME
    from penstock.engine.onnxruntime import options
    from penstock.runtimes import plan
    from penstock.runtimes.onnxruntime import OnnxModel
    from penstock.runtimes.tensorrt import TensorRTModel

    found = torches(name)
    found["onnxruntime fp32"] = OnnxModel(folder / "fp32.onnx").run
    found["onnxruntime int8-cpu"] = OnnxModel(folder / "int8-cpu.onnx").run
    for engine in built:
        if engine.state is not State.RUN:
            continue
        if engine.name in TENSORRT:
            manifest = plan.read(folder / f"{engine.name}.plan.json")
            model = TensorRTModel(
                folder / f"{engine.name}.plan", manifest, onnx=hash_file(folder / "int8.onnx")
            )
        else:
            provider = ONNXRUNTIME[engine.name]
            told = options(provider)
            model = OnnxModel(folder / "int8.onnx", provider=provider, provider_options=told)
        found[f"{engine.name} int8"] = model.run
    return found


def torches(name: str) -> dict[str, Answer]:
    """Return eager torch in fp32 on the CPU, and on the GPU where there is one."""
    import torch

    torch.set_num_threads(1)

    def on(device: str) -> Answer:
        model = network(name).to(device)

        def answer(x_n: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return model(torch.from_numpy(x_n).to(device)).cpu().numpy()

        return answer

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return {f"torch fp32 {device}": on(device) for device in devices}


def measured(
    answers: dict[str, Answer], inputs_n: np.ndarray, batches: tuple[int, int, int]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return figures by way and batch size; what slows the machine slows every way."""
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in answers}
    for size in track(batches, description="batch sizes"):
        taken = timed(answers, batch(inputs_n, size))
        for name, seconds in taken.items():
            median = float(np.median(seconds))
            found[name][str(size)] = {
                "p50_ms": median * 1e3,
                "p99_ms": float(np.quantile(seconds, 0.99, method="higher")) * 1e3,
                "per_s": size / median,
                "answers": len(seconds),
            }
    return found


def shown(found: dict[str, dict[str, dict[str, float]]]) -> Table:
    """Return the figures as a table, each beside ONNX Runtime in fp32."""
    table = Table("way", "batch", "p50 ms", "p99 ms", "per second", "to onnxruntime fp32")
    floor = found["onnxruntime fp32"]
    for name, by_size in found.items():
        for size, figures in by_size.items():
            table.add_row(
                name,
                size,
                f"{figures['p50_ms']:.3f}",
                f"{figures['p99_ms']:.3f}",
                f"{figures['per_s']:,.0f}",
                f"{figures['p50_ms'] / floor[size]['p50_ms']:.2f}",
            )
    return table


def main() -> None:
    """Measure, and print a table with ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, default="digits")
    parser.add_argument("--batches", type=int, nargs=3, default=(1, 8, 64))
    parser.add_argument("--json", type=Path, help="where to write every figure")
    asked = parser.parse_args()
    small, usual, large = asked.batches
    batches = (small, usual, large)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        folder = Path(scratch)
        inputs_n = graphs(asked.network, folder, largest=large)
        built = engines(folder, batches)
        found = measured(ways(asked.network, folder, built), inputs_n, batches)
    device = machine.gpu()
    console.print(f"{asked.network} on {cpu()['name']}, GPU: {device['gpu'] or 'none'}")
    console.print(shown(found))
    for engine in built:
        console.print(engine.said)
    if asked.json:
        said = [{"name": b.name, "state": str(b.state), "reason": b.reason} for b in built]
        held = {"network": asked.network, "cpu": cpu(), **device, "engines": said, "ways": found}
        asked.json.write_text(json.dumps(held, indent=2) + "\n")


if __name__ == "__main__":
    main()
