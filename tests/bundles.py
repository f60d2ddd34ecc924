"""Small real bundles that tests of later stages start from."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.bundle import Bundle, Recipe, Summary, hash_file, write, write_json
from workloads.digits import data

if TYPE_CHECKING:
    import torch

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def rows() -> pa.Table:
    """Return every digits row as the features stage joins them, made without Feast."""
    source, labels = data.features(), data.labels()
    held = source.drop_columns(["event_timestamp", "created_timestamp"])
    return pa.table(
        {**{n: labels[n] for n in labels.column_names}, **{n: held[n] for n in held.column_names}}
    )


def bundle(path: Path, kind: str, make: Callable[[Path], None], **inputs: str) -> Bundle:
    """Write a bundle of any kind for the digits workload."""

    def filled(folder: Path) -> Summary:
        make(folder)
        return Summary("pass", "made for a test")

    return write(path, Recipe(kind=kind, workload="digits", inputs=inputs), make=filled, now=NOW)


PROOF = {
    "rows": {"labels": 1797, "joined": 1797},
    "keys": {"labels": "sha256:1", "joined": "sha256:1"},
    "views": [{"view": "capture_ink"}],
    "planted": ["ink_mean"],
    "feature_definitions": "sha256:2",
    "registry": "sha256:3",
}
"""What the training stage asks of a snapshot's proof."""


def snapshot(
    path: Path,
    *,
    train: pa.Table | None = None,
    holdout: pa.Table | None = None,
    proof: object = PROOF,
    online: object = None,
) -> Path:
    """Write a snapshot bundle; the parts default to the real ones."""
    whole = rows()
    train = whole.slice(0, 1197) if train is None else train
    holdout = whole.slice(1197) if holdout is None else holdout

    def make(folder: Path) -> None:
        pq.write_table(train, folder / "train.parquet")
        pq.write_table(holdout, folder / "holdout.parquet")
        if proof is not None:
            write_json(folder / "proof.json", proof)
        if online is not None:
            write_json(folder / "online.json", online)

    return bundle(path, "snapshot", make).path


def verdict(path: Path, kind: str, *, outcome: str = "pass") -> Path:
    """Write a bundle that carries a verdict of one check."""
    check = {"name": "seen", "outcome": outcome, "reason": "made so", "value": None, "limit": None}
    document = {"outcome": outcome, "checks": [check]}
    return bundle(path, kind, lambda f: write_json(f / "verdict.json", document)).path


def replaced(table: pa.Table, name: str, values: object) -> pa.Table:
    """Return a table with one column's values replaced, its type kept where it fits."""
    index = table.schema.get_field_index(name)
    return table.set_column(index, name, pa.array(values))


def images(n: int, *, start: int = 0) -> np.ndarray:
    """Return n real network inputs, shape [n, 1, 8, 8]; the holdout starts at row 1197."""
    from workloads.digits.transform import training_input  # noqa: PLC0415 - keeps imports light

    return training_input(rows().slice(start, n))


def trained(*, epochs: int = 4) -> torch.nn.Module:
    """Return a digits network that has learned enough to be worth comparing, in seconds."""
    import torch  # noqa: PLC0415 - seconds to import

    from workloads.digits.model import build  # noqa: PLC0415

    torch.manual_seed(7)
    network = build(classes=10).train()
    inputs, labels = torch.tensor(images(1197)), torch.tensor(rows()["label"].to_numpy()[:1197])
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.05)
    for _ in range(epochs):
        for batch in torch.randperm(1197).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return network.eval()


def export(network: torch.nn.Module, example_n: np.ndarray, path: Path) -> Path:
    """Write a network's graph with torch's older exporter, which takes a second."""
    import torch  # noqa: PLC0415 - seconds to import

    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.float(),
            (torch.tensor(example_n[:2]),),
            str(path),
            dynamo=False,
            input_names=["inputs"],
            output_names=["logits"],
            dynamic_axes={"inputs": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=20,
        )
    return path


def quantize(source: Path, folder: Path, inputs_n: np.ndarray) -> None:
    """Write the simplified graph and both int8 graphs, ranges from these inputs."""
    import onnx  # noqa: PLC0415 - seconds to import

    from penstock.quantize import cpu, graph, simplify  # noqa: PLC0415
    from penstock.runtimes.layers import with_outputs  # noqa: PLC0415
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415

    model = simplify.simplify(source, folder / "model.simplified.onnx")
    names = [n for n in graph.tensors(graph.layers(model)) if n != model.graph.input[0].name]
    copied = onnx.load(folder / "model.simplified.onnx")
    found = OnnxModel.tensors(with_outputs(copied, names), names, inputs_n)
    ranges = {n: float(np.abs(v).max()) for n, v in zip(names, found, strict=True)}
    ranges[model.graph.input[0].name] = float(np.abs(inputs_n).max())
    onnx.save(graph.quantize(model, ranges), folder / "model.int8.onnx")
    on_cpu = cpu.quantize(model, cpu.observe(model, inputs_n), ranges)
    onnx.save(on_cpu, folder / "model.int8-cpu.onnx")


def golden(
    folder: Path, inputs_n: np.ndarray, labels_n: np.ndarray, slices: Mapping[str, np.ndarray]
) -> None:
    """Write the golden rows of the graphs in a folder, as the quantize stage does."""
    from penstock.quantize import golden as files  # noqa: PLC0415 - seconds to import
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415

    files.write(
        folder / "golden.npz",
        inputs_n=inputs_n,
        labels_n=labels_n,
        reference_nk=OnnxModel(folder / "model.simplified.onnx", reference=True).run(inputs_n),
        int8_nk=OnnxModel(folder / "model.int8.onnx", reference=True).run(inputs_n),
        slices=slices,
    )


def backend(name: str, state: str, reason: str | None = None) -> dict[str, Any]:
    """Return what ``engine.json`` says of one backend."""
    return {"name": name, "state": state, "reason": reason, "manifest": None, "int8_layers": None}


def engine(
    path: Path, int8: Path, outputs: Mapping[str, np.ndarray], *others: dict[str, Any]
) -> Path:
    """Write an engine bundle: what each backend that ran gave on golden rows, and the others."""

    def make(folder: Path) -> None:
        for name, logits_nk in outputs.items():
            np.save(folder / f"{name}.npy", logits_nk.astype(np.float32))
        backends = [*(backend(name, "run") for name in outputs), *others]
        made_from = {
            "onnx": hash_file(int8 / "model.int8.onnx"),
            "golden": hash_file(int8 / "golden.npz"),
        }
        write_json(folder / "engine.json", {"backends": backends, **made_from})

    return bundle(path, "engine", make).path
