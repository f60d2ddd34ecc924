"""Laws of looking up for requests: what training joined, or what is declared where that fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis as Client

from penstock.endpoint import Endpoint, Instead
from penstock.features import feast as feasting
from penstock.features.step import TIME
from penstock.online import Found, Guarded, Layout, Lookup, opened
from penstock.online.wire import key_prefix, key_value
from penstock.request import STAMP, Contract, Feature
from penstock.workload import Freshness, OnStale
from serving.columns import Column
from serving.features import OUT, UNREADABLE, Features
from serving.instead import StandIn
from serving.reading import Asked, Names, read_v1
from serving.seen import Seen
from serving.stored import Scalars, lists
from tests.online.servers import Redis, redis_server
from tests.online.test_lookup import SERVICE, Case, T, a_store
from tests.packages import free_port, predictor, wait_for
from tests.serving.lookedup import PIXELS, looking_up, materialized

AMOUNT = Feature(name="amount", dtype="double", low=0)
CONTRACT = Contract(
    workload="test",
    classes=2,
    threshold=0.5,
    rows=64,
    features=(
        AMOUNT,
        Feature(name="i64", dtype="int64", nullable=True),
        Feature(name="f64", dtype="double", low=-1, high=1),
        Feature(name="at", dtype=STAMP),
        Feature(name="taste", dtype="double", nullable=True),
        Feature(name="load", dtype="int64", among=(41, 42)),
    ),
)
LOOKED_UP = ("i64", "f64", "at", "taste", "load")
ROWS = [
    {"amount": 1.5, "user_id": 1, "category": "x"},
    {"amount": 2.5, "user_id": 2, "category": "x"},
    {"amount": 3.5, "user_id": 1, "category": "y"},
]
NOBODY = {"amount": 4.5, "user_id": 9, "category": "x"}


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    """A Redis server for this module."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def sqlite_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A real Feast store in SQLite."""
    folder = tmp_path_factory.mktemp("sqlite")
    path = folder / "online.db"
    return Case(a_store(folder / "repo", f"  type: sqlite\n  path: {path}\n"), str(path))


@pytest.fixture(scope="module")
def redis_case(tmp_path_factory: pytest.TempPathFactory, redis: Redis) -> Case:
    """A real Feast store in Redis."""
    text = f'  type: redis\n  connection_string: "127.0.0.1:{redis.port},db=0"\n'
    return Case(a_store(tmp_path_factory.mktemp("redis") / "repo", text), redis.url)


@pytest.fixture(params=["sqlite", "redis"])
def case(request: pytest.FixtureRequest) -> Case:
    """Each kind of store."""
    return request.getfixturevalue(f"{request.param}_case")


def halves(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rules that know nothing."""
    n = len(next(iter(columns.values())))
    return np.full((n, 2), 0.5)


class Bench:
    """The parts of a server that look up, on a store."""

    def __init__(
        self, case: Case, *freshness: Freshness, minute: float = 60, **declared: Any
    ) -> None:
        self.contract = replace(CONTRACT, endpoint=Endpoint(**declared))
        self.layout = Layout.from_dict(case.layout(*freshness).to_dict())
        self.names = Names(self.contract, self.layout)
        self.store = Guarded(lambda: opened(case.address, self.layout, timeout_s=0.3), retry_s=0.02)
        at = T + timedelta(minutes=minute)
        self.ages: list[tuple[str, float]] = []
        lookup = Lookup(
            self.layout, self.store, clock=lambda: at, aged=lambda *told: self.ages.append(told)
        )
        self.instead = StandIn(halves, self.names)
        self.features = Features(self.names, lookup, instead=self.instead)

    def asked(self, *rows: Mapping[str, Any]) -> Asked:
        """Return a request of some rows."""
        body = orjson.dumps({"instances": list(rows)})
        return read_v1(self.names, body, Seen({}))

    def completed(self, *rows: Mapping[str, Any]) -> Asked:
        """Return a request when its features were looked up."""
        asked = self.asked(*rows)
        self.features.complete([asked])
        return asked


def test_what_is_filled_in_is_what_training_joined(case: Case):
    """Values and types, bit for bit, of several requests; what was sent stays as it was."""
    bench = Bench(case)
    batch = [bench.asked(*ROWS[:2]), bench.asked(ROWS[2])]
    labels = pa.Table.from_pylist([{k: r[k] for k in ("user_id", "category")} for r in ROWS])
    times = pa.array([T + timedelta(hours=1)] * len(ROWS), pa.timestamp("us", "UTC"))
    joined, _ = feasting.join(case.store, service=SERVICE, labels=labels.append_column(TIME, times))

    bench.features.complete(batch)

    for name in LOOKED_UP:
        served = np.concatenate([asked.columns[name] for asked in batch])
        column = joined[name]
        if name == "at":
            column = column.cast(pa.int64())
        wanted = np.array([np.nan if v is None else v for v in column.to_pylist()])
        assert served.dtype == bench.names.columns[name].dtype
        assert served.tobytes() == wanted.astype(served.dtype).tobytes(), name
    assert batch[0].columns["amount"].tolist() == [1.5, 2.5]
    assert np.signbit(batch[0].columns["f64"][1]), "minus zero"
    assert all(set(a.columns) == set(CONTRACT.names) for a in batch)
    assert all(a.refusal is None and a.seen.columns is a.columns for a in batch)
    assert bench.features.outcomes == {"found": 3, "unusable": 0, "failed": 0}


def test_all_that_came_together_costs_one_exchange(case: Case):
    """And a request that holds its features costs none."""
    bench = Bench(case)
    whole = {"amount": 1, "i64": 1, "f64": 0, "at": 10**15, "taste": None, "load": 42}

    bench.features.complete([bench.asked(row) for row in (*ROWS, whole)])
    bench.features.complete([bench.asked(whole)])

    assert bench.store.exchanges == 1
    assert {view for view, _ in bench.ages} == {"users", "pairs", "everything"}
    assert dict(bench.ages)["users"] in (1800, 3600), "seconds"


def test_an_entity_that_nobody_knows_is_its_callers_matter(case: Case):
    """404 names it; whoever came with it is answered; the store stays in."""
    bench = Bench(case)
    batch = [bench.asked(ROWS[0]), bench.asked(ROWS[1], NOBODY)]

    bench.features.complete(batch)

    assert batch[0].refusal is None
    assert batch[1].refusal == (
        404,
        "f64: of user_id 9, category x none is known, or none young enough; send the features",
    )
    assert bench.features.outcomes == {"found": 1, "unusable": 2, "failed": 0}
    assert bench.features.unknown == {"users": 1, "pairs": 2}
    assert bench.store.exchanges == 1


def test_declared_values_stand_in_where_none_is_fit_and_only_there(case: Case):
    """A row that is known keeps its values; a feature without a declared one is missing."""
    values = {"f64": 0.5, "at": 10**15, "load": 41, "taste": 0.125}
    bench = Bench(case, lookup=("values",), values=values)

    asked = bench.completed(ROWS[0], NOBODY)

    assert asked.refusal is None
    assert asked.seen.fallbacks == ["values"]
    assert asked.columns["f64"].tolist() == [0.1, 0.5]
    assert asked.columns["load"].tolist() == [42, 42], "known of everybody"
    assert asked.columns["at"].dtype == np.int64
    # A missing taste is a value that the model knows, so it is none that is made up for.
    assert repr(asked.columns["taste"].tolist()) == "[0.25, nan]"
    assert repr(asked.columns["i64"].tolist()) == "[-5.0, nan]"


def test_a_value_that_must_be_there_and_is_not_declared_lets_the_next_answer(case: Case):
    """The first that can, in the order of the declaration."""
    bench = Bench(case, lookup=("cached", "values", "rules"), values={"f64": 0.5})

    asked = bench.completed(NOBODY)

    assert asked.seen.fallbacks == ["rules"]
    assert asked.probability_nk is not None
    assert asked.probability_nk.tolist() == [[0.5, 0.5]]


def test_stale_features_are_named_and_treated_as_declared(case: Case):
    """The answer says which were too old; the default is used where it is declared."""
    old = Freshness(
        feature="taste", max_staleness=timedelta(minutes=30),
        on_stale=OnStale.FALLBACK_TO_DEFAULT, default=0.75,
    )  # fmt: skip
    served = Freshness(
        feature="f64", max_staleness=timedelta(minutes=45), on_stale=OnStale.SERVE_STALE
    )
    bench = Bench(case, old, served)

    first, second = bench.asked(ROWS[0]), bench.asked(ROWS[1])
    bench.features.complete([first, second])

    assert set(first.seen.stale) == {"taste", "f64"}
    assert second.seen.stale == (), "half an hour younger, and without a taste"
    assert (first.columns["taste"][0], first.columns["f64"][0]) == (0.75, 0.1)


def test_a_value_that_a_request_may_not_hold_is_not_looked_up_either(case: Case):
    """The store's mistake is 503 and no answer of a model that was never shown such a value."""
    bench = Bench(case)
    strict = replace(AMOUNT, name="f64", low=0.5)
    features = (AMOUNT, strict, *CONTRACT.features[3:])
    bench.contract = replace(CONTRACT, features=features)
    bench.names = Names(bench.contract, bench.layout)
    features = Features(bench.names, bench.features._lookup)
    asked = bench.asked(ROWS[0])

    features.complete([asked])

    assert asked.refusal == (
        503,
        "f64: 0.1 is stored of user_id 1, category x, which is not allowed; send the features",
    )


NUMBERS = st.one_of(
    st.none(), st.floats(), st.integers(-(2**62), 2**62), st.sampled_from([41, 42, -1.0, 1.0])
)
KINDS = (
    Feature(name="x", dtype="double", low=-1, high=1),
    Feature(name="x", dtype="double", nullable=True),
    Feature(name="x", dtype="int64", nullable=True, among=(41, 42)),
    Feature(name="x", dtype="int64", low=0),
)


@given(st.sampled_from(KINDS), st.lists(NUMBERS, min_size=1, max_size=5), st.booleans())
def test_stored_numbers_are_held_to_the_rules_of_sent_ones(
    feature: Feature, values: list[Any], many: bool
):
    """Fit are exactly those that a request may hold, and they become the same column."""
    if feature.whole:
        values = [int(v) if v is not None and abs(v) < 2**53 else None for v in values]
    if many:  # which are read by other means than few
        values = values * 20
    columns, unfit = Scalars([feature])([Found(values={"x": v}, stale=()) for v in values])
    unfit_n = unfit.get("x", np.zeros(len(values), np.bool_))

    for at, value in enumerate(values):
        sent = None if value is None or value != value else value  # noqa: PLR0124 - NaN
        try:
            wanted = Column(feature).of_rows([sent])
        except ValueError:
            assert unfit_n[at]
        else:
            assert not unfit_n[at]
            got = columns["x"][at : at + 1]
            # No model tells one NaN from another; any other value is the same to the last bit.
            assert got.dtype == wanted.dtype
            assert got.tobytes() == wanted.tobytes() or (np.isnan(got) & np.isnan(wanted)).all()


@pytest.mark.parametrize("rows", [1, 20])
def test_where_all_features_are_lists_no_number_is_looked_for(rows: int):
    """As with digits, whose only feature are the pixels."""
    assert Scalars([])([Found(values={}, stale=())] * rows) == ({}, {})


def test_one_damaged_entity_harms_nobody_who_came_with_it(redis_case: Case, redis: Redis):
    """Something else lies under its key; the others are answered and the store stays in."""
    bench = Bench(redis_case)
    view = next(v for v in bench.layout.views if v.name == "users")
    key = key_prefix(view.keys) + key_value(77, view.keys[0]) + bench.layout.project.encode()
    client = Client(port=redis.port)
    client.set(key, "no hash")
    batch = [bench.asked(row) for row in (ROWS[0], {**NOBODY, "user_id": 77}, ROWS[1])]

    bench.features.complete(batch)

    assert [asked.refusal for asked in batch] == [None, (503, UNREADABLE), None]
    assert not bench.store.out
    client.delete(key)
    client.close()


def test_a_frozen_store_costs_one_exchange_and_answers_as_declared(redis_case: Case, redis: Redis):
    """Cached for whom it answered, rules for the others; looked up again when the store is back."""
    bench = Bench(redis_case, lookup=("cached", "rules"))
    known = bench.completed(ROWS[0])
    known.probability_nk = np.array([[0.25, 0.75]])
    bench.instead.remember(known)
    redis.freeze()
    try:
        same = [bench.completed(ROWS[0]) for _ in range(20)]
        others = [bench.completed(*ROWS) for _ in range(20)]
        cost = bench.store.exchanges
    finally:
        redis.thaw()
    wait_for(lambda: not bench.store.out, 10)
    after = bench.completed(*ROWS)

    assert cost == 2, "one that was answered, and the one that was not"
    for asked in same:
        assert asked.seen.fallbacks == ["cached"]
        assert asked.probability_nk is not None
        assert asked.probability_nk.tolist() == [[0.25, 0.75]]
    assert all(asked.seen.fallbacks == ["rules"] for asked in others)
    assert all(asked.refusal is None for asked in [*same, *others])
    assert after.seen.fallbacks == []
    assert after.columns["f64"].tolist() == [0.1, -0.0, 0.1]
    assert bench.features.outcomes["failed"] == 20 + 60


def test_where_nothing_is_declared_a_store_that_is_out_is_503(
    redis_case: Case, redis: Redis, caplog: pytest.LogCaptureFixture
):
    """Said to the client without the address of the store, and to the log once an outage."""
    bench = Bench(redis_case)
    redis.freeze()
    try:
        first, second = bench.completed(ROWS[0]), bench.completed(ROWS[1])
    finally:
        redis.thaw()
    bench.store.close()

    assert first.refusal == second.refusal == (503, OUT)
    assert bench.store.exchanges == 1
    assert caplog.text.count("features are not looked up: the online store") == 1


def test_a_slow_store_is_taken_out_and_the_log_says_so_once(
    sqlite_case: Case, caplog: pytest.LogCaptureFixture
):
    """Reads that answered take it out, so the next request is the first to meet it."""
    bench = Bench(sqlite_case)
    bench.store._slow_s = 1e-9
    found = [bench.completed(ROWS[0]).refusal for _ in range(5)]
    bench.store.close()

    assert found == [None, None, *[(503, OUT)] * 3]
    assert caplog.text.count("features are not looked up: ") == 1
    assert "reads take" in caplog.text


def test_a_declared_value_that_no_request_may_hold_is_refused(sqlite_case: Case):
    """At the start, not in the first outage."""
    with pytest.raises(ValueError, match="f64: 7 came, -1 to 1 are allowed"):
        Bench(sqlite_case, lookup=(Instead.VALUES,), values={"f64": 7.0})


def test_a_list_of_another_length_or_range_is_as_good_as_none():
    """Pixels of a capture, as the contract has them."""
    feature = Feature(name="p", dtype="list<element: float>", length=2, low=0, high=16)
    held = ([0.5, 16.0], [0.5], None, [0.5, 17.0], [0.5, float("nan")])

    column, unfit_n = lists(feature, [Found(values={"p": one}, stale=()) for one in held])

    assert column[0].tolist() == [0.5, 16.0]
    assert (column.dtype, column.shape) == (np.float32, (5, 2))
    assert unfit_n.tolist() == [False, True, True, True, True]


def test_a_predictor_answers_through_every_outage_of_its_store(
    tmp_path: Path,
) -> None:
    """Frozen, then killed and started anew: answers as declared, and the real ones by itself."""
    port = free_port()
    with redis_server(port) as redis, redis_of_captures(tmp_path, redis) as url:
        ready = url.replace("v1/models/digits:predict", "v2/health/ready")
        before = httpx.post(url, json=by_id(5))
        redis.freeze()
        try:
            frozen = [httpx.post(url, json=by_id(n), timeout=20) for n in (5, 6, 7)]
            sent = httpx.post(url, json={"instances": [PIXELS[6]]}, timeout=20)
            still_ready = httpx.get(ready, timeout=20).status_code
        finally:
            redis.thaw()
        wait_for(lambda: found(url, 6), 10)
        redis.kill()
        dead = [httpx.post(url, json=by_id(n), timeout=20) for n in (5, 8)]
        with redis_server(port):
            materialized(tmp_path / "again", port)
            wait_for(
                lambda: "x-penstock-fallback" not in httpx.post(url, json=by_id(8)).headers, 10
            )
            after = httpx.post(url, json=by_id(5))

    assert "x-penstock-fallback" not in before.headers
    for outage in (frozen, dead):
        ways = [answer.headers["x-penstock-fallback"] for answer in outage]
        assert ways == ["cached", *["rules"] * (len(outage) - 1)]
        assert all(answer.status_code == 200 for answer in outage)
        assert outage[0].json() == before.json()
    assert (sent.status_code, still_ready) == (200, 200)
    assert "x-penstock-fallback" not in sent.headers
    assert after.json() == before.json()


def by_id(capture: int) -> dict[str, Any]:
    """Return a request that names a capture."""
    return {"instances": [{"capture_id": capture}]}


def found(url: str, capture: int) -> bool:
    """Return whether the model answers by features that were looked up."""
    return "x-penstock-fallback" not in httpx.post(url, json=by_id(capture), timeout=20).headers


@contextmanager
def redis_of_captures(folder: Path, redis: Redis) -> Iterator[str]:
    """Fill a Redis, serve a package that looks up in it, and yield the address to ask."""
    layout = materialized(folder / "sources", redis.port)
    package = folder / "package"
    looking_up(package, layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_ONLINE", redis.url)
        with predictor(package, folder / "log") as (_, port):
            yield f"http://127.0.0.1:{port}/v1/models/digits:predict"
