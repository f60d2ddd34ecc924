"""Laws of the test on counts of affected users, most of them computed exactly."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.eprocess import log_evidence, ratio

SHARE, ALPHA = 0.1, 0.01
EVENTS = st.integers(0, 400)
SHARES = st.floats(0.02, 0.98)


@cache
def limits(tested: float, most: int, share: float, *, swap: bool = False) -> list[int]:
    """Return with how many events of the first arm each total of 0 to ``most`` stops."""
    share, tested = (1 - share, 1 / tested) if swap else (share, tested)
    found, least = [], 0
    for n in range(most + 1):
        while least <= n and log_evidence(least, n - least, share=share, ratio=tested) < -math.log(
            ALPHA
        ):
            least += 1
        found.append(least)
    return found


def stopped(limit_n: list[int], chance: float) -> np.ndarray:
    """Return the chance to have stopped by each total, events being the first arm's so often."""
    alive, total, gone = np.zeros(len(limit_n) + 1), 0.0, []
    alive[0] = 1.0
    for n, limit in enumerate(limit_n):
        if n:
            alive[1:], alive[0] = (
                alive[1:] * (1 - chance) + alive[:-1] * chance,
                alive[0] * (1 - chance),
            )
        total += alive[limit:].sum()
        alive[limit:] = 0.0
        gone.append(total)
    return np.asarray(gone)


def chance(true: float, share: float = SHARE) -> float:
    """Return how often an event is the challenger's."""
    return share * true / (share * true + 1 - share)


@pytest.mark.parametrize("true", [1.0, 0.5])
def test_a_harmless_version_is_ever_stopped_with_chance_alpha_at_most(true: float):
    """Looked at after each of 3,000 events, no better or equal version is stopped more often."""
    assert 0.003 * (true == 1) < stopped(limits(1.0, 3000, SHARE), chance(true))[-1] <= ALPHA


@pytest.mark.parametrize(
    ("true", "golden"), [(1.5, 587), (2, 165), (3, 55), (5, 21), (10, 10)]
)  # fmt: skip
def test_planted_ratios_are_found_within_so_many_events(true: float, golden: int):
    """The median number of events of both arms is known; the specification allows 250 for twice."""
    gone = stopped(limits(1.0, 1000, SHARE), chance(true))

    assert int(np.searchsorted(gone, 0.5)) == golden


@pytest.mark.parametrize(("margin", "golden"), [(1.5, 619), (2.0, 185)])
def test_an_equal_version_is_shown_to_be_within_a_margin(margin: float, golden: int):
    """The median number of events until the ratio is shown to be below a margin is known."""
    gone = stopped(limits(margin, 1000, SHARE, swap=True), 1 - chance(1.0))

    assert int(np.searchsorted(gone, 0.5)) == golden


def test_a_version_beyond_the_margin_is_passed_with_chance_alpha_at_most():
    """Twice the rate is ever said to be below twice with chance alpha at most."""
    assert stopped(limits(2.0, 3000, SHARE, swap=True), 1 - chance(2.0))[-1] <= ALPHA


@given(SHARES, st.integers(0, 60), st.floats(0.05, 20), st.floats(0.05, 1))
def test_the_evidence_has_mean_one_at_most(share: float, n: int, tested: float, less: float):
    """At every total, over all ways to split it, where the ratio is the tested one or less."""
    p = chance(tested * less, share)
    weigh = [math.comb(n, a) * p**a * (1 - p) ** (n - a) for a in range(n + 1)]
    mean = sum(
        w * math.exp(log_evidence(a, n - a, share=share, ratio=tested))
        for a, w in enumerate(weigh)
        if w
    )

    assert mean <= 1 + 1e-6
    if less == 1:
        assert mean == pytest.approx(1)


@given(EVENTS, EVENTS, SHARES, st.floats(0.001, 0.2))
def test_bounds_hold_the_estimate(one: int, other: int, share: float, alpha: float):
    """The estimate is between the bounds, and the bounds are no nonsense."""
    found = ratio(one, other, share=share, alpha=alpha)

    assert 0 <= found.low <= found.high
    if found.estimate is not None:
        assert found.low <= found.estimate * (1 + 1e-9)
        assert found.high >= found.estimate * (1 - 1e-9)


@given(EVENTS, EVENTS, SHARES)
def test_arms_may_be_swapped(one: int, other: int, share: float):
    """The challenger's ratio is one over the champion's, bounds too."""
    found = ratio(one, other, share=share, alpha=0.01)
    swapped = ratio(other, one, share=1 - share, alpha=0.01)

    assert found.low * swapped.high == pytest.approx(1) or (found.low, swapped.high) == (
        0,
        math.inf,
    )


@given(EVENTS, EVENTS, SHARES)
def test_more_events_of_the_challenger_are_more_evidence(one: int, other: int, share: float):
    """A failing user more of the challenger never lowers a bound, of the champion never raises."""
    found = ratio(one, other, share=share, alpha=0.01)
    worse = ratio(one + 1, other, share=share, alpha=0.01)
    better = ratio(one, other + 1, share=share, alpha=0.01)

    slack = 1 + 1e-9
    assert better.low <= found.low * slack <= worse.low * slack**2
    assert better.high <= found.high * slack
    assert found.high <= worse.high * slack


@given(EVENTS, EVENTS, SHARES, st.floats(0.05, 20))
def test_bounds_are_where_the_evidence_reaches_the_limit(
    one: int, other: int, share: float, tested: float
):
    """A ratio is below the lower bound just where the evidence above it reaches 1 / alpha."""
    found = ratio(one, other, share=share, alpha=0.01)
    evidence = log_evidence(one, other, share=share, ratio=tested)

    if abs(evidence + math.log(0.01)) > 1e-6:
        assert (tested <= found.low) == (evidence > -math.log(0.01))


@given(EVENTS, EVENTS)
def test_a_stricter_level_is_wider(one: int, other: int):
    """A smaller alpha never narrows the bounds."""
    loose, strict = (ratio(one, other, share=0.1, alpha=a) for a in (0.1, 0.001))

    assert strict.low <= loose.low
    assert strict.high >= loose.high


def test_no_event_says_nothing():
    """Without an event every ratio is possible."""
    found = ratio(0, 0, share=0.1, alpha=0.05)

    assert (found.estimate, found.low, found.high) == (None, 0.0, math.inf)
    assert str(found) == "no events"


@pytest.mark.parametrize(
    "wrong",
    [
        {"challenger": -1},
        {"share": 0.0},
        {"share": 1.0},
        {"alpha": 0.0},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, float]):
    """A negative count, and a share that leaves an arm without users."""
    given_ = {"challenger": 1, "champion": 1, "share": 0.1, "alpha": 0.05, **wrong}
    with pytest.raises(ValueError, match=r"events|lie between"):
        ratio(int(given_["challenger"]), 1, share=given_["share"], alpha=given_["alpha"])
