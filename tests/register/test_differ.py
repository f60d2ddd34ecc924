"""Laws of comparing versions: the planted cause comes first; chance is not explained."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import workload as workloads
from penstock.register.causes import cause_of_file
from penstock.register.differ import Difference, _from_intervals, diff
from penstock.register.lineage import FOLDERS, files
from penstock.register.weighed import Made
from tests import bundles
from tests.register.versions import estimate, version

WORSE: dict[str, Any] = {"accuracy": 0.91, "weights": "v", "graph": "h"}
"""A model of other weights that scores worse than chance explains."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, which nobody edits while the tests run."""
    root, ignored = tmp_path_factory.mktemp("tree"), shutil.ignore_patterns("__pycache__")
    for part in (*FOLDERS, "workloads/digits"):
        shutil.copytree(workloads.root() / part, root / part, ignore=ignored)
    return root


@pytest.fixture(scope="module")
def first(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The version that others are compared with."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(workloads, "root", lambda: tree)
        return version(tmp_path_factory.mktemp("first"), "version 1")


@pytest.fixture(autouse=True)
def same_sources(tree: Path, monkeypatch: pytest.MonkeyPatch):
    """Let other versions be made from the same sources."""
    monkeypatch.setattr(workloads, "root", lambda: tree)


def kinds(found: Difference) -> list[str]:
    """Return the kinds of what may explain a change, likeliest first."""
    return [change.kind for change in found.changes if change.weight]


def shifted() -> Any:
    """Return the training rows with more ink in every capture."""
    rows = bundles.rows().slice(0, 1197)
    return bundles.replaced(rows, "ink_mean", rows["ink_mean"].to_numpy() * 1.5)


@pytest.mark.parametrize(
    ("planted", "kind", "what"),
    [
        ({"training": {"learning_rate": 0.04}}, "hyperparameters", "learning_rate"),
        ({"training": {"seed": 43}}, "seed", "training seed"),
        ({"libraries": {"torch": "1.0"}}, "environment", "torch"),
        ({"calibrator": "minmax"}, "choices", "calibrator"),
        ({"train": shifted()}, "data", "training rows, ink_mean most"),
    ],
    ids=["learning rate", "seed", "a library", "calibrator", "data"],
)
def test_the_one_thing_that_changed_is_ranked_first(
    tmp_path: Path, first: Made, planted: Mapping[str, Any], kind: str, what: str
):
    """And it is said to be likely and not proved."""
    second = version(tmp_path, "version 2", **WORSE, **planted)

    found = diff(first, second)

    assert found.metric.beyond_chance
    assert found.likeliest is not None
    assert (found.likeliest.kind, found.likeliest.what) == (kind, what)
    assert kinds(found) == [kind]
    assert "worse beyond chance" in found.headline
    assert found.conclusion.startswith(f"Most likely {kind}: {what}, because ")
    assert "not proved" in found.conclusion
    assert "Nothing else that changed could." in found.conclusion


def edited(tree: Path, folder: Path, path: str, old: str, new: str) -> Path:
    """Return a copy of the sources in which one file is edited."""
    copied = shutil.copytree(tree, folder / "tree")
    text = (copied / path).read_text(encoding="utf-8")
    assert old in text
    (copied / path).write_text(text.replace(old, new), encoding="utf-8")
    return copied


def test_an_edited_definition_comes_before_the_drift_it_made(
    tmp_path: Path, tree: Path, first: Made, monkeypatch: pytest.MonkeyPatch
):
    """Both changed; the definition is the cause of the rows' drift and is named."""
    other = edited(tree, tmp_path, "feature_repo/digits.py", "timedelta(0)", "timedelta(1)")
    monkeypatch.setattr(workloads, "root", lambda: other)

    second = version(tmp_path, "version 2", train=shifted(), **WORSE)
    found = diff(first, second)

    assert found.likeliest is not None
    assert found.likeliest.what == "definition of digits.capture_ink"
    assert [k for k in kinds(found) if k in ("features", "data")] == ["features", "data"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("penstock/train/loop.py", "it trains"),
        ("workloads/digits/model.py", "it is the network"),
        ("workloads/digits/transform.py", "it makes the network's inputs of the rows"),
        ("penstock/report/page.py", "it takes no part in data, training or scoring"),
    ],
)
def test_a_code_file_is_named_and_weighed_by_what_it_takes_part_in(
    tmp_path: Path,
    tree: Path,
    first: Made,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    reason: str,
):
    """Training code may explain; a report's cannot, and then nothing that changed can."""
    other = edited(tree, tmp_path, path, "import ", "import  ")
    monkeypatch.setattr(workloads, "root", lambda: other)

    found = diff(first, version(tmp_path, "version 2", **WORSE))

    code = [change for change in found.changes if change.kind == "code"]
    assert len(code) == 1
    assert path in code[0].what
    assert code[0].reason == reason
    if cause_of_file(path)[1].weight:
        assert found.likeliest == code[0]
    else:
        assert found.likeliest is None
        assert found.conclusion.startswith("Nothing that changed can have moved the metric")


def test_a_version_does_not_differ_from_itself(first: Made):
    """And it says so."""
    found = diff(first, first)

    assert found.changes == ()
    assert found.conclusion == "Nothing changed between the two."
    assert "no more than chance makes" in found.headline
    assert all(distance.value == 0 for distance in found.columns.values())


def test_what_left_no_trace_explains_nothing(tmp_path: Path, first: Made):
    """The same training rows: no data or definition. The same weights: nothing before them."""
    lineage = copy.deepcopy(first.lineage)
    lineage["features"]["digits.capture_ink"] = "sha256:0"
    lineage["hyperparameters"]["learning_rate"] = 0.04
    second = version(tmp_path, "version 2", accuracy=0.91, graph="h", calibrator="minmax")
    mixed = {**lineage, "stages": second.lineage["stages"], "model": second.lineage["model"]}
    found = diff(first, replace(second, lineage={**mixed, "choices": second.lineage["choices"]}))

    by_kind = {change.kind: change for change in found.changes}
    assert by_kind["features"].weight == 0
    assert "the training rows are the same in both" in by_kind["features"].reason
    assert by_kind["hyperparameters"].weight == 0
    assert "the trained weights are the same in both" in by_kind["hyperparameters"].reason
    assert kinds(found) == ["choices"]


def test_a_change_within_chance_is_not_explained(tmp_path: Path, first: Made):
    """What changed is listed all the same."""
    second = version(
        tmp_path, "version 2", accuracy=0.965, weights="v", graph="h", training={"seed": 43}
    )

    found = diff(first, second)

    assert found.metric.beyond_chance is False
    assert found.likeliest is None
    assert kinds(found) == ["seed"]
    assert found.conclusion.startswith("Nothing has to be explained")


def test_the_gate_s_own_comparison_is_used_where_there_is_one(tmp_path: Path, first: Made):
    """Judged in pairs on the same rows, a loss within each one's interval is beyond chance."""
    second = version(
        tmp_path, "version 2", accuracy=0.96, difference=-0.01, weights="v", training={"seed": 43}
    )
    lineage = copy.deepcopy(second.lineage)
    unpaired = diff(first, second)
    lineage["artifacts"]["champion"] = first.fingerprint
    paired, back = (
        diff(*pair)
        for pair in (
            (first, replace(second, lineage=lineage)),
            (replace(second, lineage=lineage), first),
        )
    )

    assert unpaired.metric.beyond_chance is False
    assert paired.metric.beyond_chance
    assert (paired.metric.low, paired.metric.high) == pytest.approx((-0.012, -0.008))
    assert (back.metric.low, back.metric.high) == pytest.approx((0.008, 0.012))
    assert "in pairs" in paired.headline


def test_other_holdouts_are_said(tmp_path: Path, first: Made):
    """A metric of other rows is another number; they are never taken for pairs."""
    second = version(
        tmp_path, "version 2", accuracy=0.91, difference=-0.06,
        holdout=bundles.rows().slice(1297),
    )  # fmt: skip
    lineage = {**second.lineage, "artifacts": {"champion": first.fingerprint}}

    found = diff(first, replace(second, lineage=lineage))

    assert found.same_holdout is False
    assert "different holdouts" in found.headline
    assert "in pairs" not in found.headline
    assert "holdout" in kinds(found)


def test_no_interval_is_no_evidence(tmp_path: Path, first: Made):
    """Without one it cannot be told whether the metric changed."""
    scores = copy.deepcopy(first.scores)
    scores["metrics"]["accuracy"]["challenger"] |= {"value": 0.5, "low": None, "high": None}

    found = diff(first, replace(first, scores=scores))

    assert found.metric.beyond_chance is None
    assert found.likeliest is None
    assert "cannot be told" in found.headline


def test_another_workload_is_refused(first: Made):
    """Two models of different things have no difference."""
    with pytest.raises(ValueError, match="of credit; compare two versions of one workload"):
        diff(first, replace(first, lineage={**first.lineage, "workload": "credit"}))


def test_everything_is_written_for_programs(tmp_path: Path, first: Made):
    """Plain values, with the PSI of every column."""
    found = diff(first, version(tmp_path, "version 2", train=shifted(), **WORSE)).to_dict()

    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["columns"]["ink_mean"]["value"] > 0.2
    assert found["columns"]["centre_row"]["value"] == 0


@given(was=st.floats(0.1, 0.9), now=st.floats(0.1, 0.9), within=st.floats(0.001, 0.1))
def test_bounds_of_a_difference_hold_it_and_turn_with_it(was: float, now: float, within: float):
    """The difference lies between its bounds; the other way round they change sign."""
    pair = estimate(was, within=within), estimate(now, within=within / 2)
    low, high, _ = _from_intervals(*pair)
    back_low, back_high, _ = _from_intervals(*pair[::-1])

    assert low is not None
    assert high is not None
    assert low <= now - was <= high
    assert (back_low, back_high) == pytest.approx((-high, -low))


def test_every_source_of_the_library_has_a_place():
    """No package that trains or scores is taken for one that takes no part."""
    for path in files(workloads.root(), "digits"):
        part = path.split("/")[1] if path.startswith("penstock/") else ""
        if part in ("features", "train", "export", "quantize", "runtimes", "gate", "stats"):
            assert cause_of_file(path)[1].weight > 0, path
