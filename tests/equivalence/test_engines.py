"""Laws of the last rung: only an engine that ran is evidence; how near it must be is derived."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.bundle import Bundle, BundleError, hash_file, read, write_json
from penstock.equivalence import engines, inputs
from penstock.equivalence.written import document, line
from penstock.verdict import Outcome, Verdict
from penstock.workload import Engine, Limits, Rung
from tests import bundles
from tests.equivalence.conftest import Climb
from tests.equivalence.tabular import DECLARED

INT8 = DECLARED.equivalence.int8
BUILT = bundles.backend("tensorrt-rtx", "built", "this machine has no GPU")
NOT_BUILT = bundles.backend("tensorrt", "not built", "tensorrt is not installed")


def noisy(logits_nk: np.ndarray, *, db: float) -> np.ndarray:
    """Return outputs with so much noise."""
    noise = np.random.default_rng(8).normal(size=logits_nk.shape)
    scale = np.linalg.norm(logits_nk) / np.linalg.norm(noise) / 10 ** (db / 20)
    return logits_nk + scale * noise


def some_golden(n: int = 60) -> engines.Golden:
    """Return golden rows with one slice of a third."""
    logits = np.random.default_rng(2).normal(size=(n, 2))
    return engines.Golden(
        inputs_n=np.zeros((n, 3), np.float32),
        labels_n=np.arange(n) % 2,
        int8_nk=logits,
        slices={"third": np.arange(n) % 3 == 0},
    )


def test_the_tolerance_follows_the_jitter_floor(climbing: Climb):
    """An engine 7 dB below the floor passes its signal to noise; one 13 dB below fails."""
    floor_db = climbing().floor_db["all"]

    def outcome(below_db: float) -> Outcome:
        found = climbing(engine=lambda logits: noisy(logits, db=floor_db - below_db))
        (ran,) = found.engines.steps
        checks = {c.name: c.outcome for c in ran.checks}
        return checks["onnxruntime all signal to noise (dB)"]

    assert (outcome(7), outcome(13)) == (Outcome.PASS, Outcome.FAIL)


@given(st.floats(-400, 400), st.floats(-400, 400))
def test_a_derived_limit_is_never_laxer_than_25_db_nor_closer_than_it_can_be(
    whole_db: float, third_db: float
):
    """Ten below the floor of each slice, and of each slice one decision may go the other way."""
    golden = some_golden()

    rung = engines.derived({"all": whole_db, "third": third_db}, golden, INT8)

    for floor_db, limits in ((whole_db, rung.whole), (third_db, rung.limits("third"))):
        assert limits.min_snr_db is not None
        assert 25 <= limits.min_snr_db <= 50
        if 35 <= floor_db <= 60:
            assert limits.min_snr_db == floor_db - 10
    assert rung.whole.min_agreement == 0.995
    assert rung.limits("third").min_agreement == 1 - 1 / 20
    assert rung.limits("third").max_metric_drop == INT8.slices.max_metric_drop


def test_a_declared_tolerance_is_taken_as_it_is(climbing: Climb):
    """The floor is still measured, and written."""
    exact = Limits(min_agreement=1.0, max_metric_drop=0.0, min_snr_db=300.0)
    rules = replace(DECLARED.equivalence, engine=Rung(whole=exact, slices=exact))

    found = climbing(
        engine=lambda logits: noisy(logits, db=120),
        declared=replace(DECLARED, equivalence=rules),
    )

    (ran,) = found.engines.steps
    assert ran.failing is not None
    assert document(found)["floor"]["snr_db"]["all"] < 100


def test_engines_that_did_not_run_are_named_and_pass_nothing(climbing: Climb):
    """They are in the document and in the line, and make no check."""
    found = climbing(others=(BUILT, NOT_BUILT))

    names = [c.name for c in found.verdict.checks]
    assert not any("tensorrt" in name for name in names)
    assert [e["state"] for e in document(found)["engines"]] == ["run", "built", "not built"]
    said = line(found)
    assert "; tensorrt-rtx built, not run; tensorrt not built; " in said


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ((NOT_BUILT,), "not built: tensorrt is not installed"),
        ((bundles.backend("tensorrt", "built"),), "built, not run: no reason was recorded"),
        ((), "it was not tried"),
    ],
)
def test_an_engine_that_is_required_and_did_not_run_is_an_error(
    climbing: Climb, others: tuple[dict[str, object], ...], reason: str
):
    """Whatever the other engines did."""
    required = replace(DECLARED, engine=Engine(required=("tensorrt",)))

    found = climbing(others=others, declared=required)

    assert found.verdict.outcome is Outcome.ERROR
    (check,) = [c for c in found.verdict.checks if c.outcome is Outcome.ERROR]
    assert (check.name, check.reason) == ("tensorrt ran", reason)


def test_a_required_engine_that_ran_is_judged_as_any(climbing: Climb):
    """Running is not passing."""
    required = replace(DECLARED, engine=Engine(required=("onnxruntime",)))

    assert climbing(declared=required).verdict.outcome is Outcome.PASS
    broken = climbing(declared=required, engine=lambda logits: -logits)
    assert broken.verdict.outcome is Outcome.FAIL


def named(path: Path, graph: str, rows: str) -> Bundle:
    """Return an int8 bundle of a graph and golden rows of which only the names matter."""

    def fill(folder: Path) -> None:
        (folder / "model.int8.onnx").write_text(graph)
        (folder / "golden.npz").write_text(rows)

    return bundles.bundle(path, "int8", fill)


def judged(tmp_path: Path, outputs: dict[str, np.ndarray], *others: dict[str, object]) -> Verdict:
    """Return the verdict of engines on some golden rows."""
    golden = some_golden()
    int8 = named(tmp_path / "int8", "graph", "rows")
    made = read(bundles.engine(tmp_path / "engine", int8.path, outputs, *others), kind="engine")
    rung = engines.derived({}, golden, INT8)
    found = engines.judged(made, golden, rung, DECLARED)
    return Verdict((*(c for s in found.steps for c in s.checks), *found.checks))


def test_outputs_that_cannot_be_compared_are_an_error(tmp_path: Path):
    """Of another number of rows, or none at all though the engine is said to have run."""
    short = judged(tmp_path / "a", {"onnxruntime": some_golden().int8_nk[:-1]})
    none = judged(tmp_path / "b", {}, bundles.backend("onnxruntime", "run"))

    assert short.outcome is none.outcome is Outcome.ERROR
    assert "shape (59, 2), (60, 2) was wanted" in short.reason
    assert "it ran and left none" in none.reason


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_engine_with_an_output_that_is_no_number_fails(tmp_path: Path, value: float):
    """On one row of all."""
    outputs = some_golden().int8_nk.copy()
    outputs[4, 1] = value

    assert judged(tmp_path, {"onnxruntime": outputs}).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("graph", "rows", "said"),
    [
        ("other", "rows", "engines of another int8 graph"),
        ("graph", "other", "outputs on other golden rows"),
    ],
)
def test_engines_of_another_graph_or_of_other_rows_are_refused(
    tmp_path: Path, graph: str, rows: str, said: str
):
    """Their outputs would vouch for what they never saw."""
    own, other = named(tmp_path / "a", "graph", "rows"), named(tmp_path / "b", graph, rows)
    made = read(bundles.engine(tmp_path / "engine", own.path, {}), kind="engine")

    with pytest.raises(BundleError, match=f"{said} .* run the engine stage on .*b\\."):
        engines.require_made_from(made, other)
    engines.require_made_from(made, own)


def test_engines_that_do_not_say_what_they_are_of_are_refused(tmp_path: Path):
    """As a bundle of an earlier version, which knew no golden rows."""
    own = named(tmp_path / "a", "graph", "rows")
    said = {"backends": [], "onnx": hash_file(own.file("model.int8.onnx"))}
    old = bundles.bundle(
        tmp_path / "engine", "engine", lambda f: write_json(f / "engine.json", said)
    )

    with pytest.raises(BundleError, match=r"other golden rows \(not stated"):
        engines.require_made_from(old, own)


def test_the_golden_rows_have_their_rare_ones_too(digits: Path):
    """Beside the slices that the quantize stage wrote."""
    int8: Bundle = read(digits / "int8", kind="int8")
    sample = bundles.images(600, start=1197)

    found = engines.golden(int8, inputs.Centre(sample), least_rare=30)

    assert found.slices[inputs.RARE].sum() == 30
    assert "class 3" in found.slices
    assert len(json.dumps(engines.floor_db(found, found.int8_nk))) > 0
    assert set(engines.floor_db(found, found.int8_nk).values()) == {400.0}
