"""Laws of the fallback: it ends, it keeps the tolerance where it may, and takes what helps most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.quantize.fallback import State, fall_back

LAYERS = ("a", "b", "c", "d")


def noisy(noise: dict[frozenset[str], float], limit: float = 1.0):
    """Return an evaluation where each set of float layers has a noise, none when all are float."""

    def evaluate(kept: frozenset[str]) -> State:
        level = 0.0 if len(kept) == len(LAYERS) else noise.get(kept, 0.0)
        gaps = {"noise": level - limit} if level > limit else {}
        return State(gaps=gaps, snr_db=-level)

    return evaluate


SETS = [frozenset(x for i, x in enumerate(LAYERS) if bits >> i & 1) for bits in range(16)]
NOISES = st.lists(st.floats(0, 3), min_size=16, max_size=16).map(
    lambda levels: dict(zip(SETS, levels, strict=True))
)


@given(noise=NOISES)
def test_without_a_limit_the_tolerance_is_kept(noise: dict[frozenset[str], float]):
    """However the noise of layers combines, and the state is that of the layers returned."""
    evaluate = noisy(noise)

    found = fall_back(LAYERS, evaluate, most=None)

    assert not found.state.gaps
    assert evaluate(frozenset(found.keep_float)) == found.state


@given(noise=NOISES, most=st.integers(0, 4))
def test_no_more_layers_go_back_than_may(noise: dict[frozenset[str], float], most: int):
    """With fewer the tolerance may be missed, and then it says by how much."""
    evaluate = noisy(noise)

    found = fall_back(LAYERS, evaluate, most=most)

    assert len(found.steps) <= most
    assert evaluate(frozenset(found.keep_float)) == found.state


@given(noise=NOISES)
def test_no_layer_stays_in_float_for_nothing_but_the_last(noise: dict[frozenset[str], float]):
    """Each was tried in int8 again, with what stayed in float then."""
    evaluate = noisy(noise)

    found = fall_back(LAYERS, evaluate, most=None)

    kept = found.keep_float
    if len(kept) > 1:
        assert evaluate(frozenset(kept) - {kept[-2]}).gaps


def test_a_graph_that_keeps_its_tolerance_is_left_alone():
    assert fall_back(LAYERS, noisy({}), most=None).steps == ()


def test_a_step_that_makes_it_worse_does_not_stop_it():
    """Floating any one layer adds noise here; two of them together take it away."""
    noise = dict.fromkeys(SETS, 2.5)
    noise[frozenset()] = 2.0
    noise[frozenset("c")] = 2.4
    noise[frozenset("ac")] = 0.5

    found = fall_back(LAYERS, noisy(noise), most=None)

    assert found.keep_float == ("c", "a")
    assert "by 1 and is beyond it by 1.4" in found.steps[0].why
    assert "keeps it" in found.steps[1].why


@given(noise=NOISES, start=st.sets(st.sampled_from(LAYERS)), most=st.integers(0, 4) | st.none())
def test_layers_in_float_from_the_start_stay_and_count(
    noise: dict[frozenset[str], float], start: set[str], most: int | None
):
    """They come first, none goes back twice, and with the others they are no more than may."""
    evaluate = noisy(noise)

    found = fall_back(LAYERS, evaluate, most=most, start=sorted(start))

    kept = found.keep_float
    assert kept[: len(start)] == tuple(sorted(start))
    assert len({*kept}) == len(kept)
    assert evaluate(frozenset(kept)) == found.state
    if most is None:
        assert not found.state.gaps
    else:
        assert len(kept) <= max(most, len(start))


def test_what_helps_most_goes_first_and_equals_in_order():
    """Of gaps in different units the share that is left counts, then the noise."""

    def evaluate(kept: frozenset[str]) -> State:
        if not kept:
            return State(gaps={"decibels": 10.0, "share": 0.01}, snr_db=0)
        by_layer = {
            "a": {"decibels": 1.0, "share": 0.01},  # 110 % left
            "b": {"decibels": 9.0},  # 90 %
            "c": {"share": 0.009},  # 90 %, and less noise
            "d": {"new": 0.001},  # a check that fails only now counts whole
        }
        return State(gaps=by_layer[min(kept)], snr_db=2 if "c" in kept else 1)

    assert fall_back(LAYERS, evaluate, most=1).keep_float == ("c",)


def test_a_layer_that_went_back_early_is_spared_when_it_is_not_needed():
    """It was the best alone, and those that went after it are enough without it."""
    noise = dict.fromkeys(SETS, 3.0)
    noise |= {frozenset(name): 2.0 for name in "bcd"}
    noise |= {frozenset("a"): 1.5, frozenset("ab"): 1.4, frozenset("abc"): 0.5}
    noise |= {frozenset("bc"): 0.4}

    found = fall_back(LAYERS, noisy(noise), most=None)

    assert [step.layer for step in found.steps] == ["a", "b", "c"]
    assert found.spared == ("a",)
    assert found.keep_float == ("b", "c")
    assert found.state.snr_db == -0.4
