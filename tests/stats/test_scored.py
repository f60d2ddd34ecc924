"""Laws of scored rows: one label for each row of logits, and nothing decided of what is none."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.stats import metrics
from penstock.stats.scored import Scored

LOGITS = np.log(np.array([[0.7, 0.3], [0.9, 0.1], [0.2, 0.8]]))
LABELS = np.array([1, 0, 0])


def test_what_is_decided_and_right_follows_the_threshold():
    """At 0.3 the first row is a 1, by the most likely class it is a 0."""
    low, likely = (Scored(labels_n=LABELS, logits_nk=LOGITS, threshold=t) for t in (0.29, None))

    assert low.decided_n.tolist() == [1, 0, 1]
    assert low.right_n.tolist() == [1, 1, 0]
    assert likely.decided_n.tolist() == [0, 0, 1]
    assert low.probability_nk[:, 1] == pytest.approx([0.3, 0.1, 0.8])
    assert low.odds_n == pytest.approx(LOGITS[:, 1] - LOGITS[:, 0])


def test_a_row_that_is_no_number_is_known_and_never_right():
    """NaN decides nothing."""
    logits = LOGITS.copy()
    logits[1, 0] = np.nan
    scored = Scored(labels_n=LABELS, logits_nk=logits, threshold=0.5)

    assert scored.finite_n.tolist() == [True, False, True]
    assert scored.decided_n[1] == metrics.UNDECIDED
    assert scored.right_n[1] == 0


def test_a_part_keeps_rows_and_threshold():
    """As if only these had been scored."""
    part = Scored(labels_n=LABELS, logits_nk=LOGITS, threshold=0.5).part(
        np.array([True, False, True])
    )

    assert (part.n, part.classes, part.threshold) == (2, 2, 0.5)
    assert part.labels_n.tolist() == [1, 0]
    assert part.logits_nk == pytest.approx(LOGITS[[0, 2]])


@pytest.mark.parametrize(
    ("labels", "logits", "threshold", "said"),
    [
        (LABELS[:2], LOGITS, None, "of the same rows"),
        (LABELS, LOGITS[:, 0], None, "of the same rows"),
        (LABELS, LOGITS[:, :1], None, "1 classes"),
        (LABELS, np.zeros((3, 3)), 0.5, "3 classes"),
        (LABELS.astype(float), LOGITS, None, "whole numbers"),
        (LABELS + 1, LOGITS, None, "from 1 to 2"),
        (LABELS - 1, LOGITS, None, "from -1 to 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    labels: np.ndarray, logits: np.ndarray, threshold: float | None, said: str
):
    """And says what came."""
    with pytest.raises(ValueError, match=said):
        Scored(labels_n=labels, logits_nk=logits, threshold=threshold)
