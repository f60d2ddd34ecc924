"""Laws of the run's page: the verdict first, every section told, nothing of a run trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from penstock import datachecks
from penstock.bundle import write_json
from penstock.report.page import write_page
from penstock.rollout import telling
from penstock.stage import Refused
from tests import bundles
from tests.report import browser, judged
from tests.rollout.tales import RELEASE, rolled_back
from tests.strategies import outcomes, words

SECTIONS = (
    "Stages",
    "Data",
    "Training",
    "Quantization",
    "What the graphs cost",
    "Equivalence ladder",
    "Gate",
    "Release",
    "Lineage",
)


def a_record(**over: Any) -> dict[str, Any]:
    """Return the record of a run that ended before its first stage."""
    plain = {
        "run_id": "20260105-000000",
        "workload": "digits",
        "title": "Handwritten digits",
        "seconds": 12.0,
        "outcome": "failed",
        "reason": "the disk is full",
        "stages": [],
        "bundles": {},
        "version": None,
        "champion": None,
        "release": None,
    }
    return {**plain, **over}


def page(tmp_path: Path, record: Mapping[str, Any]) -> str:
    """Return the text of a record's page."""
    return write_page(record, tmp_path / "page.html").read_text(encoding="utf-8")


def a_release(folder: Path, outcome: str = "rolled back") -> dict[str, Any]:
    """Return what a run records of a release with two strikes."""
    tale, looks = rolled_back(folder)
    told = telling.timeline(tale.entries, RELEASE, looks, now=tale.now)
    return {
        "outcome": outcome,
        "reason": "errors: 9 of 90",
        "seconds": 9.0,
        "ready_s": 2.5,
        "detected_s": 0.8,
        "rollback_ms": 2.25,
        "told": told,
    }


def test_a_run_that_never_began_still_has_a_page(tmp_path: Path):
    """The reason comes first, and each section says that it was not reached."""
    text = page(tmp_path, a_record())

    assert text.index("Failed") < text.index("the disk is full") < text.index("<h2>Stages")
    for section in SECTIONS:
        assert f"<h2>{section}</h2>" in text
    assert text.count("The run ended before this.") == len(SECTIONS) - 1


def test_refused_data_is_drawn_with_the_rules_it_broke(tmp_path: Path):
    """A run that ended at the data shows its plots and which rows broke what."""
    labels = bundles.rows()["label"].to_pylist()
    broken = bundles.replaced(bundles.rows(), "label", [12, 12, *labels[2:]])
    snapshot = bundles.snapshot(tmp_path / "snapshot", train=broken)
    checked = tmp_path / "checked"
    with pytest.raises(Refused):
        datachecks.run(workload="digits", snapshot=snapshot, out=checked, now=bundles.NOW)

    text = page(tmp_path, a_record(outcome="data refused", bundles={"data_verdict": str(checked)}))

    assert "<td>train: label range</td><td>2 of 1797 rows lie outside 0 … 9</td>" in text
    assert text.count("<svg") == 2


def test_a_damaged_bundle_is_said_and_costs_only_its_section(tmp_path: Path):
    """One altered file does not take the page of the run away."""
    snapshot = bundles.snapshot(tmp_path / "snapshot")
    checked = tmp_path / "checked"
    datachecks.run(workload="digits", snapshot=snapshot, out=checked, now=bundles.NOW)
    (checked / "profile.json").write_text("{}")

    text = page(tmp_path, a_record(bundles={"data_verdict": str(checked)}))

    assert "Nothing to show" in text
    assert "<h2>Lineage</h2>" in text


def test_a_rollback_shows_when_it_was_noticed_and_undone(tmp_path: Path):
    """Three numbers a person looks for, the plots, and where there is more."""
    text = page(tmp_path, a_record(outcome="rolled back", version=2, champion=1,
                                   release=a_release(tmp_path)))  # fmt: skip

    for told in ("0.8 s", "2.25 ms", "over version", "clicks", f"release timeline {RELEASE}"):
        assert told in text
    assert text.count("<svg") == 3


def test_a_release_that_ended_before_its_first_look_says_why(tmp_path: Path):
    """Without a timeline there is nothing to draw; the reason stays."""
    release = {**a_release(tmp_path), "told": None, "reason": "the server <never> was ready"}

    text = page(tmp_path, a_record(release=release))

    assert "the server &lt;never&gt; was ready" in text


@given(reason=words, line=words, outcome=outcomes)
def test_nothing_that_a_run_said_becomes_markup(
    tmp_path_factory: pytest.TempPathFactory, reason: str, line: str, outcome: str
):
    """Whatever an error or a library printed is shown as text."""
    hostile = "<script>alert(1)</script>"
    stage = {"stage": hostile, "seconds": 1.0, "outcome": outcome, "reused": False,
             "line": line + hostile}  # fmt: skip
    record = a_record(
        reason=reason + hostile, title=hostile, run_id=hostile, outcome=hostile, stages=[stage]
    )

    text = page(tmp_path_factory.mktemp("page"), record)

    assert "<script" not in text


def test_the_same_record_gives_the_same_bytes(tmp_path: Path):
    """Two pages can be compared with diff."""
    record = a_record(release=a_release(tmp_path))

    assert page(tmp_path, record) == page(tmp_path, record)


def test_the_page_asks_nobody_for_anything(tmp_path: Path):
    """Plots and styles are inside: it opens without a network, and years later."""
    text = page(tmp_path, a_record(release=a_release(tmp_path)))

    assert "src=" not in text
    assert "@import" not in text
    assert "<link" not in text


@pytest.mark.parametrize("width", [1200, 420], ids=["desk", "phone"])
def test_it_opens_in_a_browser(tmp_path: Path, width: int):
    """A real browser shows the verdict, draws the plots, and needs no sideways scrolling."""
    path = write_page(a_record(release=a_release(tmp_path)), tmp_path / "page.html")

    assert browser.shown(path, width=width) == ("Failed", 3, True)


def test_a_column_that_moved_is_drawn(tmp_path: Path):
    """One plot more for each column whose check did not pass."""
    shown = {"at": [0.0, 1.0, 2.0], "reference": [0.5, 0.3, 0.2, 0.0], "rows": [0.1, 0.2, 0.3, 0.4]}
    checks = [
        {"name": f"holdout from train: {c} PSI", "outcome": o, "reason": "so"}
        for c, o in (("age", "fail"), ("height", "pass"), ("weight", "inconclusive"))
    ]

    def make(folder: Path) -> None:
        write_json(folder / "verdict.json", {"outcome": "fail", "checks": checks})
        write_json(folder / "profile.json", {"train": {"rows": 1}, "holdout": {"rows": 1}})
        columns = dict.fromkeys(("age", "height", "weight"), shown)
        write_json(folder / "drift.json", {"holdout from train": columns})

    checked = bundles.bundle(tmp_path / "checked", "data-verdict", make)

    text = page(tmp_path, a_record(bundles={"data_verdict": str(checked.path)}))

    assert text.count("<svg") == 2
    assert "age: holdout from train" in text
    assert "height: holdout from train" not in text


def a_part(name: str, *, snr_db: float = 140.0, outcome: str = "pass") -> dict[str, Any]:
    """Return one slice of a step."""
    limits = {"min_agreement": 0.995, "max_metric_drop": 0.01, "min_snr_db": 30.0}
    return {"slice": name, "n": 90, "finite": snr_db > -400, "agreement": 0.9912, "snr_db": snr_db,
            "metric_drop": 0.0123, "limits": limits, "outcome": outcome}  # fmt: skip


def a_step(against: str, name: str, **over: Any) -> dict[str, Any]:
    """Return one step of a ladder."""
    plain = {"step": name, "against": against, "outcome": "pass", "empty": ["young"],
             "slices": [a_part("all"), a_part("old")], "goes_wrong_at": None,
             "beyond": [{**a_part("scaled"), "metric_drop": None, "limits": None}]}  # fmt: skip
    return {**plain, **over}


def a_ladder(path: Path, *steps: dict[str, Any]) -> str:
    """Write the ladder of a network that fails at int8 on one slice, and return where it is."""
    fails = a_step(
        "onnx",
        "int8",
        outcome="fail",
        slices=[a_part("all", snr_db=41.0), a_part("old <b>", snr_db=12.0, outcome="fail")],
        goes_wrong_at="Gemm <deep>, 3.1 dB",
    )
    engines = [
        {"name": "onnxruntime", "state": "run", "reason": None},
        {"name": "tensorrt-rtx", "state": "built", "reason": "no <GPU> here"},
        {"name": "tensorrt", "state": "not built", "reason": None},
    ]
    rows = {"step": ["int8", "onnxruntime"], "row": [4, -1], "key": ['{"id": 4}', None],
            "label": [1, None], "before": [1, 0], "after": [0, 0], "error": [2.5, 0.1]}  # fmt: skip

    def make(folder: Path) -> None:
        document = {
            "steps": [a_step("torch", "onnx"), fails, *steps],
            "engines": engines,
            "floor": {"jitter": 1e-4, "rows": 90, "snr_db": {"all": 53.7}},
        }
        layer = {"name": "/deep/Gemm_output_0", "operation": "Gemm", "snr_db": 3.1}
        write_json(folder / "ladder.json", document)
        write_json(folder / "layers.json", {"onnx": [], "int8": [layer, {**layer, "snr_db": 40.0}]})
        write_json(folder / "verdict.json", {"outcome": "fail", "checks": []})
        pq.write_table(pa.table(rows), folder / "worst.parquet")

    return str(bundles.bundle(path, "equivalence", make).path)


def test_the_gate_is_drawn_as_in_its_report(tmp_path: Path):
    """Every plot, the metrics with their intervals, and the checks."""

    def make(folder: Path) -> None:
        check = {"name": "auc <b>", "outcome": "fail", "reason": "0.71, at least 0.75"}
        write_json(folder / "verdict.json", {"outcome": "fail", "checks": [check]})
        write_json(folder / "scores.json", judged.two_classes())

    made = bundles.bundle(tmp_path / "gate", "gate", make).path

    text = page(tmp_path, a_record(bundles={"verdict": str(made)}))

    assert text.count("<svg") == 5
    assert "on 6,002 holdout rows, against the champion." in text
    assert "<td>AUC</td><td>0.757 [0.742, 0.772], 600 rows</td>" in text
    assert "<td>auc &lt;b&gt;</td><td>0.71, at least 0.75</td>" in text


def test_a_ladder_shows_where_it_goes_wrong_and_for_whom(tmp_path: Path):
    """The layer, the slice with its numbers and limits, and a plot of the steps and the layers."""
    text = page(tmp_path, a_record(bundles={"ladder": a_ladder(tmp_path / "ladder")}))

    assert "int8 goes wrong at Gemm &lt;deep&gt;, 3.1 dB." in text
    assert "✗ 99.12% ≥ 99.5%</span><br>12 dB ≥ 30<br>+0.0123 ≤ 0.01" in text
    assert text.index("<td>old &lt;b&gt;</td>") < text.index("all 5 slices")
    assert text.count("<td>old</td>") == 1
    assert text.count("<svg") == 2
    for told in ("jitter floor 54 dB", "torch → onnx", "out of distribution", "deep/Gemm"):
        assert told in text


def test_a_ladder_names_the_engines_that_did_not_run(tmp_path: Path):
    """With their reason; the one that ran is a step, not a row of theirs."""
    text = page(tmp_path, a_record(bundles={"ladder": a_ladder(tmp_path / "ladder")}))

    assert "<td>tensorrt-rtx</td><td>built, not run</td><td>no &lt;GPU&gt; here</td>" in text
    assert "<td>tensorrt</td><td>not built</td><td>–</td>" in text
    assert "<td>onnxruntime</td><td>run" not in text


def test_a_ladder_draws_what_is_equal_and_what_is_no_number(tmp_path: Path):
    """At the ends of the axis, and in words."""
    equal = a_step("int8", "onnxruntime", slices=[a_part("all", snr_db=400.0)])
    broken = a_step(
        "int8", "other", outcome="fail", slices=[a_part("all", snr_db=-400.0, outcome="fail")]
    )

    made = a_ladder(tmp_path / "ladder", equal, broken)
    text = page(tmp_path, a_record(bundles={"ladder": made}))

    assert "<br>equal bits ≥ 30<br>" in text
    assert "<br>not finite</td>" in text
    assert "<td>young</td><td>0 rows</td>" in text


def test_a_ladder_lists_the_worst_inputs_also_of_rows_it_does_not_know(tmp_path: Path):
    """Golden rows of an engine may come from elsewhere."""
    text = page(tmp_path, a_record(bundles={"ladder": a_ladder(tmp_path / "ladder")}))

    assert "<td>{&quot;id&quot;: 4}</td><td>1</td><td>1 → 0</td><td>2.5</td>" in text
    assert "<td>not in the holdout</td><td>–</td><td>0 → 0</td>" in text
