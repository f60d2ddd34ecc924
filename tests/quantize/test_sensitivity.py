"""Laws of sensitivity: a destroyed slice is seen, and the layers that destroy it stay in float."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.quantize import calibration, graph, sensitivity
from penstock.quantize.running import logits
from penstock.quantize.validation import Score
from penstock.stats.drops import Drop
from penstock.workload import Calibrator, Limits, Network, Quantize
from tests.quantize import graphs

WHOLE = Limits(min_agreement=0.95, max_metric_drop=0.005, min_snr_db=15.0)
TAIL = Limits(min_agreement=0.97, max_metric_drop=0.05, min_snr_db=15.0, max_probability_change=0.1)
ANYTHING = Limits(min_agreement=0.0, max_metric_drop=1.0)
OF = graphs.tabular()
CUT = 3000
"""Rows before it set the ranges, the others judge."""


def measured(*, tail: Limits = TAIL, most: int | None = None) -> sensitivity.Sensitivity:
    """Return the sensitivity of the tabular network with percentile ranges."""
    rules = graphs.declared(whole=WHOLE, tail=tail)
    validation = graphs.validation(OF, rules, start=CUT)
    return sensitivity.measure(OF.network, thresholds(rules), validation, most=most)


def thresholds(rules) -> dict[str, float]:
    """Return percentile ranges from the older rows."""
    validation = graphs.validation(OF, rules, start=CUT)
    found = calibration.calibrate(OF.network, OF.inputs_n[:CUT], validation, rules.quantize)
    return dict(found.best.thresholds)


def test_all_is_well_overall_while_a_slice_is_destroyed():
    """Clipping a heavy tail leaves the metric and the agreement of all rows as they were."""
    rules = graphs.declared(whole=WHOLE, tail=TAIL)
    validation = graphs.validation(OF, rules, start=CUT)

    gaps = validation.gaps(
        logits(graph.quantize(OF.network, thresholds(rules)), validation.inputs_n)
    )

    assert not [name for name in gaps if name.startswith("int8 all")]
    assert gaps["int8 tail signal to noise (dB)"] > 5


def test_however_few_the_validation_rows_are_all_of_them_decide():
    """Fewer than a slice needs: to judge nothing would keep every tolerance."""
    rules = graphs.declared(whole=WHOLE, tail=TAIL)
    validation = graphs.validation(OF, rules, start=len(OF.inputs_n) - 20)

    assert "int8 all agreement" in validation.gaps(-validation.reference_nk)


def test_layers_go_back_to_float_until_the_slice_is_well():
    """Those that see the tail, with the reason; the last one stays in int8."""
    found = measured()

    assert sorted(found.found.keep_float) == ["first", "second"]
    assert not found.found.state.gaps
    document = found.to_dict()
    why = {layer["layer"]: layer["why"] for layer in document["layers"]}
    assert why["third"] is None
    assert "was beyond its limit" in why["first"]
    assert [layer["float"] for layer in document["layers"]].count(True) == 2


def test_nothing_goes_back_where_the_slice_may_suffer():
    """The tolerance decides, not the noise."""
    assert measured(tail=ANYTHING).found.keep_float == ()


def test_a_slice_with_too_few_rows_decides_nothing():
    """What cannot be judged is no reason to leave int8; the equivalence stage says it is unseen."""
    rules = graphs.declared(whole=WHOLE, tail=TAIL)
    validation = graphs.validation(OF, rules, start=CUT)
    few = np.flatnonzero(validation.slices["tail"])[20:]
    validation.slices["tail"][few] = False

    found = sensitivity.measure(OF.network, thresholds(rules), validation, most=None)

    assert found.found.keep_float == ()


def test_where_the_limit_of_float_layers_is_met_first_it_says_what_still_fails():
    found = measured(most=1).found

    assert len(found.keep_float) == 1
    assert any(name.startswith("int8 tail") for name in found.state.gaps)


def test_layers_are_ranked_by_what_they_suffer_alone():
    """Alone, each is one quantized layer in a float graph; the worst comes first."""
    rules = graphs.declared(whole=WHOLE, tail=TAIL)
    validation = graphs.validation(OF, rules, start=CUT)
    ranges = thresholds(rules)
    ranked = measured().to_dict()["layers"]

    noise = [layer["snr_db"] for layer in ranked]
    assert noise == sorted(noise)
    others = {"first", "second", "third"} - {ranked[0]["layer"]}
    alone = graph.quantize(OF.network, ranges, keep_float=others)
    assert validation.score(logits(alone, validation.inputs_n)).snr_db == noise[0]


def test_noise_in_the_whole_graph_grows_with_what_came_before():
    """The first product's output is as noisy as that layer alone makes it."""
    rules = graphs.declared(whole=WHOLE, tail=TAIL)
    ranges = thresholds(rules)
    layers = graph.layers(OF.network)
    whole = sensitivity.noise_of(
        OF.network, graph.quantize(OF.network, ranges), layers, OF.inputs_n[CUT:]
    )
    alone = graph.quantize(OF.network, ranges, keep_float={"second", "third"})

    assert list(whole) == ["a1", "a2", "y"]
    first = sensitivity.noise_of(OF.network, alone, layers, OF.inputs_n[CUT:])
    assert whole["a1"] == first["a1"]
    assert whole["y"] < first["y"]


def test_of_calibrators_that_the_metric_cannot_tell_apart_the_least_noisy_is_kept():
    """All are tried on the validation rows; the one with the best metric need not be better."""
    rules = graphs.declared(whole=WHOLE, tail=TAIL, quantize=Quantize(percentile=99.9))
    # Few rows, whose metric is mostly chance: the noisier one comes out ahead by some of them.
    found = calibrated(rules, rows=200)
    by_metric = max(found.tried, key=lambda t: t.score.metric or 0)

    assert [t.method for t in found.tried] == list(Calibrator)
    assert found.best.score.snr_db == max(t.score.snr_db for t in found.tried)
    assert by_metric.score.snr_db < found.best.score.snr_db
    assert not found.best.worse


def test_a_calibrator_whose_metric_is_surely_worse_is_not_kept_for_its_noise():
    """The interval of how far it is short of the best lies above zero."""
    low, high = (
        calibration.Tried(
            method=method, thresholds={}, score=Score(metric=metric, agreement=0.9, snr_db=db),
            short=Drop(metric=metric, value=0.8 - metric, low=low, high=0.2),
        )
        for method, metric, db, low in (
            (Calibrator.MINMAX, 0.7, 40.0, 0.01), (Calibrator.ENTROPY, 0.8, 20.0, 0.0)
        )
    )  # fmt: skip
    found = calibration.Calibration(observed={}, tried=[low, high], rows=1, inputs="")

    assert found.best is high


def calibrated(rules: Network, *, rows: int) -> calibration.Calibration:
    """Return what was tried, judged on so many rows."""
    validation = graphs.validation(OF, rules, start=len(OF.inputs_n) - rows)
    return calibration.calibrate(OF.network, OF.inputs_n[:CUT], validation, rules.quantize)


def test_equals_are_told_apart_by_noise_and_then_by_order():
    """The same ranges under two names: the first declared is kept."""
    twice = Quantize(calibrators=(Calibrator.PERCENTILE, Calibrator.MINMAX), percentile=100.0)
    rules = graphs.declared(whole=WHOLE, tail=TAIL, quantize=twice)
    validation = graphs.validation(OF, rules, start=CUT)

    found = calibration.calibrate(OF.network, OF.inputs_n[:CUT], validation, twice)

    assert found.tried[0].score == found.tried[1].score
    assert found.best.method is Calibrator.PERCENTILE


def test_without_a_calibrator_there_are_no_ranges():
    rules = graphs.declared(whole=WHOLE, tail=TAIL)
    validation = graphs.validation(OF, rules, start=CUT)

    with pytest.raises(ValueError, match="calibrators is empty"):
        calibration.calibrate(OF.network, OF.inputs_n, validation, Quantize(calibrators=()))
