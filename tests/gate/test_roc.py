"""Laws of the ROC's thresholds: each is where its point of the curve is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.gate.numbers import roc, roc_thresholds
from penstock.stats.scored import Scored

PAIRS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0])), min_size=2
)


@given(PAIRS.filter(lambda pairs: len({label for label, _ in pairs}) == 2))
def test_deciding_from_a_threshold_gives_its_point(pairs: list[tuple[int, float]]):
    """Falling from 1, which nobody reaches, to the lowest score, from which everybody is 1."""
    labels, odds = (np.array(column) for column in zip(*pairs, strict=True))
    logits = np.column_stack([np.zeros(len(odds)), odds])
    scored = Scored(labels_n=labels, logits_nk=logits, threshold=0.5)
    probability_n = 1 / (1 + np.exp(-odds))

    points, thresholds = roc(scored), roc_thresholds(scored)

    assert points is not None
    assert thresholds[0] == 1
    assert thresholds == sorted(thresholds, reverse=True)
    for (false, true), threshold in zip(points, thresholds, strict=True):
        decided = probability_n >= threshold - 1e-9
        assert np.isclose(false, decided[labels == 0].mean())
        assert np.isclose(true, decided[labels == 1].mean())
