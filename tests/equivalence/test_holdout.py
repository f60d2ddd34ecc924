"""Laws of reading the holdout: batch by batch, the same inputs as all at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.bundle import BundleError
from penstock.equivalence import holdout, running
from penstock.equivalence.holdout import Holdout
from tests.equivalence import tabular

N = 2500


@pytest.fixture
def held(tmp_path: Path) -> Holdout:
    """Clients in several row groups."""
    return tabular.holdout(tmp_path / "holdout.parquet", N)


def whole(held: Holdout) -> np.ndarray:
    """Return all inputs, made at once."""
    return tabular.training_input(pq.read_table(held.path))


def test_batches_are_the_whole(held: Holdout):
    """In order, each row once."""
    found = list(held.batches())

    assert len(found) > 2
    np.testing.assert_array_equal(np.concatenate(found), whole(held))


def test_rows_come_in_the_order_asked_for(held: Holdout):
    """From anywhere, also twice."""
    rows = np.array([N - 1, 3, 1500, 3, 0])

    np.testing.assert_array_equal(held.pick(rows), whole(held)[rows])
    assert held.keys(rows)[:2] == ['{"client": 2499}', '{"client": 3}']


def test_a_spread_of_rows_reaches_from_the_first_to_the_last(held: Holdout):
    """And never holds a row twice, nor more than there are."""
    found = held.spread(7)

    assert (len(found), found[0], found[-1]) == (7, 0, N - 1)
    assert len(held.spread(10 * N)) == N


def test_no_more_than_a_batch_is_ever_an_input(held: Holdout):
    """What the ladder keeps of all rows is what its steps gave."""
    seen: list[int] = []

    class Watched:
        def run(self, x_n: np.ndarray) -> np.ndarray:
            seen.append(len(x_n))
            return x_n[:, :2]

    def transform(rows: pa.Table) -> np.ndarray:
        seen.append(len(rows))
        return tabular.training_input(rows)

    found = running.run(
        replace(held, transform=transform), {"one": Watched(), "other": Watched()}, least_beyond=30
    )

    assert max(seen) <= holdout.BATCH < N
    np.testing.assert_array_equal(found.logits["other"], whole(held)[:, :2])
    assert found.rows[running.fingerprint(whole(held)[9])] == 9


def test_a_holdout_without_rows_is_refused(tmp_path: Path):
    """Nothing can be shown on none."""
    with pytest.raises(BundleError, match="has no rows"):
        tabular.holdout(tmp_path / "holdout.parquet", 0)


def test_a_slice_of_a_column_that_is_not_there_is_refused(held: Holdout):
    """By its own name, whatever the file holds."""
    missing = replace(tabular.DECLARED.slices[0], column="street")
    declared = replace(tabular.DECLARED, slices=(missing,))

    with pytest.raises(ValueError, match="looks at column 'street'"):
        replace(held, declared=declared).slices()
