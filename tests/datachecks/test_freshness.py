"""Laws of freshness: a value at its limit is fresh, one past it is not, none known is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import datachecks, workload
from penstock.bundle import read
from penstock.datachecks.freshness import judge
from penstock.stage import Refused
from penstock.verdict import Outcome
from penstock.workload import Freshness, OnStale, load
from tests import bundles

NOW = datetime(2026, 1, 5, tzinfo=UTC)
F7 = Freshness(
    feature="user_purchase_history",
    max_staleness=timedelta(hours=6),
    on_stale=OnStale.FALLBACK_TO_DEFAULT,
    default=[],
    channels=("pagerduty", "slack"),
)


@given(st.integers(0, 10**7))
def test_f7_six_hours_are_fresh_and_a_second_more_is_stale(seconds: int):
    """Whatever the age."""
    (check,) = judge([F7], {F7.feature: NOW - timedelta(seconds=seconds)}, as_of=NOW)

    assert check.outcome is (Outcome.PASS if seconds <= 6 * 3600 else Outcome.FAIL)
    assert check.value == seconds


def test_f7_says_what_serving_would_do_and_whom_it_would_tell():
    """In one sentence."""
    (check,) = judge([F7], {F7.feature: NOW - timedelta(hours=7)}, as_of=NOW)

    assert check.reason == (
        "newest value is 7 h old, at most 6 h wanted; serving would fallback to default and tell "
        "pagerduty, slack"
    )


@pytest.mark.parametrize(
    ("newest", "outcome"),
    [({F7.feature: None}, Outcome.FAIL), ({"another": NOW}, Outcome.ERROR)],
)
def test_what_nobody_knows_is_never_fresh(newest: dict[str, datetime | None], outcome: Outcome):
    """A feature without a value is stale; one the snapshot does not name could not be checked."""
    (check,) = judge([F7], newest, as_of=NOW)

    assert check.outcome is outcome


@pytest.mark.parametrize(
    "over",
    [{"max_staleness": timedelta(0)}, {"on_stale": "hope"}, {"on_stale": OnStale.SERVE_STALE}],
)
def test_a_declaration_that_means_nothing_is_refused(over: dict[str, object]):
    """No time at all, an action that does not exist, a default that is never used."""
    with pytest.raises(ValueError, match=r"Freshness|hope"):
        replace(F7, **over)


@pytest.mark.parametrize(("hours", "passes"), [(6, True), (7, False)])
def test_a_snapshot_of_stale_features_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, passes: bool
):
    """From the snapshot's own account of its sources."""
    digits = load("digits")
    limit = replace(F7, feature="ink_mean")
    declared = replace(digits, data=replace(digits.data, freshness=(limit,), drift=None))
    monkeypatch.setattr(workload, "load_data", lambda _: declared)
    newest = {"capture_ink": (NOW - timedelta(hours=hours)).isoformat()}
    proof = {**bundles.PROOF, "as_of": NOW.isoformat(), "newest": newest}
    views = [{"name": "capture_ink", "features": ["ink_mean"]}]
    source = bundles.snapshot(tmp_path / "in", proof=proof, online={"views": views})
    out = tmp_path / "out"

    if passes:
        datachecks.run(workload="digits", snapshot=source, out=out, now=bundles.NOW)
        assert read(out).json("verdict.json")["outcome"] == "pass"
    else:
        with pytest.raises(Refused, match="ink_mean fresh: newest value is 7 h old, at most 6 h"):
            datachecks.run(workload="digits", snapshot=source, out=out, now=bundles.NOW)
