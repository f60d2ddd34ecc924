"""Laws of what a step shows: a verdict first, numbers that can be published, nothing that cannot.

Artifacts here are kfp's own; a component's body runs as kfp would call it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfp import dsl

from components.datachecks.component import datachecks
from components.gate.component import gate, reject
from penstock.bundle import write_json
from penstock.report import kubeflow
from penstock.report.checked import ladder_page
from penstock.report.documents import html
from penstock.stage import Refused
from penstock.verdict import Check, Outcome, Verdict
from tests import bundles
from tests.gate.chain import Chain
from tests.report import judged

PREVIEW = 255
"""Bytes of an artifact that Kubeflow shows where a step is looked at."""

CHECK = {"name": "seen", "outcome": "pass", "reason": "so", "value": 0.5, "limit": None}


def artifact(kind: type[Any], path: Path) -> Any:
    """Return an artifact as a step is given it: where it belongs, and nothing known of it."""
    return kind(name=path.name, uri=str(path), metadata={})


def judge(chain: Chain, out: Path) -> tuple[str, dict[str, Any]]:
    """Run the gate's component; return what it says and its artifacts."""
    kinds = {
        "verdict": dsl.Artifact,
        "report": dsl.HTML,
        "metrics": dsl.Metrics,
        "decisions": dsl.ClassificationMetrics,
    }
    made = {name: artifact(kind, out / name) for name, kind in kinds.items()}
    given = {name: artifact(dsl.Artifact, path) for name, path in chain.given().items()}
    out.mkdir(exist_ok=True)
    return gate.python_func(workload="digits", champion="", **given, **made), made


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Return what the gate left of a good model."""
    folder = tmp_path_factory.mktemp("promoted")
    return judge(Chain(folder / "chain"), folder / "out")


def text(made: dict[str, Any], name: str = "report") -> str:
    return Path(made[name].path).read_text(encoding="utf-8")


def publishable(metadata: dict[str, Any]) -> None:
    """Hold metadata against what Kubeflow's server takes: JSON without what is no number."""
    json.dumps(metadata, allow_nan=False)
    assert None not in metadata.values()


def test_a_promotion_is_read_at_a_glance(promoted: tuple[str, dict[str, Any]]):
    """The preview's first line is the verdict, and the page needs nothing else."""
    said, made = promoted
    page = text(made)

    assert said == "promote"
    assert page.splitlines()[0].startswith("<!-- Promote: ")
    assert b"Promote" in page.encode()[:PREVIEW]
    assert "src=" not in page
    assert "<link" not in page
    assert made["report"].metadata == {"display_name": "gate report"}


def test_a_run_has_one_set_of_metrics_with_names_that_stay(promoted: tuple[str, dict[str, Any]]):
    """Finite, rounded, and in a file too, without which a local cache would never hit."""
    _, made = promoted
    held = made["metrics"].metadata

    publishable(held)
    assert held["display_name"] == "metrics"
    assert {"accuracy", "brier", "holdout_rows", "latency_p50_ms"} < held.keys()
    assert all(len(f"{v:g}") <= 8 for v in held.values() if isinstance(v, float))
    known = {name: value for name, value in held.items() if name != "display_name"}
    assert json.loads(text(made, "metrics")) == known


def test_ten_classes_are_shown_as_a_confusion_matrix(promoted: tuple[str, dict[str, Any]]):
    """Rows are what digits are, columns what they were taken for; there is no ROC of ten."""
    _, made = promoted
    held = made["decisions"].metadata
    publishable(held)
    rows = [row["row"] for row in held["confusionMatrix"]["rows"]]

    assert sum(map(sum, rows)) == 600
    assert all(rows[i][i] == max(rows[i]) for i in range(10))
    assert "confidenceMetrics" not in held
    assert Path(made["decisions"].path).is_file()


def test_a_bundle_says_what_made_it_and_how_it_ended(promoted: tuple[str, dict[str, Any]]):
    """People find the fingerprint without opening the folder."""
    _, made = promoted
    held = made["verdict"].metadata

    assert held["display_name"] == "verdict"
    assert held["fingerprint"].startswith("digits-")
    assert held["outcome"] == "pass"
    assert "600 holdout rows" in held["said"]


def test_a_rejection_is_shown_and_turns_the_run_red_one_step_later(tmp_path: Path):
    """Kubeflow drops what a failing step leaves, so the gate does not fail and reject does."""
    said, made = judge(Chain(tmp_path / "chain", wrong=700), tmp_path / "out")

    assert said == "reject"
    assert text(made).startswith("<!-- Reject: ")
    with pytest.raises(Refused, match="gate is fail: "):
        reject.python_func(verdict=made["verdict"])


def test_the_data_are_shown_by_the_step_that_checks_them(tmp_path: Path):
    """Counts by label and every check, on a page of its own."""
    held = {"display_name": "snapshot"}
    snapshot = dsl.Dataset(uri=str(bundles.snapshot(tmp_path / "snapshot")), metadata=held)
    verdict = artifact(dsl.Artifact, tmp_path / "verdict")
    report = artifact(dsl.HTML, tmp_path / "report")

    datachecks.python_func("digits", snapshot, data_verdict=verdict, report=report)

    page = Path(report.path).read_text(encoding="utf-8")
    assert page.startswith("<!-- Data: pass: ")
    assert "1,197 rows to train on and 600 rows to judge by." in page
    assert verdict.metadata["outcome"] == "pass"


def two_classes(folder: Path) -> kubeflow.Artifact:
    """Write the gate of a task of two classes, as the judge leaves it."""
    points = [[0.0, 0.0], [0.1, 0.4], [1.0, 1.0]]

    def make(path: Path) -> None:
        numbers = judged.two_classes()
        numbers["roc"]["challenger"] = points
        write_json(path / "scores.json", {**numbers, "roc_thresholds": [1.0, 0.612345, 0.0]})
        write_json(path / "verdict.json", {"outcome": "pass", "checks": [CHECK]})
        (path / "report.html").write_text("<!doctype html>", encoding="utf-8")

    return artifact(dsl.Artifact, bundles.bundle(folder / "verdict", "gate", make).path)


def test_two_classes_are_shown_as_a_curve_and_a_matrix(tmp_path: Path):
    """Each point with the probability from which class 1 is decided."""
    curves = artifact(dsl.ClassificationMetrics, tmp_path / "decisions")
    metrics = artifact(dsl.Metrics, tmp_path / "metrics")
    report = artifact(dsl.HTML, tmp_path / "report")

    kubeflow.show_gate(two_classes(tmp_path), report, metrics, curves)

    publishable(curves.metadata)
    assert curves.metadata["confidenceMetrics"][1] == {
        "confidenceThreshold": 0.6123,
        "recall": 0.4,
        "falsePositiveRate": 0.1,
    }
    assert len(curves.metadata["confusionMatrix"]["rows"]) == 2
    assert metrics.metadata["auc_against_champion"] == 0.005


STEP = {
    "step": "int8",
    "against": "onnx",
    "outcome": "fail",
    "goes_wrong_at": "Gemm <deep>",
    "slices": [{"agreement": 0.99, "snr_db": 31.0, "metric_drop": 0.01, "n": 600, "finite": True}],
}


def test_the_graphs_are_shown_with_where_they_go_wrong():
    """Each step on all rows; names of layers are no HTML."""
    engines = [{"name": "tensorrt", "state": "not built", "reason": "no GPU"}]
    bad = Verdict((Check(name="int8", outcome=Outcome.FAIL, reason="99.00% agree"),))

    page = html(ladder_page("Digits", bad, {"steps": [STEP], "engines": engines}))

    assert "Graphs: fail: int8: 99.00% agree" in page
    assert "int8 goes wrong at Gemm &lt;deep&gt;." in page
    assert "99.00%" in page
    assert "no GPU" in page


def test_a_reason_cannot_end_the_line_that_previews_it(tmp_path: Path):
    """Whatever a check says, the comment stays one, and the page whole."""
    report = artifact(dsl.HTML, tmp_path / "report")
    odd = 'auc: --> <script>alert("x")</script>\nsecond'
    verdict = {"outcome": "fail", "checks": [{**CHECK, "outcome": "fail", "reason": odd}]}

    def make(path: Path) -> None:
        write_json(path / "profile.json", {"train": {"rows": 1}, "holdout": {"rows": 1}})
        write_json(path / "verdict.json", verdict)

    made = bundles.bundle(tmp_path / "verdict", "data-verdict", make).path
    kubeflow.show_data(artifact(dsl.Artifact, made), report, workload="digits")

    first, *rest = Path(report.path).read_text(encoding="utf-8").splitlines()
    assert first.startswith("<!-- Data: fail")
    assert first.index("-->") == len(first) - 3
    assert not any("<script>" in line for line in rest)


@given(st.dictionaries(st.text(max_size=5), st.none() | st.floats() | st.integers() | st.text()))
def test_whatever_is_known_only_what_can_be_published_is_shown(values: dict[str, Any]):
    """Text and whole numbers as they are; others to four digits; nothing missing, nothing NaN."""
    held = kubeflow.shown(values)

    publishable(held)
    for name, value in held.items():
        given_ = values[name]
        if isinstance(given_, float):
            assert math.isclose(value, given_, rel_tol=1e-3, abs_tol=0.51)
        else:
            assert value == given_
    assert all(
        values[name] is None or not math.isfinite(values[name]) for name in values.keys() - held
    )
