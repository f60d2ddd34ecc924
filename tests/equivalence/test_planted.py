"""Laws of the ladder: a wrong graph is caught at its step, on its slice, and in its layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from penstock.equivalence import locate
from penstock.equivalence.climb import Ladder
from penstock.equivalence.ladder import Step
from penstock.equivalence.written import line
from penstock.verdict import Outcome
from penstock.workload import Limits, Rung
from tests.equivalence.conftest import Climb, Planting
from tests.equivalence.tabular import RARE_CITY

LAYERS = ("deep.0", "deep.2", "deep.4")


def edited(change: Callable[[onnx.ModelProto], None]) -> Planting:
    """Return what rewrites a graph's file."""

    def plant(path: Path) -> None:
        model = onnx.load(path)
        change(model)
        onnx.save(model, path)

    return plant


def constant(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Planting:
    """Return what rewrites one constant."""

    def plant(model: onnx.ModelProto) -> None:
        (held,) = [i for i in model.graph.initializer if i.name == name]
        made = change(numpy_helper.to_array(held).copy())
        held.CopyFrom(numpy_helper.from_array(made, name))

    return edited(plant)


def swapped_channels(path: Path, layer: str) -> None:
    """Give the first output channel of a layer to the second, and the other way round."""
    for name in (f"{layer}.weight", f"{layer}.bias"):
        constant(name, lambda v: v[[1, 0, *range(2, len(v))]])(path)


def numbers_one_off(model: onnx.ModelProto) -> None:
    """Take each numeric column for the next one, and the last for the first."""
    order = numpy_helper.from_array(np.array([0, 1, 3, 4, 2]), "one_off")
    model.graph.initializer.append(order)
    for node in model.graph.node:
        node.input[:] = ["rolled" if name == "inputs" else name for name in node.input]
    model.graph.node.insert(
        0, helper.make_node("Gather", ["inputs", "one_off"], ["rolled"], axis=1)
    )


def other_city(values: np.ndarray) -> np.ndarray:
    """Change what is known of one city that few clients live in."""
    values[RARE_CITY] += [0.9, -0.9, 0.9, -0.9]
    return values


def step(found: Ladder, name: str) -> Step:
    """Return one step of a ladder."""
    return next(s for s in (*found.steps, *found.engines.steps) if s.name == name)


def failed(found: Step) -> set[str]:
    """Return the slices on which a step fails."""
    return {p.found.slice for p in (*found.parts, *found.beyond) if p.outcome is Outcome.FAIL}


def test_what_nobody_touched_passes(climbing: Climb):
    """Otherwise the tests below could not fail."""
    found = climbing()

    assert found.verdict.outcome is Outcome.PASS
    assert all(located.said is None for located in found.located.values())
    assert "goes wrong" not in line(found)


@pytest.mark.parametrize("layer", LAYERS)
def test_swapped_channels_of_an_exported_layer_are_found_there(climbing: Climb, layer: str):
    """Though the graph and the network have no name in common."""
    found = climbing(plant={"onnx": lambda path: swapped_channels(path, layer)})

    said = found.located["onnx"].said
    assert step(found, "onnx").failing is not None
    assert said == f"Linear {layer}: the graph computes nothing like its output"
    assert f"onnx goes wrong at Linear {layer}" in line(found)


@pytest.mark.parametrize("layer", LAYERS)
def test_swapped_channels_of_a_simplified_layer_are_found_there(climbing: Climb, layer: str):
    """By the names of tensors that both graphs have."""
    found = climbing(plant={"simplified": lambda path: swapped_channels(path, layer)})

    assert step(found, "onnx").failing is None
    said = found.located["simplified"].said
    assert said is not None
    name = "logits" if layer == LAYERS[-1] else f"/deep/{layer}/Gemm_output_0"
    assert said.startswith(f"Gemm {name}, ")


@pytest.mark.parametrize("layer", LAYERS)
def test_a_wrong_scale_in_one_int8_layer_is_found_there(climbing: Climb, layer: str):
    """The steps before it are right, and said to be."""
    wrong = constant(f"{layer}.weight_axis0_scale", lambda v: v * 4)

    found = climbing(plant={"int8": wrong})

    assert step(found, "simplified").failing is None
    assert "all" in failed(step(found, "int8"))
    said = found.located["int8"].said
    assert said is not None
    name = "logits" if layer == LAYERS[-1] else f"/deep/{layer}/Gemm_output_0"
    assert said.startswith(f"Gemm {name}, ")
    assert "on the 64 worst inputs of 'all'" in said


def test_a_wrong_scale_in_the_graph_for_cpus_is_found_there(climbing: Climb):
    """And in no other step, not even that of the engines' int8 graph beside it."""
    wrong = constant("deep.2.weight_scale", lambda v: v * 4)

    found = climbing(plant={"int8-cpu": wrong})

    assert [s.name for s in (*found.steps, *found.engines.steps) if s.failing] == ["int8-cpu"]
    said = found.located["int8-cpu"].said
    assert said is not None
    assert said.startswith("Relu /deep/deep.3/Relu_output_0, ")
    assert said.endswith(", as its nodes say, unfused")


def test_features_that_are_one_off_are_found_before_the_first_layer(climbing: Climb):
    """The first module that sees them is named, and that its input is wrong already."""
    found = climbing(plant={"onnx": edited(numbers_one_off)})

    assert "all" in failed(step(found, "onnx"))
    assert found.located["onnx"].said == (
        "Linear deep.0: the graph computes nothing like its output, nor like what goes into it"
    )


def test_one_category_that_is_wrong_fails_on_its_slice_alone(climbing: Climb):
    """All rows keep every limit; the people of one city do not, and the embedding is named."""
    found = climbing(plant={"int8": constant("city.weight", other_city)})

    int8 = step(found, "int8")
    assert int8.parts[0].outcome is Outcome.PASS
    assert "far city" in failed(int8)
    said = found.located["int8"].said
    assert said is not None
    assert said.startswith("Gather /city/Gather_output_0, ")
    assert "of 'far city'" in said
    slices = climbing.holdout.slices()
    looked_at = locate.inputs_of(int8, found.outputs, slices, climbing.holdout)
    assert (looked_at[:, 0] == RARE_CITY).all()


def test_outputs_that_are_no_numbers_fail_and_are_found(climbing: Climb):
    """A NaN in one weight reaches every answer."""

    def poisoned(values: np.ndarray) -> np.ndarray:
        values[0, 0] = np.nan
        return values

    found = climbing(plant={"simplified": constant("deep.2.weight", poisoned)})

    checks = {c.name: c.outcome for c in step(found, "simplified").checks}
    assert checks["simplified all finite"] is Outcome.FAIL
    assert Outcome.PASS not in checks.values()
    said = found.located["simplified"].said
    assert said is not None
    assert said.startswith("Gemm /deep/deep.2/Gemm_output_0, -400.0 dB")


def test_a_failure_that_no_layer_explains_is_said_so(climbing: Climb):
    """Where every layer keeps its limit, the noisiest one is named as no more than that."""
    found = climbing(plant={"int8": constant("deep.4.bias", lambda v: v + np.float32([0, 0.3]))})
    lax = Limits(min_agreement=1.0, max_metric_drop=0.0, min_snr_db=-100.0)

    said = locate.in_graphs(
        step(found, "int8"),
        climbing.graphs,
        climbing.holdout.pick(np.arange(64)),
        Rung(whole=lax, slices=lax),
    ).said

    assert said is not None
    assert said.startswith("no layer in particular: all keep -100 dB on the 64 worst inputs")
    assert "the noisiest is Gemm logits, " in said
