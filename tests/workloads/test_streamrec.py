"""Laws of the simulated recommender: what it says of itself is true of what it writes."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from penstock import datachecks, features
from penstock.bundle import read
from penstock.stage import Refused
from tests.bundles import NOW
from workloads.streamrec import data
from workloads.streamrec.simulator import Settings, World, instant

SIZE = 40_000


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, **over: Any) -> dict[str, pd.DataFrame]:
    """Simulate and return every table that was written."""
    settings = {"impressions": SIZE, "days": 6, **over}
    monkeypatch.setenv(data.VARIABLE, json.dumps(settings))
    folder.mkdir(exist_ok=True)
    data.write(folder)
    return {p.stem: pq.read_table(p).to_pandas() for p in folder.glob("*.parquet")}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The tables of a simulation without drift."""
    with pytest.MonkeyPatch.context() as patch:
        return made(tmp_path_factory.mktemp("plain"), patch)


def after(tables: dict[str, pd.DataFrame], share: float = 0.6) -> pd.Series:
    """Return which impressions lie after the drift set in."""
    begun = instant(0) + share * timedelta(days=6)
    return tables["truth"]["event_timestamp"] >= begun


def test_one_seed_writes_the_same_bytes_and_another_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The simulation is a function of its settings."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        made(tmp_path / name, monkeypatch, seed=seed, impressions=2_000)

    held = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    assert held == {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()}
    assert held != {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()}


def test_clicks_happen_with_the_probability_that_is_written(plain: dict[str, pd.DataFrame]):
    """In every band of probability, the share of clicks is the mean probability."""
    rows = plain["truth"]
    assert len(rows) == SIZE
    assert 0.35 < len(plain["labels"]) / SIZE < 0.65
    for _, band in rows.groupby(pd.qcut(rows["click_probability"], 10), observed=True):
        p = band["click_probability"]
        slack = 4.5 * np.sqrt((p * (1 - p)).sum()) / len(band)
        assert abs(band["clicked"].mean() - p.mean()) < slack


def test_counts_are_what_the_log_says(plain: dict[str, pd.DataFrame]):
    """A row's counts are the impressions and clicks of the 24 hours before its time."""
    log, rows = plain["truth"], plain["users"].sample(60, random_state=1)
    for row in rows.itertuples():
        day = log[
            (log["user_id"] == row.user_id)
            & (log["event_timestamp"] < row.event_timestamp)
            & (log["event_timestamp"] >= row.event_timestamp - timedelta(hours=24))
        ]
        assert (row.user_impressions_24h, row.user_clicks_24h) == (len(day), day["clicked"].sum())


def test_taste_follows_what_a_user_clicked(plain: dict[str, pd.DataFrame]):
    """Of what a user did in a category, half is forgotten after three days."""
    log, rows = plain["truth"], plain["tastes"].sample(40, random_state=1)
    for row in rows.itertuples():
        seen = log[
            (log["user_id"] == row.user_id)
            & (log["category"] == row.category)
            & (log["event_timestamp"] < row.event_timestamp)
        ]
        hours = (row.event_timestamp - seen["event_timestamp"].dt.floor("h")) / timedelta(hours=1)
        weight = 0.5 ** ((hours - 1) / 72)
        assert row.taste_weight == pytest.approx(weight.sum(), rel=1e-4)
        clicks = (weight * seen["clicked"]).sum()
        assert row.taste == pytest.approx((clicks + 0.5) / (weight.sum() + 5), rel=1e-4)


def test_features_are_known_after_their_clicks_and_some_are_late(plain: dict[str, pd.DataFrame]):
    """Nothing is known before the last click it counts could be; a few rows come hours later."""
    for name in ("users", "items", "tastes", "profiles"):
        delay = plain[name]["created_timestamp"] - plain[name]["event_timestamp"]
        assert delay.min() == data.CLICK_DELAY + data.COMPUTED
        assert delay.max() <= timedelta(hours=14)
        late = (delay > data.CLICK_DELAY + data.COMPUTED).mean()
        assert 0.005 < late < 0.05, name


def test_there_are_seasons_and_cold_starts(plain: dict[str, pd.DataFrame]):
    """Evenings are busier than mornings, and some items appear only later."""
    log = plain["truth"]
    hour = log["event_timestamp"].dt.hour
    assert (hour.between(17, 20)).sum() > 2 * (hour.between(5, 8)).sum()
    world = World(Settings(impressions=SIZE, days=6))
    born = log["item_id"].map(pd.Series(world.item_born))
    seen = (log["event_timestamp"] - instant(0)) // timedelta(hours=1)
    assert (seen >= born).all()
    assert (world.item_born > 0).mean() == pytest.approx(0.15, abs=0.08)


def test_covariate_drift_changes_who_asks_and_not_what_they_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Other devices and categories, the same probability of a click given both."""
    tables = made(tmp_path / "d", monkeypatch, drift="covariate")
    log, late = tables["truth"], after(tables)
    assert log["mobile"][late].mean() > log["mobile"][~late].mean() + 0.3
    assert (log["category"][late] == 0).mean() > 2 * (log["category"][~late] == 0).mean()
    world, still = (
        World(Settings(impressions=SIZE, days=6, drift=d)) for d in ("covariate", "none")
    )
    who = np.arange(20)
    for hour in (0, 140):
        same = [w.probability(hour, who, who, who % 2) for w in (world, still)]
        assert np.array_equal(*same)


def test_concept_drift_turns_tastes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The same users ask as before; what they click is turned around."""
    tables = made(tmp_path / "d", monkeypatch, drift="concept")
    rows, late = tables["truth"], after(tables)
    world = World(Settings(impressions=SIZE, days=6))
    taste = world.taste[rows["user_id"], rows["category"]]
    odds = np.log(rows["click_probability"] / (1 - rows["click_probability"]))
    assert np.corrcoef(taste[~late], odds[~late])[0, 1] > 0.5
    assert np.corrcoef(taste[late], odds[late])[0, 1] < -0.2
    assert abs(rows["mobile"][late].mean() - rows["mobile"][~late].mean()) < 0.05


def test_a_broken_feature_is_zero_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One upstream job fails; users click as before."""
    tables = made(tmp_path / "d", monkeypatch, drift="broken")
    users = tables["users"]
    late = users["event_timestamp"] > instant(1) + 0.6 * timedelta(days=6)
    assert (users["user_rate_24h"][late] == 0).all()
    assert (users["user_rate_24h"][~late] > 0).all()
    assert (users["user_impressions_24h"][late] > 0).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"impressions": 5}', "5 impressions; simulate 1,000 to 50,000,000"),
        ('{"drift": "sudden"}', "one of none, covariate, concept, broken"),
        ('{"late_share": 2}', "late_share is 2; it is a share"),
        ('{"days": 1}', "1 days"),
        ('{"warm_up_days": 14}', "14 days of warm-up"),
        ('{"speed": 5}', "any of impressions, seed, days"),
        ("big", "give a JSON object"),
    ],
)
def test_settings_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch, text: str, said: str):
    """What came, and what was wanted."""
    monkeypatch.setenv(data.VARIABLE, text)

    with pytest.raises(ValueError, match=said):
        data.settings()


def test_the_checks_name_the_feature_whose_upstream_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And none beside it."""
    settings = {"impressions": 40_000, "days": 10, "drift": "broken"}
    monkeypatch.setenv(data.VARIABLE, json.dumps(settings))
    features.run(workload="streamrec", out=tmp_path / "snapshot", now=NOW)

    with pytest.raises(Refused) as refused:
        datachecks.run(
            workload="streamrec", snapshot=tmp_path / "snapshot", out=tmp_path / "checked", now=NOW
        )

    assert "user_rate_24h PSI" in str(refused.value)
    assert "item_rate_24h" not in str(refused.value)


def test_features_and_checks_carry_it_to_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Four views, one of them of user and category together; the youngest clicks are left out."""
    monkeypatch.setenv(data.VARIABLE, json.dumps({"impressions": 20_000}))

    features.run(workload="streamrec", out=tmp_path / "snapshot", now=NOW)
    datachecks.run(
        workload="streamrec", snapshot=tmp_path / "snapshot", out=tmp_path / "checked", now=NOW
    )

    snapshot = read(tmp_path / "snapshot", kind="snapshot")
    proof = snapshot.json("proof.json")
    assert 20_000 > proof["rows"]["written"] > proof["rows"]["labels"] > 10_000
    assert len(proof["views"]) == 4
    train = pq.read_table(snapshot.file("train.parquet")).to_pandas()
    assert train["user_rate_24h"].isna().any()
    assert train["user_rate_24h"].notna().mean() > 0.5
    youngest = pq.read_table(snapshot.file("holdout.parquet"))["event_timestamp"].to_pylist()
    assert max(youngest) <= instant(24 * 14) - timedelta(hours=1)
