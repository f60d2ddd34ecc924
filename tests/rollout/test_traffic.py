"""Laws of simulated traffic: who asks what, in which market, and what comes of an answer."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.register.contract import contract_of
from penstock.rollout.traffic import Rows, Users, scores, shares, visitors
from penstock.workload import load
from workloads.streamrec.simulator import START, Settings, World
from workloads.streamrec.visitors import Visitors

WORLD = World(Settings())
N = 400


def impressions() -> pa.Table:
    """Return impressions of the simulation's first day."""
    rng = np.random.default_rng(4)
    hour_n = rng.integers(0, 24, N)
    return pa.table(
        {
            "user_id": rng.integers(0, WORLD.users, N),
            "item_id": rng.integers(0, WORLD.items, N),
            "mobile": rng.integers(0, 2, N),
            "event_timestamp": pa.array(
                int(START.timestamp()) * 1_000_000 + hour_n * 3_600_000_000,
                pa.timestamp("us", tz="UTC"),
            ),
        }
    )


def truth(rows: pa.Table) -> np.ndarray:
    """Return the true probability of each impression, by the simulator alone."""
    stamp_n = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    hour_n = (stamp_n - int(START.timestamp()) * 1_000_000) // 3_600_000_000
    user_n, item_n, mobile_n = (rows[name].to_numpy() for name in ("user_id", "item_id", "mobile"))
    one = [slice(n, n + 1) for n in range(N)]
    return np.array(
        [WORLD.probability(int(hour_n[n.start]), user_n[n], item_n[n], mobile_n[n])[0] for n in one]
    )


def clicked(score_n: np.ndarray, made: Visitors, requests: int) -> float:
    """Return the share of requests that are clicked when items are ranked by these scores."""
    seen = [made.outcome(n, score_n[made.request(n)[1]].tolist()) for n in range(requests)]
    return float(np.mean([one["label"] for one in seen]))


def test_a_better_ranking_is_clicked_more():
    """The truth beats chance, and chance beats the truth upside down, each by a wide margin."""
    rows = impressions()
    true_n, made = truth(rows), Visitors(rows, 300, 7)
    chance_n = np.random.default_rng(1).random(N)

    best, usual, worst = (clicked(s, made, 3000) for s in (true_n, chance_n, -true_n))

    assert best > usual + 0.1
    assert usual > worst + 0.05


def test_visitors_differ_and_stay_themselves():
    """Who clicks readily does so again: clicks of one visitor are more alike than of two."""
    made = Visitors(impressions(), 40, 7)
    by_user: dict[int, list[int]] = {}
    for n in range(6000):
        by_user.setdefault(made.request(n)[0], []).append(made.outcome(n, [])["label"])
    means = np.array([np.mean(v) for v in by_user.values()])
    chance = np.mean([m * (1 - m) / len(v) for m, v in zip(means, by_user.values(), strict=True)])

    assert means.var() > 2 * chance


@given(st.integers(0, 10**6))
def test_the_same_request_is_the_same_again(number: int):
    """A rerun asks the same rows for the same users, and the same answer has the same outcome."""
    rows = Rows([0, 1, 1, 0, 1], 50, 3)

    assert rows.request(number) == rows.request(number)
    assert (
        rows.outcome(number, [0.1])
        == rows.outcome(number, [])
        == {"label": [0, 1, 1, 0, 1][rows.request(number)[1][0]]}
    )


def test_rows_of_another_simulation_are_refused():
    """Their truth is not known, and a made-up one would say nothing."""
    rows = impressions()
    other = rows.set_column(0, "user_id", pa.array(np.full(N, WORLD.users)))

    with pytest.raises(ValueError, match="PENSTOCK_STREAMREC"):
        Visitors(other, 10, 1)


def test_a_workload_without_visitors_replays_its_rows():
    """Digits' label is what is written there, whatever is answered."""
    rows = pa.table({"label": [3, 1]})

    assert visitors("digits", rows, "label", count=5, seed=1) == Rows([3, 1], 5, 1)


def test_every_user_has_one_market_by_its_share():
    """Sixty in a hundred are in one, the rest in the other, always the same ones."""
    contract = contract_of(load("digits"))
    markets = shares("us=0.6,eu=0.4")
    users = Users(contract=contract, rows=[], visitors=Rows([], 1, 1), seed=1, markets=markets)
    found = [users.market(f"u-{n:05d}") for n in range(4000)]

    assert found == [users.market(f"u-{n:05d}") for n in range(4000)]
    assert 0.56 < found.count("us") / 4000 < 0.64
    assert set(found) == {"us", "eu"}


@pytest.mark.parametrize("text", ["us=2", "us=0.6,eu=0.6", "us=", "us"])
def test_shares_that_are_none_are_refused(text: str):
    """A share is a number, and all together are no more than everybody."""
    with pytest.raises(ValueError, match=r"share|float"):
        shares(text)


def test_scores_are_of_the_last_class():
    """Of two rows and three classes, the third and the sixth number."""
    output = {"name": "probability", "shape": [2, 3], "data": [0.1, 0.2, 0.7, 0.5, 0.2, 0.3]}

    assert scores(json.dumps({"outputs": [output]}).encode()) == [0.7, 0.3]
