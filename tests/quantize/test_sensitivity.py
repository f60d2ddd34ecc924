"""Laws of sensitivity: a destroyed slice is seen, and the layers that destroy it stay in float."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.quantize import calibration, graph, sensitivity
from penstock.quantize.running import logits
from penstock.workload import Calibrator, Limits, Quantize
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


def test_the_best_calibrator_by_the_metric_is_kept():
    """All are tried on the validation rows; the metric decides, then the noise, then the order."""
    quantize = Quantize(percentile=99.9)
    rules = graphs.declared(whole=WHOLE, tail=TAIL, quantize=quantize)
    validation = graphs.validation(OF, rules, start=CUT)
    found = calibration.calibrate(OF.network, OF.inputs_n[:CUT], validation, quantize)

    by_metric = {t.method: t.score.metric for t in found.tried}
    assert list(by_metric) == list(Calibrator)
    assert by_metric[found.best.method] == max(by_metric.values())
    assert len(set(by_metric.values())) == 3


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
