"""Declarations are refused early, name what is wrong, and load without heavy libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import workload as workloads
from penstock.bundle import stable_form
from penstock.workload import (
    Engine,
    Market,
    Measure,
    Rollout,
    Slice,
    Training,
    UnknownWorkload,
    settings_of,
)

TRAINING = Training(epochs=3, batch_size=8, learning_rate=0.1)
PRIMARY = Measure(name="right answers", source="right", margin=0.05, deviation=0.2)
ROLLOUT = Rollout(
    canary_percents=(10, 50, 100),
    soak=timedelta(hours=1),
    deadline=timedelta(days=1),
    primary=PRIMARY,
)


@pytest.mark.parametrize("field", ["epochs", "batch_size", "learning_rate", "threads"])
@given(number=st.floats(max_value=0) | st.just(float("nan")))
def test_a_training_number_that_is_not_positive_is_refused_by_name(field, number):
    with pytest.raises(ValueError, match=rf"Training\.{field} is .* greater than 0"):
        replace(TRAINING, **{field: number})


def test_a_batch_divides_among_the_processes():
    with pytest.raises(ValueError, match=r"batch_size is 32; it must divide among 6 processes"):
        replace(TRAINING, batch_size=32, processes=3, nodes=2)


@pytest.mark.parametrize(
    "given_",
    [{}, {"low": 1.0, "missing": True}, {"among": (1,), "missing": True}],
    ids=["nothing", "low and missing", "among and missing"],
)
def test_a_slice_has_limits_or_is_of_missing_values(given_):
    with pytest.raises(ValueError, match="needs either limits"):
        Slice(name="s", column="c", **given_)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"batches": (1, 8)}, "smallest, usual and largest"),
        ({"batches": (8, 1, 64)}, "smallest, usual and largest"),
        ({"batches": (0, 1, 64)}, "smallest_batch"),
        ({"required": ("tensorrt-9",)}, "not among its backends"),
        ({"hardware_compatibility": "all"}, "none, ampere_plus"),
    ],
)
def test_an_engine_declaration_that_cannot_be_built_is_refused(given_, said):
    with pytest.raises(ValueError, match=said):
        Engine(**given_)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"metric": "f1"}, "accuracy"),
        ({"metric": "auc"}, "a probability has 2 classes; 'digits' has 10"),
        ({"threshold": 0.5}, "a probability has 2 classes"),
        ({"classes": 2, "threshold": 1.5}, "threshold"),
    ],
)
def test_a_network_declares_a_task_that_there_is(given_, said):
    with pytest.raises(ValueError, match=said):
        replace(workloads.load("digits"), **given_)


@given(st.lists(st.integers(-5, 120), max_size=5).map(tuple))
def test_canary_percents_rise_from_above_zero_to_one_hundred(percents):
    rises = all(a < b for a, b in pairwise(percents))
    good = bool(percents) and rises and percents[0] > 0 and percents[-1] == 100
    if good:
        assert replace(ROLLOUT, canary_percents=percents).canary_percents == percents
    else:
        with pytest.raises(ValueError, match=r"Rollout\.(canary_percents|first_percent)"):
            replace(ROLLOUT, canary_percents=percents)


SHARES = [
    "alpha",
    "beta",
    "max_error_share",
    "critical_error_share",
    "max_refused_share",
    "max_slow_share",
    "max_log_loss",
]


@pytest.mark.parametrize("field", SHARES)
@pytest.mark.parametrize("share", [0, 1, -0.1, 1.1, float("nan")])
def test_a_share_lies_strictly_between_zero_and_one(field, share):
    with pytest.raises(ValueError, match=rf"Rollout\.{field}"):
        replace(ROLLOUT, **{field: share})


@pytest.mark.parametrize("soak", ["soak", "shadow_soak"])
def test_the_deadline_comes_after_the_soak(soak):
    with pytest.raises(ValueError, match="deadline"):
        replace(ROLLOUT, **{soak: ROLLOUT.deadline})


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"guardrails": (PRIMARY,)}, "two measures of one name"),
        ({"primary": replace(PRIMARY, name="all")}, None),
        ({"kill_to": "nobody"}, "nobody"),
        ({"when_busy": "wait"}, "wait"),
        ({"state": "some"}, "some"),
    ],
)
def test_a_release_policy_says_what_there_is(given_, said):
    if said is None:
        assert replace(ROLLOUT, **given_)
        return
    with pytest.raises(ValueError, match=said):
        replace(ROLLOUT, **given_)


@pytest.mark.parametrize("name", ["all", "e u", ""])
def test_a_market_has_a_word_of_its_own(name):
    with pytest.raises(ValueError, match=r"Market\.name"):
        Market(name=name, canary_percents=(5, 100))


def test_markets_are_the_branches_of_a_release():
    eu, us = (Market(name=n, canary_percents=(5, 100)) for n in ("eu", "us"))

    assert ROLLOUT.market_names() == ("all",)
    assert replace(ROLLOUT, markets=(eu, us)).market_names() == ("eu", "us")
    with pytest.raises(ValueError, match="two markets of one name"):
        replace(ROLLOUT, markets=(eu, eu))


@pytest.mark.parametrize("name", workloads.known())
def test_every_workload_loads_and_its_settings_are_stable(name):
    declared = workloads.load_data(name)

    assert declared.name == name
    assert json.loads(json.dumps(stable_form(settings_of(declared)))) == settings_of(declared)


def test_a_network_without_a_gate_is_not_released(monkeypatch):
    held = {f.name: getattr(workloads.load("credit"), f.name) for f in fields(workloads.Network)}
    monkeypatch.setattr(workloads, "load_data", lambda _: workloads.Network(**held))

    with pytest.raises(UnknownWorkload, match="no rollout yet; its stages end with equivalence"):
        workloads.load("credit")


def test_data_without_a_network_are_not_trained_on(monkeypatch):
    held = {f.name: getattr(workloads.load("digits"), f.name) for f in fields(workloads.Dataset)}
    monkeypatch.setattr(workloads, "load_data", lambda _: workloads.Dataset(**held))

    with pytest.raises(UnknownWorkload, match="declares its data and no model yet"):
        workloads.load_network("digits")
    with pytest.raises(UnknownWorkload, match="its stages end with datachecks"):
        workloads.load("digits")


def test_a_workload_needs_a_gate_and_a_graph_to_serve():
    digits = workloads.load("digits")

    with pytest.raises(ValueError, match="declares no gate"):
        replace(digits, gate=())
    with pytest.raises(ValueError, match=r"Workload\.serve is 'fp64'"):
        replace(digits, serve="fp64")


@pytest.mark.parametrize("name", ["", "digit", "..", "digits/../digits", "digits.workload"])
def test_an_unknown_workload_is_refused_with_those_there_are(name):
    with pytest.raises(UnknownWorkload, match="digits"):
        workloads.load(name)


def test_a_declaration_loads_without_heavy_libraries():
    code = (
        "import sys; from penstock import workload; workload.load('digits');"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'torch', 'sklearn', 'kfp'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, cwd=workloads.root())


@pytest.mark.parametrize(
    "stage", ["features", "train", "export", "quantize", "engine", "equivalence"]
)
def test_a_stage_is_made_by_sources_that_exist_and_not_by_the_declaration(stage):
    paths = workloads.sources(stage, "digits")

    assert [p for p in paths if not p.exists()] == []
    assert "workload.py" not in {p.name for p in paths if p.parent.name == "digits"}
