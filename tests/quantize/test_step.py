"""Laws of the stage: what its bundle holds, and what nothing in it was chosen on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import helper

from penstock import quantize
from penstock.bundle import Bundle, hash_file, read
from penstock.quantize import step
from penstock.runtimes.onnxruntime import OnnxModel
from penstock.stage import Refused
from penstock.workload import Limits, Rung, served_graph
from tests import bundles
from tests.quantize import graphs
from workloads.digits.workload import WORKLOAD

ROWS = bundles.rows()
CHOSEN = (
    "model.simplified.onnx", "model.int8.onnx", "model.int8-cpu.onnx", "calibration.json",
    "sensitivity.json",
)  # fmt: skip


def graph_bundle(folder: Path, source: Path) -> Path:
    """Write the bundle of an exported graph."""
    return bundles.bundle(
        folder / "onnx", "onnx", lambda f: shutil.copy(source, f / "model.onnx") and None
    ).path


def quantized(folder: Path, source: Path, **snapshot: pa.Table) -> Bundle:
    """Run the stage on digits rows."""
    given = {"train": ROWS.slice(0, 400), "holdout": ROWS.slice(1197, 120), **snapshot}
    quantize.run(
        workload="digits",
        snapshot=bundles.snapshot(folder / "snapshot", **given),
        onnx=graph_bundle(folder, source),
        out=folder / "int8",
        now=bundles.NOW,
    )
    return read(folder / "int8", kind="int8")


@pytest.fixture(scope="module")
def made(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of a digits network."""
    return quantized(tmp_path_factory.mktemp("quantize"), exported)


def test_the_bundle_says_what_it_holds(made: Bundle):
    """Counts, the calibrator, what stays in float, and the hash by which engines name the graph."""
    said = made.json("quantize.json")
    tried = made.json("calibration.json")["tried"]

    assert said == {
        "weighted": 13,
        "int8": 13,
        "problems": [],
        "examples": 320,
        "calibrator": made.json("calibration.json")["method"],
        "float_layers": [],
        "onnx": hash_file(made.file("model.int8.onnx")),
        "cpu": {
            "file": "model.int8-cpu.onnx",
            "sha256": hash_file(made.file("model.int8-cpu.onnx")),
            "float_layers": made.json("sensitivity.json")["cpu"]["float_layers"],
        },
    }
    assert made.summary.outcome == "pass"
    assert [t["method"] for t in tried] == ["minmax", "percentile", "entropy"]
    assert len(made.json("sensitivity.json")["layers"]) == 13


def test_what_serves_is_in_the_bundle(made: Bundle):
    """Under the name by which the gate scores it and the package holds it."""
    assert served_graph(WORKLOAD) == made.json("quantize.json")["cpu"]["file"]
    assert made.file(served_graph(WORKLOAD)).stat().st_size > 0


def test_layers_that_stay_in_float_do_so_in_both_forms(exported: Path, tmp_path: Path):
    """What the fallback found holds for the layers, whatever computes them."""
    _, folder = missed(tmp_path, exported, max_float_layers=2)
    kept = json.loads((folder / "quantize.json").read_text())["float_layers"]

    assert len(kept) == 2
    for name in ("model.int8.onnx", "model.int8-cpu.onnx"):
        model = onnx.load(folder / name)
        rounded = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
        layers = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
        assert {n.name for n in layers if n.input[1] not in rounded} == {*kept}


def test_the_form_for_cpus_has_a_fallback_of_its_own(made: Bundle):
    """TensorRT's form keeps the tolerance with every layer in int8; this one, here, does not."""
    said, found = made.json("quantize.json"), made.json("sensitivity.json")
    kept = said["cpu"]["float_layers"]

    assert (said["float_layers"], len(kept)) == ([], 1)
    assert found["cpu"]["float_layers"] == kept == [step["layer"] for step in found["cpu"]["steps"]]
    assert "was beyond its limit" in found["cpu"]["why"][kept[0]]
    assert not found["cpu"]["failing"]
    assert f"on a CPU also in float: {kept[0]}" in made.summary.line


def test_a_form_for_cpus_that_cannot_keep_the_tolerance_fails(exported: Path, tmp_path: Path):
    """It is what serves; that engines would be right does not help it."""
    summary, folder = worked(tmp_path, exported, WORKLOAD.equivalence.int8, max_float_layers=0)

    assert summary.outcome == "fail"
    assert "; on a CPU int8 all metric drop is beyond its limit by" in summary.line
    assert not json.loads((folder / "sensitivity.json").read_text())["failing"]


def test_each_tensor_has_its_range_by_each_calibrator(made: Bundle):
    """And the share of values beyond it; minmax leaves none."""
    held = made.json("calibration.json")

    assert held["inputs"].startswith("sha256:")
    assert len(held["tensors"]) == 13
    for tensor in held["tensors"].values():
        assert 0 < tensor["threshold"]["percentile"] <= tensor["threshold"]["minmax"]
        assert tensor["saturated"]["minmax"] == 0 <= tensor["saturated"]["percentile"] <= 1e-4


def test_golden_examples_are_what_the_graphs_say(made: Bundle):
    """Of holdout rows, with a mask for each class."""
    with np.load(made.file("golden.npz")) as held:
        golden = dict(held)

    np.testing.assert_array_equal(golden["inputs"], bundles.images(120, start=1197))
    np.testing.assert_array_equal(golden["labels"], ROWS["label"].to_numpy()[1197:1317])
    for name, file in (("reference", "model.simplified.onnx"), ("int8", "model.int8.onnx")):
        run = OnnxModel(made.file(file), reference=True).run(golden["inputs"])
        np.testing.assert_array_equal(golden[name], run)
    assert golden["slice_names"].tolist() == [f"class {i}" for i in range(10)]
    np.testing.assert_array_equal(golden["slices"][3], golden["labels"] == 3)


def test_the_same_inputs_give_the_same_bundle(made: Bundle, exported: Path, tmp_path: Path):
    """Every file, byte for byte."""
    assert quantized(tmp_path, exported).digest == made.digest


def test_the_holdout_chooses_nothing(made: Bundle, exported: Path, tmp_path: Path):
    """Another holdout changes the golden examples and no graph, no range and no choice."""
    other = quantized(tmp_path, exported, holdout=ROWS.slice(1400, 90))

    same = {n: made.file(n).read_bytes() == other.file(n).read_bytes() for n in CHOSEN}
    assert same == dict.fromkeys(CHOSEN, True)
    assert hash_file(made.file("golden.npz")) != hash_file(other.file("golden.npz"))


def test_the_newest_training_rows_judge_and_set_no_range(
    made: Bundle, exported: Path, tmp_path: Path
):
    """The last tenth, as the train stage has it."""
    train = pa.concat_tables([ROWS.slice(0, 360), ROWS.slice(600, 40)])
    one = made.json("calibration.json")
    other = quantized(tmp_path, exported, train=train).json("calibration.json")

    assert (one["tensors"], one["inputs"]) == (other["tensors"], other["inputs"])
    assert one["tried"] != other["tried"]


def missed(folder: Path, source: Path, **quantize_settings: object):
    """Run the stage's work with a tolerance that digits' int8 graph misses."""
    strict = Limits(min_agreement=0.9, max_metric_drop=1.0, min_snr_db=60.0)
    return worked(folder, source, Rung(whole=strict, slices=strict), **quantize_settings)


def worked(folder: Path, source: Path, int8: Rung, **quantize_settings: object):
    """Run the stage's work with a tolerance of the int8 step."""
    declared = replace(
        WORKLOAD,
        quantize=replace(WORKLOAD.quantize, **quantize_settings),
        equivalence=replace(WORKLOAD.equivalence, int8=int8),
    )
    (folder / "made").mkdir()
    summary = step._make(
        folder / "made",
        declared,
        snapshot=read(bundles.snapshot(folder / "s", train=ROWS.slice(0, 400))),
        onnx=read(graph_bundle(folder, source)),
    )
    return summary, folder / "made"


def test_a_missed_tolerance_is_said_and_the_bundle_is_written(exported: Path, tmp_path: Path):
    """The equivalence stage decides; here the outcome is a fail with its reason."""
    summary, folder = missed(tmp_path, exported, max_float_layers=1)

    assert summary.outcome == "fail"
    assert "int8 all signal to noise (dB) is beyond its limit by" in summary.line
    assert {p.name for p in folder.iterdir()} == {*CHOSEN, "quantize.json", "golden.npz"}


def test_where_no_layer_can_be_int8_it_fails(exported: Path, tmp_path: Path):
    """A float graph keeps every tolerance and is not what was asked for."""
    simple = graphs.model(
        [
            helper.make_node("Flatten", ["x"], ["f"], "flat"),
            helper.make_node("Gemm", ["f", "w"], ["y"], "gemm"),
        ],
        {"w": graphs.normal(1, 64, 10)},
        given=["n", 1, 8, 8],
        made=["n", 10],
    )
    onnx.save(simple, tmp_path / "simple.onnx")

    summary, _ = missed(tmp_path, tmp_path / "simple.onnx")

    assert summary.outcome == "fail"
    assert "0 of 1" in summary.line
    assert "no layer keeps the tolerance" in summary.line


def already(folder: Path) -> Path:
    """Write a graph that another tool has rounded, to unsigned integers."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "other-q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "other-dq"),
        helper.make_node("Flatten", ["d"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w"], ["y"], "gemm"),
    ]
    held = {
        "s": np.array(0.1, np.float32),
        "z": np.array(9, np.uint8),
        "w": graphs.normal(1, 64, 10),
    }
    onnx.save(
        graphs.model(nodes, held, given=["n", 1, 8, 8], made=["n", 10]), folder / "already.onnx"
    )
    return folder / "already.onnx"


def test_a_malformed_graph_is_refused(tmp_path: Path):
    """With the first node that is not in TensorRT's form."""
    with pytest.raises(Refused, match="other-q: not signed int8"):
        quantized(tmp_path, already(tmp_path))


def test_a_graph_without_weights_is_refused(tmp_path: Path):
    node = helper.make_node("Flatten", ["x"], ["y"], "flat")
    onnx.save(graphs.model([node], {}, given=["n", 1, 8, 8], made=["n", 64]), tmp_path / "m.onnx")

    with pytest.raises(ValueError, match="no convolution and no product with weights"):
        quantized(tmp_path, tmp_path / "m.onnx")


def test_too_few_rows_to_judge_on_are_refused(exported: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="9 training rows leave none to validate on"):
        quantized(tmp_path, exported, train=ROWS.slice(0, 9))
