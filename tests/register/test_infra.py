"""Laws of the infra validation: only a server that answers right, on the real server, is a pass."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.bundle import Bundle
from penstock.register import infra, probe
from penstock.register.probe import Answer, Seen
from penstock.request import Contract, Feature
from penstock.stage import verdict_of
from penstock.stats.metrics import probabilities
from penstock.verdict import Check, Outcome
from tests.bundles import NOW
from tests.packages import make_package


def checks(bundle: Bundle) -> dict[str, Check]:
    """Return the checks of a verdict by name."""
    return {c.name: c for c in verdict_of(bundle).checks}


def test_a_right_package_passes_in_the_real_server(tmp_path: Path):
    """Loaded, asked in both protocols, alone and in a batch, badly, and ended: all of it passes."""
    package = make_package(tmp_path / "package")

    bundle = infra.validate(package, tmp_path / "infra", now=NOW)

    found = checks(bundle)
    assert {c.outcome for c in found.values()} == {Outcome.PASS}, str(verdict_of(bundle))
    assert len(found) == 10
    assert bundle.manifest["inputs"] == {"package": package.fingerprint}
    assert found["bad request refused"].value == 400


def test_a_package_that_answers_otherwise_fails_with_the_server_s_sentence(tmp_path: Path):
    """Golden answers of another model: the server does not begin, and the verdict says why."""
    package = make_package(tmp_path / "package", golden_shift=0.1)

    verdict = verdict_of(infra.validate(package, tmp_path / "infra", now=NOW))

    assert verdict.outcome is Outcome.FAIL
    assert "answered otherwise than recorded" in verdict.reason


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import no_such_server", "needs penstock[serve]"),
        ("raise SystemExit(7)", "it ended with 7 and said nothing"),
        ("import time; time.sleep(60)", "it was not ready in time"),
    ],
    ids=["library missing", "silent end", "never ready"],
)
def test_a_server_that_cannot_start_is_an_error_and_no_pass(
    tmp_path: Path, program: str, said: str
):
    """A missing library says nothing of the package, so it is neither a pass nor a failure."""
    package, command = make_package(tmp_path / "package"), (sys.executable, "-c", program)

    bundle = infra.validate(package, tmp_path / "infra", now=NOW, command=command, ready_s=2)

    assert verdict_of(bundle).outcome is Outcome.ERROR
    assert said in verdict_of(bundle).reason


LOGITS = [[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]]
CONTRACT = Contract(
    workload="credit",
    classes=2,
    threshold=0.2,
    rows=64,
    features=(Feature(name="use", dtype="double"), Feature(name="late", dtype="int64")),
)
GOLDEN = {
    "tolerance": 1e-3,
    "requests": [
        {"instance": {"use": 0.1 * n, "late": n}, "logits": row} for n, row in enumerate(LOGITS)
    ],
}
ROWS = [[float(p) for p in row] for row in probabilities(np.array(LOGITS))]
LABELS = [int(row[1] >= 0.2) for row in ROWS]


def v1(label: int, row: list[float]) -> Answer:
    return Answer(status=200, document={"predictions": [{"label": label, "probability": row}]})


def v2(labels: list[int], rows: list[list[float]]) -> Answer:
    tensors = [
        {"name": "label", "shape": [len(rows)], "data": labels},
        {"name": "probability", "shape": [len(rows), 2], "data": [p for row in rows for p in row]},
    ]
    return Answer(status=200, document={"outputs": tensors})


NAMED = {
    "inputs": [{"name": "use"}, {"name": "late"}],
    "outputs": [{"name": "label"}, {"name": "probability"}],
}


def right() -> Seen:
    """Return what a server shows that answers right."""
    return Seen(
        ready_s=1.0,
        metadata=Answer(status=200, document=NAMED),
        v1=[v1(n, row) for n, row in zip(LABELS, ROWS, strict=True)],
        v2=[v2([n], [row]) for n, row in zip(LABELS, ROWS, strict=True)],
        batch=v2(LABELS, ROWS),
        bad=Answer(status=400, document={"error": "no"}),
        after=v2(LABELS[:1], ROWS[:1]),
        timed_ms=[1.0, 2.0],
        exit_code=0,
    )


NO_ANSWER = Answer(status=0, document="ConnectionRefusedError()")
BROKEN = Answer(status=500, document={"error": "the model failed"})
ODD = Answer(status=200, document={"predictions": [{}], "outputs": []})
OTHERWISE = [[0.7, 0.3]] * 3

WRONG = {
    "metadata names another input": (
        "metadata",
        {"metadata": Answer(status=200, document={**NAMED, "inputs": [{"name": "pixels"}]})},
        "fail",
    ),
    "metadata is something else": ("metadata", {"metadata": v2(LABELS, ROWS)}, "error"),
    "no metadata": ("metadata", {"metadata": BROKEN}, "error"),
    "v1 answers otherwise": (
        "golden answers, v1",
        {"v1": [v1(1, row) for row in OTHERWISE]},
        "fail",
    ),
    "v1 says nothing of a row": ("golden answers, v1", {"v1": right().v1[:2]}, "error"),
    "v2 answers otherwise": (
        "golden answers, v2",
        {"v2": [v2([1], [row]) for row in OTHERWISE]},
        "fail",
    ),
    "v2 answers right and says that it failed": (
        "golden answers, v2",
        {"v2": [replace(answer, status=503) for answer in right().v2]},
        "error",
    ),
    "v2 breaks": ("golden answers, v2", {"v2": [BROKEN] * 3}, "error"),
    "v2 is not an answer": ("golden answers, v2", {"v2": [ODD] * 3}, "error"),
    "v2 says nan": ("golden answers, v2", {"v2": [v2([1], [[float("nan")] * 2])] * 3}, "fail"),
    "a batch answers otherwise": ("a batch of 3", {"batch": v2([1, 1, 1], OTHERWISE)}, "fail"),
    "no batch": ("a batch of 3", {"batch": None}, "error"),
    "the label is not what the threshold decides": (
        "labels",
        {"batch": v2([0, 0, 0], ROWS)},
        "fail",
    ),
    "a bad request is answered": ("bad request refused", {"bad": right().batch}, "fail"),
    "a bad request breaks it": ("bad request refused", {"bad": BROKEN}, "fail"),
    "a bad request ends it": ("bad request refused", {"bad": NO_ANSWER}, "error"),
    "it answers no more": ("after a bad request", {"after": NO_ANSWER}, "error"),
    "nothing was timed": ("latency", {"timed_ms": []}, "error"),
    "it does not end": ("ends when asked", {"exit_code": None}, "fail"),
    "it is killed": ("ends when asked", {"exit_code": -9}, "fail"),
    "the package does not serve": (
        "server ready",
        {"ready_s": None, "said": "not serving version 0: no golden requests"},
        "fail",
    ),
    "no server": ("server ready", {"ready_s": None, "said": "ModuleNotFoundError"}, "error"),
}


def test_everything_right_is_a_pass():
    """The base of the table below: without a fault there is nothing to find."""
    verdict = infra.judge(CONTRACT, GOLDEN, right())

    assert verdict.outcome is Outcome.PASS, str(verdict)


@pytest.mark.parametrize(("name", "over", "outcome"), WRONG.values(), ids=WRONG)
def test_one_thing_wrong_is_no_pass_and_named(name: str, over: dict[str, Any], outcome: str):
    """What is wrong is found by its check; what was not seen is an error."""
    verdict = infra.judge(CONTRACT, GOLDEN, replace(right(), **over))

    assert {c.name: c.outcome for c in verdict.checks}[name] == outcome
    assert verdict.outcome is not Outcome.PASS


def test_on_the_edge_of_the_threshold_all_ways_decide_alike():
    """Where rounding allows both labels, one protocol may still not say another than the other."""
    edge = replace(CONTRACT, threshold=ROWS[0][1])
    labels = [int(row[1] >= ROWS[0][1]) for row in ROWS]
    alike = {
        "v1": [v1(n, row) for n, row in zip(labels, ROWS, strict=True)],
        "v2": [v2([n], [row]) for n, row in zip(labels, ROWS, strict=True)],
        "batch": v2(labels, ROWS),
    }
    apart = {**alike, "v1": [v1(0, ROWS[0]), *alike["v1"][1:]]}

    def outcome(over: dict[str, Any]) -> Outcome:
        return infra.judge(edge, GOLDEN, replace(right(), **over)).outcome

    assert (outcome(alike), outcome(apart)) == (Outcome.PASS, Outcome.FAIL)


def test_without_golden_requests_nothing_shows_that_it_is_right():
    """No evidence is no pass, though the server answered every request it got: none."""
    seen = replace(right(), v1=[], v2=[], batch=v2([], []), after=v2([], []))

    verdict = infra.judge(CONTRACT, {"tolerance": 1e-3, "requests": []}, seen)

    assert verdict.outcome is Outcome.ERROR


@given(
    hnp.arrays(np.float64, (4, 3), elements=st.floats(-30, 30)),
    hnp.arrays(np.float64, (4, 3), elements=st.floats(-1e-3, 1e-3)),
)
def test_logits_within_tolerance_pass_as_probabilities(logits_nk: np.ndarray, moved_nk: np.ndarray):
    """Half the tolerance of logits is never too strict for probabilities, whatever they are."""
    golden = {"tolerance": 1e-3, "requests": [{"logits": row.tolist()} for row in logits_nk]}
    rows = [(0, row) for row in probabilities(logits_nk + moved_nk).tolist()]

    check = infra._golden("golden answers", golden, lambda: rows)

    assert check.outcome is Outcome.PASS


def test_requests_of_either_protocol_hold_every_feature_of_a_golden_row():
    """v1 sends rows as objects, or as the row itself where it is all; v2 one tensor a feature."""
    requests = GOLDEN["requests"]
    pixels = Feature(name="pixels", dtype="list<element: float>", length=2)
    images = replace(CONTRACT, features=(pixels,))
    plain = [{"instance": {"pixels": [1.0, 2.0]}}, {"instance": {"pixels": [3.0, 4.0]}}]

    assert probe.v1_body(CONTRACT, requests)["instances"][1] == {"use": 0.1, "late": 1}
    assert probe.v2_body(CONTRACT, requests)["inputs"][1] == {
        "name": "late",
        "shape": [3],
        "datatype": "INT64",
        "data": [0, 1, 2],
    }
    assert probe.v1_body(images, plain) == {"instances": [[1.0, 2.0], [3.0, 4.0]]}
    assert probe.v2_body(images, plain)["inputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0]
    assert probe.v2_body(images, plain)["inputs"][0]["shape"] == [2, 2]
