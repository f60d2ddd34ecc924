"""Laws of shadow coverage: every mirrored request has its reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.predictions.coverage import coverage
from penstock.predictions.log import Predictions
from tests.predictions.logs import T0, journal, record

NOW = datetime.fromtimestamp(T0 + 100, UTC)


def copy(number: int, status: int) -> dict[str, Any]:
    """Return the shadow's record of a request."""
    return record(number, version="2", slot="b", mirrored=True, status=status)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([None, 200, 429, 500]), min_size=1, max_size=12))
def test_the_reasons_add_up(tmp_path_factory: Any, statuses: list[int | None]):
    """Mirrored requests are answered, refused, failed or missing, as their copies say."""
    folder = tmp_path_factory.mktemp("log")
    journal(folder / "a", [record(n) for n in range(len(statuses))])
    journal(folder / "b", [copy(n, s) for n, s in enumerate(statuses) if s is not None])
    span = {"since": datetime.fromtimestamp(T0, UTC), "until": NOW}

    found = coverage(Predictions(folder), champion="1", shadow="2", now=NOW, **span)

    assert found.mirrored == len(statuses)
    assert (found.joined, found.refused, found.failed, found.missing) == tuple(
        statuses.count(s) for s in (200, 429, 500, None)
    )
    assert found.share == statuses.count(200) / len(statuses)


def test_a_span_is_that_of_the_copies_and_the_youngest_may_still_come(tmp_path: Path):
    """Requests before the first and after the last copy were not mirrored; losses are told."""
    journal(tmp_path / "a", [record(n) for n in range(10)])
    journal(tmp_path / "b", [copy(n, 200) for n in (3, 4, 7)] + [copy(77, 200)])
    (tmp_path / "b" / "counters.json").write_text(json.dumps({"dropped": 1, "failed": 0}))

    now = datetime.fromtimestamp(T0 + 7.5, UTC)
    found = coverage(Predictions(tmp_path), champion="1", shadow="2", now=now)

    assert (found.mirrored, found.joined, found.recent, found.missing) == (5, 3, 1, 1)
    assert (found.share, found.lost_by_log, found.unmatched) == (pytest.approx(3 / 4), 1, 1)


def test_no_copy_is_no_coverage(tmp_path: Path):
    """Nothing to judge is not full coverage."""
    journal(tmp_path, [record(n) for n in range(3)])

    assert coverage(Predictions(tmp_path), champion="1", shadow="2", now=NOW).share is None
