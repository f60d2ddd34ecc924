"""Laws of the budgets: figures of every artifact by one method, and words that fit them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.bundle import Bundle, read
from penstock.engine import budgets
from penstock.engine.budgets import cpu, int8_on_cpu
from penstock.workload import served_artifact
from tests.engine import graphs
from workloads.digits.workload import WORKLOAD

BATCHES = (1, 4, 16)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("int8") / "int8"
    graphs.int8_bundle(path, graphs.residual())
    return read(path)


@pytest.fixture(scope="module")
def found(int8: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Budgets as JSON gives them back."""
    folder = tmp_path_factory.mktemp("engines")
    taken = budgets.measured(int8, folder, ["onnxruntime"], batches=BATCHES)
    return json.loads(json.dumps(taken, allow_nan=False))


@pytest.mark.parametrize("name", ["fp32", "int8", "int8-cpu"])
def test_every_artifact_has_every_figure_at_every_batch_size(found: dict, name: str):
    """Start, warm-up, memory, and latency beside the floor, all of them positive."""
    figures = found["artifacts"][name]

    assert [b["batch"] for b in figures["batches"]] == list(BATCHES)
    for of_batch in figures["batches"]:
        assert all(value > 0 for value in of_batch.values())
        assert of_batch["latency_p50_ms"] <= of_batch["latency_p99_ms"]
        ratio = of_batch["latency_p50_ms"] / of_batch["floor_p50_ms"]
        assert of_batch["to_floor"] == pytest.approx(ratio)
    for one in ("import_s", "load_s", "first_ms", "cold_start_s", "peak_memory_mb"):
        assert figures[one] > 0
    assert figures["warm_up_s"] is None or figures["warm_up_s"] >= 0


def test_what_the_gate_asks_for_is_at_the_top(found: dict):
    """Latency at the usual batch size, throughput at the largest."""
    figures = found["artifacts"][served_artifact(WORKLOAD)]

    assert figures["latency_p99_ms"] == figures["batches"][1]["latency_p99_ms"]
    assert figures["throughput_per_s"] == figures["batches"][2]["throughput_per_s"]


def test_int8_is_held_against_fp32_in_one_process(found: dict):
    """And what came of it is said in words."""
    said = found["int8_on_cpu"]

    beside = {str(b["batch"]): b["to_beside"] for b in found["artifacts"]["int8-cpu"]["batches"]}
    assert said["ratios"] == beside
    assert said["ratio"] == beside["4"]
    assert said["slower"] == (said["ratio"] > 1)
    assert "VNNI" in said["said"]


def test_an_artifact_that_cannot_be_measured_has_a_problem_and_no_figures(
    int8: Bundle, tmp_path: Path
):
    """An engine whose plan is gone gives no numbers, and no others suffer."""
    found = budgets.measured(int8, tmp_path, ["tensorrt-rtx"], batches=BATCHES)["artifacts"]

    assert list(found["tensorrt-rtx"]) == ["problem"]
    assert found["int8"]["latency_p50_ms"] > 0


@given(st.floats(0.01, 100), st.sampled_from([True, False, None]))
def test_the_words_on_int8_agree_with_the_numbers(ratio: float, vnni: bool | None):
    """Slower is called slow and never fast; VNNI is named whatever it is."""
    figures = {"batches": [{"batch": 8, "to_beside": ratio}]}
    said = int8_on_cpu(figures, {"problem": "it died"}, vnni=vnni, usual=8)

    assert said["slower"] == (ratio > 1) == ("as slow" in said["said"])
    assert ("as fast" in said["said"]) == (not said["slower"])
    assert ("has no VNNI" in said["said"]) == (vnni is False)


def test_both_forms_are_spoken_of_and_the_one_that_serves_decides():
    """With every batch size; the form for engines is slow here and no verdict on what serves."""
    served = {"batches": [{"batch": 1, "to_beside": 0.8}, {"batch": 8, "to_beside": 0.5}]}
    engines = {"batches": [{"batch": 1, "to_beside": 3.0}, {"batch": 8, "to_beside": 1.7}]}
    said = int8_on_cpu(served, engines, vnni=True, usual=8)

    assert (said["ratio"], said["ratios"], said["slower"]) == (0.5, {1: 0.8, 8: 0.5}, False)
    assert "2.00 times as fast as fp32 at batch 8" in said["said"]
    assert "1.25 times as fast at 1" in said["said"]
    assert "TensorRT's form is 1.70 times as slow" in said["said"]


def test_int8_that_was_not_measured_is_neither_fast_nor_slow():
    figures = {"batches": [{"batch": 8, "to_beside": 0.5}]}
    said = int8_on_cpu({"problem": "it died"}, figures, vnni=True, usual=8)

    assert (said["slower"], said["ratio"]) == (None, None)
    assert "not measured: it died" in said["said"]


@pytest.mark.parametrize(
    ("text", "vnni"),
    [
        ("model name\t: One CPU\nflags\t\t: sse2 avx512_vnni fma\n", True),
        ("model name\t: One CPU\nflags\t\t: sse2 avx_vnni\n", True),
        ("model name\t: One CPU\nflags\t\t: sse2 avx512f not_avx_vnni_at_all\n", False),
        ("Features\t: fp asimd\n", None),
        ("", None),
    ],
)
def test_vnni_is_read_from_the_kernel_and_not_guessed(text: str, vnni: bool | None):
    assert cpu(text)["vnni"] is vnni


def test_peak_memory_counts_this_program_and_remembers():
    """What was held once counts for good, and only what this program held."""
    program = (
        "from penstock.engine.memory import peak_memory_mb as peak; before = peak();"
        "held = bytearray(b'x') * 64_000_000; grown = peak(); del held;"
        "print(before, grown, peak())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    before, grown, after = map(float, done.stdout.split())

    assert 60 < grown - before < 70
    assert after - before > 60
