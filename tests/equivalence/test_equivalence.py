"""Laws of the stage: one verdict, every number, the worst inputs, and where it goes wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from onnx import numpy_helper

from penstock import equivalence
from penstock.bundle import Bundle, BundleError, read
from penstock.stage import verdict_of
from penstock.verdict import Outcome
from tests import bundles
from tests.equivalence.conftest import HELD_OUT

KINDS = ("snapshot", "model", "onnx", "int8", "engine")


def climbed(out: Path, digits: Path, **other: Path) -> Bundle:
    """Run the stage on the digits bundles, some replaced, and return what it wrote."""
    given = {kind: other.get(kind, digits / kind) for kind in KINDS}
    equivalence.run(workload="digits", **given, out=out, now=bundles.NOW)
    return read(out, kind="equivalence")


@pytest.fixture(scope="module")
def ladder(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """What the stage wrote of a network that nobody tampered with."""
    return climbed(tmp_path_factory.mktemp("ladder") / "ladder", digits)


def channels_swapped(digits: Path, path: Path) -> Path:
    """Return an ONNX bundle whose third convolution gives two channels for each other."""

    def make(folder: Path) -> None:
        model = onnx.load(digits / "onnx" / "model.onnx")
        node = [n for n in model.graph.node if n.op_type == "Conv"][2]
        for held in model.graph.initializer:
            if held.name == node.input[1]:
                values = numpy_helper.to_array(held)
                rolled = np.roll(values, 1, axis=0)
                held.CopyFrom(numpy_helper.from_array(rolled, held.name))
        onnx.save(model, folder / "model.onnx")

    return bundles.bundle(path, "onnx", make).path


def few_rows(path: Path) -> Path:
    """Return a snapshot with a holdout of forty rows."""
    return bundles.snapshot(path, holdout=bundles.rows().slice(1197, 40))


def missing_class(path: Path) -> Path:
    """Return one whose few rows are of no nine."""
    rows = bundles.rows().slice(1197, 40)
    return bundles.snapshot(path, holdout=rows.filter(pc.not_equal(rows["label"], 9)))


def test_a_right_model_climbs_every_step(ladder: Bundle):
    """Each step in order, with all rows first, every class, the rare ones and four kinds beyond."""
    assert verdict_of(ladder).outcome is Outcome.PASS
    steps = ladder.json("ladder.json")["steps"]
    assert [(s["against"], s["step"]) for s in steps] == [
        ("torch", "onnx"), ("onnx", "simplified"), ("simplified", "int8-cpu"),
        ("simplified", "int8"), ("int8", "onnxruntime"),
    ]  # fmt: skip
    names = ["all", *(f"class {c}" for c in range(10)), "rare"]
    for step in steps:
        assert [p["slice"] for p in step["slices"]] == names
        assert step["outcome"] == "pass"
        assert step["goes_wrong_at"] is None
    beyond = [[p["slice"] for p in s["beyond"]] for s in steps]
    assert beyond == [["shuffled", "scaled", "saturated", "zeros"]] * 4 + [[]]


def test_every_check_has_its_number_in_the_document(ladder: Bundle):
    """The verdict and the document cannot say different things."""
    found = {
        f"{step['step']} {part['slice']} {what}": part[name]
        for step in ladder.json("ladder.json")["steps"]
        for part in (*step["slices"], *step["beyond"])
        for what, name in (("agreement", "agreement"), ("signal to noise (dB)", "snr_db"),
                           ("metric drop", "metric_drop"), ("finite", "finite"))
    }  # fmt: skip
    checks = verdict_of(ladder).checks

    assert len(checks) > 100
    for check in checks:
        assert found[check.name] == check.value


def test_a_float_step_is_judged_beyond_the_data_and_int8_only_on_being_finite(ladder: Bundle):
    """Clipping what was never seen is what an int8 graph is for."""
    names = [c.name for c in verdict_of(ladder).checks]

    assert "onnx scaled signal to noise (dB)" in names
    assert "simplified saturated agreement" in names
    for step in ("int8", "int8-cpu"):
        assert [n for n in names if n.startswith(f"{step} scaled")] == [f"{step} scaled finite"]


def test_the_jitter_floor_is_written(ladder: Bundle):
    """By slice, with the rows and the jitter it is of."""
    floor = ladder.json("ladder.json")["floor"]

    assert (floor["jitter"], floor["rows"]) == (1e-4, HELD_OUT)
    assert 20 < floor["snr_db"]["all"] < 90
    assert {"class 7", "rare"} < floor["snr_db"].keys()


def test_the_line_says_which_engines_are_no_evidence(ladder: Bundle):
    """Beside what was kept at each step."""
    line = ladder.summary.line

    assert line.startswith("torch → onnx 100.00% agree → simplified 100.00% agree → int8 ")
    assert "; beside it int8-cpu " in line
    assert "tensorrt-rtx built, not run" in line
    assert "; tensorrt not built; " in line


def test_the_twenty_worst_inputs_of_each_step_are_written_with_their_keys(ladder: Bundle):
    """So that a person can look at them."""
    worst = pq.read_table(ladder.file("worst.parquet")).to_pylist()
    holdout = bundles.rows().slice(1197, HELD_OUT)

    for step in ("onnx", "simplified", "int8-cpu", "int8", "onnxruntime"):
        assert sum(row["step"] == step for row in worst) == 20
    for row in worst:
        assert json.loads(row["key"]) == {"capture_id": holdout["capture_id"][row["row"]].as_py()}
        assert row["label"] == holdout["label"][row["row"]].as_py()


def test_layers_of_graphs_are_written_though_nothing_fails(ladder: Bundle):
    """What quantization costs is of interest in any case."""
    found = ladder.json("layers.json")

    assert found["onnx"] == []
    for step in ("int8", "int8-cpu"):
        assert len(found[step]) > 10
        assert all(layer["snr_db"] > 15 for layer in found[step])


def test_swapped_channels_of_an_exported_convolution_are_found(digits: Path, tmp_path: Path):
    """By the name that the network has for it, in the stage's own line."""
    tampered = channels_swapped(digits, tmp_path / "onnx")
    snapshot = few_rows(tmp_path / "snapshot")

    found = climbed(tmp_path / "ladder", digits, onnx=tampered, snapshot=snapshot)

    assert verdict_of(found).outcome is Outcome.FAIL
    (step, *_) = found.json("ladder.json")["steps"]
    assert step["outcome"] == "fail"
    assert step["goes_wrong_at"].startswith("Conv2d layer1.0.conv2: ")
    assert f"onnx goes wrong at {step['goes_wrong_at']}" in found.summary.line


def test_the_same_inputs_give_the_same_bytes(digits: Path, tmp_path: Path):
    """There is no chance in a verdict."""
    snapshot = few_rows(tmp_path / "snapshot")

    one, other = (climbed(tmp_path / n, digits, snapshot=snapshot) for n in ("one", "other"))

    assert one.digest == other.digest


def test_engines_of_another_graph_are_refused(digits: Path, tmp_path: Path):
    """A verdict over two different graphs would be one over neither."""

    def other(folder: Path) -> None:
        shutil.copytree(digits / "int8", folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        model = onnx.load(folder / "model.int8.onnx")
        model.doc_string = "made again"
        onnx.save(model, folder / "model.int8.onnx")

    int8 = bundles.bundle(tmp_path / "int8", "int8", other).path

    with pytest.raises(BundleError, match="engines of another int8 graph"):
        climbed(tmp_path / "ladder", digits, int8=int8)
    assert not (tmp_path / "ladder").exists()


@pytest.mark.parametrize("made", [few_rows, missing_class])
def test_a_slice_without_evidence_is_no_pass(
    digits: Path, tmp_path: Path, made: Callable[[Path], Path]
):
    """Neither one with too few rows nor one with none."""
    found = climbed(tmp_path / "ladder", digits, snapshot=made(tmp_path / "snapshot"))

    verdict = verdict_of(found)
    checks = {c.name: c.outcome for c in verdict.checks}
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert checks["int8 class 9"] is Outcome.INCONCLUSIVE
    keys = pq.read_table(found.file("worst.parquet")).to_pylist()
    assert all((row["key"] is None) == (row["row"] == -1) for row in keys)
