"""Laws of export: the graph is the network, or there is no graph."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from penstock.export import graph
from penstock.export.step import contract
from penstock.runtimes.onnxruntime import OnnxModel
from penstock.workload import Export, load_network
from tests import bundles
from workloads.digits.model import build

IMAGES = bundles.images(40)
SETTINGS = Export(opset=20, ir_version=10, max_abs_error=1e-4)
SLICES = {"early": np.arange(40) < 10, "late": np.arange(40) >= 10, "none": np.zeros(40, bool)}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """An untrained network in evaluation mode."""
    torch.manual_seed(7)
    return build(classes=10).eval()


def wrong(network: torch.nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    """Export another network than the one asked for, as a faulty exporter would."""
    torch.manual_seed(8)
    graph._dynamo(build(classes=10).eval(), example, path, opset)


def broken(network: torch.nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    """Fail as an exporter does on an operation it does not know."""
    raise NotImplementedError("operator aten::foo is not known")


def test_the_graph_computes_what_the_network_computes(network: torch.nn.Module, tmp_path: Path):
    """On real inputs, at any batch size, the graph's logits are the network's."""
    made = graph.export(network, IMAGES, tmp_path / "m.onnx", settings=SETTINGS, slices=SLICES)

    with torch.no_grad():
        wanted = network(torch.tensor(IMAGES)).numpy()
    runtime = OnnxModel(tmp_path / "m.onnx")
    for size in (1, 3, 40):
        np.testing.assert_allclose(runtime.run(IMAGES[:size]), wanted[:size], atol=1e-4)
    assert (made.exporter, made.fallback_reason, made.opset) == ("dynamo", None, 20)


@pytest.mark.parametrize(("first", "reason"), [(wrong, "differs by"), (broken, "aten::foo")])
def test_a_wrong_graph_falls_back_with_its_reason(
    network: torch.nn.Module, tmp_path: Path, first: object, reason: str
):
    """An exporter that is wrong or fails is replaced by the next, and the reason is kept."""
    made = graph.export(
        network,
        IMAGES,
        tmp_path / "m.onnx",
        settings=SETTINGS,
        slices=SLICES,
        exporters={"first": first, "second": graph._dynamo},  # pyright: ignore[reportArgumentType]
    )

    assert made.exporter == "second"
    assert made.fallback_reason is not None
    assert reason in made.fallback_reason


def test_without_a_right_graph_there_is_none(network: torch.nn.Module, tmp_path: Path):
    """When every exporter is wrong, nothing is left that could be served."""
    with pytest.raises(graph.ExportError, match="no exporter"):
        graph.export(
            network,
            IMAGES,
            tmp_path / "m.onnx",
            settings=SETTINGS,
            slices=SLICES,
            exporters={"only": wrong},
        )

    assert list(tmp_path.iterdir()) == []


def test_a_network_in_training_mode_is_refused(tmp_path: Path):
    """Exporting in training mode would silently export something else."""
    with pytest.raises(graph.ExportError, match="training mode"):
        graph.export(
            build(classes=10), IMAGES, tmp_path / "m.onnx", settings=SETTINGS, slices=SLICES
        )


def test_the_older_exporter_is_right_too(network: torch.nn.Module, tmp_path: Path):
    """The fallback is a real way out, not only a name."""
    made = graph.export(
        network,
        IMAGES,
        tmp_path / "m.onnx",
        settings=SETTINGS,
        slices=SLICES,
        exporters={"torchscript": graph._torchscript},
    )

    assert made.exporter == "torchscript"


def test_a_graph_does_not_say_where_it_was_made(network: torch.nn.Module, tmp_path: Path):
    """Two checkouts give the same bytes; the modules that nodes come from stay known."""
    path = tmp_path / "model.onnx"
    made = graph.export(network, IMAGES, path, settings=SETTINGS, slices=SLICES)

    assert made.exporter == "dynamo"
    assert b"site-packages" not in path.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()
    keys = {p.key for node in onnx.load(path).graph.node for p in node.metadata_props}
    assert any(key.endswith("name_scopes") for key in keys)


def test_properties_travel_inside_the_graph(network: torch.nn.Module, tmp_path: Path):
    """A graph carries where it came from, and still runs."""
    path = tmp_path / "m.onnx"
    graph.export(network, IMAGES, path, settings=SETTINGS, slices=SLICES)

    graph.describe(path, {"penstock.model": "digits-1", "penstock.input": json.dumps({"n": 1})})

    held: Iterator[onnx.StringStringEntryProto] = iter(onnx.load(path).metadata_props)
    assert {p.key: p.value for p in held}["penstock.model"] == "digits-1"
    assert OnnxModel(path).run(IMAGES[:1]).shape == (1, 10)


def test_every_slice_is_held_against_the_network(network: torch.nn.Module, tmp_path: Path):
    """The largest difference of the whole is that of one of the slices that cover it."""
    made = graph.export(network, IMAGES, tmp_path / "m.onnx", settings=SETTINGS, slices=SLICES)

    assert set(made.by_slice) == {"early", "late"}
    assert max(made.by_slice.values()) == made.max_abs_error


def test_a_graph_that_is_wrong_at_the_end_of_a_large_holdout_is_refused(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All rows are tried, not only those of the first batch."""

    class WrongLater(OnnxModel):
        def run(self, x_n: np.ndarray) -> np.ndarray:
            found = super().run(x_n).copy()
            found[(x_n == IMAGES[39]).all(axis=(1, 2, 3))] = np.nan
            return found

    monkeypatch.setattr(graph, "OnnxModel", WrongLater)
    monkeypatch.setattr(graph, "AT_ONCE", 16)
    with pytest.raises(graph.ExportError, match="differs by inf"):
        graph.export(network, IMAGES, tmp_path / "m.onnx", settings=SETTINGS, slices=SLICES)


@pytest.mark.parametrize("ir_version", [9, 10])
def test_opset_and_file_format_are_the_declared_ones(
    network: torch.nn.Module, tmp_path: Path, ir_version: int
):
    """What the serving runtime loads, whatever the exporter would write today."""
    settings = replace(SETTINGS, ir_version=ir_version)
    made = graph.export(network, IMAGES, tmp_path / "m.onnx", settings=settings, slices=SLICES)

    held = onnx.load(tmp_path / "m.onnx")
    assert (held.ir_version, made.ir_version) == (ir_version, ir_version)
    assert [o.version for o in held.opset_import if o.domain == ""] == [20]


def test_an_opset_that_was_not_written_is_not_believed(network: torch.nn.Module, tmp_path: Path):
    """An exporter may leave another and only log it."""

    def other(network: torch.nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
        graph._dynamo(network, example, path, 19)

    with pytest.raises(graph.ExportError, match="opset 20 was asked for, 19 was written"):
        graph.export(
            network, IMAGES, tmp_path / "m.onnx", settings=SETTINGS, slices=SLICES,
            exporters={"other": other},
        )  # fmt: skip


def test_the_contract_names_the_columns_in_their_order():
    """And is refused where the names are not those of the row."""
    declared = load_network("digits")

    assert contract(declared, (2,), ("b", "a"))["features"] == ["b", "a"]
    assert contract(declared, (1, 8, 8), None)["input"]["shape"] == ["batch", 1, 8, 8]
    with pytest.raises(ValueError, match=r"names 2 features and packs rows of shape \(3,\)"):
        contract(declared, (3,), ("b", "a"))
