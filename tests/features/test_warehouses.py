"""What Feast's stores make of the same tables, against the oracle; docs/how-to lists the result."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from penstock.features import feast as feasting
from penstock.features.join import JoinError
from penstock.workload import root
from tests.features.oracle import Row, known
from tests.features.warehouses import (
    NOT_INSTALLED,
    SERVICE,
    Postgres,
    a_store,
    postgres_server,
)

T = datetime(2026, 1, 5, tzinfo=UTC)
STAMP = pa.timestamp("us", "UTC")
TTL = timedelta(minutes=3)
MICROSECOND = 1 / 6e7

NEEDS = {"postgres": "psycopg", "spark": "pyspark", "duckdb": "ibis"}

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # Feast and Spark warn of themselves
]

FEATURES: dict[str, list[tuple[Any, ...]]] = {
    "at the TTL exactly, and past it": [("a", 0, 0, 1)],
    "at the label's time exactly, and past it": [("a", 5, 5, 2)],
    "known too late": [("a", 1, 9, 3)],
    "known too late, an older one in time": [("a", 1, 1, 30), ("a", 2, 9, 31)],
    "ties in event time": [("a", 1, 1, 4), ("a", 1, 2, 5), ("b", 1, 2, 7), ("b", 1, 1, 6)],
    "ties, the newer known too late": [("a", 1, 1, 8), ("a", 1, 3, 9)],
    "no created timestamp": [("a", 1, None, 10), ("b", 1, 1, 11), ("b", 2, None, 12)],
    "newest value is null": [("a", 1, 1, 13), ("a", 2, 2, None)],
    "label rows alike": [("a", 1, 1, 14)],
    "entity never seen": [],
    "before any feature": [("a", 5, 5, 15)],
    "expired": [("a", 0, 0, 16)],
    "feature rows alike": [("a", 1, 1, 18), ("a", 1, 1, 18)],
    "one user, many items": [("a", 1, 1, 50)],
}
LABELS: dict[str, list[tuple[str, float]]] = {
    "at the TTL exactly, and past it": [("a", 3), ("a", 3 + MICROSECOND)],
    "at the label's time exactly, and past it": [("a", 5), ("a", 5 - MICROSECOND)],
    "ties in event time": [("a", 2), ("b", 2)],
    "no created timestamp": [("a", 2), ("b", 2)],
    "label rows alike": [("a", 2), ("a", 2)],
    "expired": [("a", 9)],
    "one user, many items": [("a", 2)] * 10,
}
"""Entity and minute; where a case has none, one label of entity a at minute 2."""

NULL_KEY, GENERATED = "null key", "generated"
LATE = {"known too late", "known too late, an older one in time", "ties, the newer known too late",
        "no created timestamp", NULL_KEY, GENERATED}  # fmt: skip

WRONG: dict[str, set[str]] = {
    "ours": set(),
    "postgres": {"feature rows alike"},
    "spark": {"feature rows alike"},
    "duckdb": set(),
    "dask": {
        "at the TTL exactly, and past it",
        "at the label's time exactly, and past it",
        "ties in event time",
        "label rows alike",
        "before any feature",
        "expired",
        "one user, many items",
        NULL_KEY,
        GENERATED,
    },
}
"""Cases that a store's own answer gets wrong, asked as carefully as it can be."""


def at(minute: float | None) -> datetime | None:
    """Return an instant by its minute."""
    return None if minute is None else T + timedelta(minutes=minute)


class Tables:
    """Feature rows, label rows and what the oracle says, all cases in one."""

    def __init__(self) -> None:
        random = Random(1)
        held = [(f"{c}:{k}", *rest) for c, rows in FEATURES.items() for k, *rest in rows]
        held.append((None, 1, 1, 17))
        drawn = {(random.randrange(5), e := random.randrange(10), e + random.randrange(4))
                 for _ in range(300)}  # fmt: skip
        held += [(f"{GENERATED}:{k}", e, c, random.randrange(999)) for k, e, c in sorted(drawn)]
        asked = [(c, f"{c}:{k}", m) for c in FEATURES for k, m in LABELS.get(c, [("a", 2)])]
        asked.append((NULL_KEY, None, 2))
        asked += [(GENERATED, f"{GENERATED}:{random.randrange(6)}", random.randrange(12))
                  for _ in range(200)]  # fmt: skip
        items = [random.randrange(12) for _ in asked]
        prices = [(i, 1, 7 * i) for i in range(10)]
        self.cases = [c for c, _, _ in asked]
        self.features = {
            "scores": pa.table(
                {
                    "who": pa.array([h[0] for h in held], pa.string()),
                    "happened": pa.array([at(h[1]) for h in held], STAMP),
                    "known": pa.array([at(h[2]) for h in held], STAMP),
                    "score": pa.array([h[3] for h in held], pa.int64()),
                }
            ),
            "prices": pa.table(
                {
                    "item": pa.array([p[0] for p in prices], pa.int64()),
                    "happened": pa.array([at(p[1]) for p in prices], STAMP),
                    "price": pa.array([p[2] for p in prices], pa.int64()),
                }
            ),
        }
        self.labels = pa.table(
            {
                "who": pa.array([who for _, who, _ in asked], pa.string()),
                "item": pa.array(items, pa.int64()),
                "event_timestamp": pa.array([at(m) for _, _, m in asked], STAMP),
            }
        )
        scores = [Row(k, at(e), at(c), v) for k, e, c, v in held]
        costs = [Row(k, at(e), None, v) for k, e, v in prices]
        self.told = [
            (
                value(known(scores, who, at(m), ttl=TTL, bitemporal=True)),
                value(known(costs, item, at(m), ttl=None, bitemporal=False)),
            )
            for (_, who, m), item in zip(asked, items, strict=True)
        ]

    def wrong(self, answer: pd.DataFrame) -> set[str]:
        """Return the cases in which an answer with numbered rows is not the oracle's."""
        got: dict[int, list[Any]] = {}
        for row in answer.to_dict("records"):
            pair = tuple(None if pd.isna(row[n]) else int(row[n]) for n in ("score", "price"))
            got.setdefault(row["row"], []).append(pair)
        wanted = zip(self.cases, self.told, strict=True)
        return {case for n, (case, pair) in enumerate(wanted) if got.get(n) != [pair]}


def value(row: Row | None) -> Any:
    """Return a row's value."""
    return None if row is None else row.value


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for this module."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, Tables], Any]]:
    """Return a function that makes a Feast store of a kind."""
    # Spark sets a handler for Ctrl-C that outlives it.
    handler = signal.getsignal(signal.SIGINT)
    spark_used: list[bool] = []

    def make(kind: str, tables: Tables) -> Any:
        if kind in NEEDS:
            pytest.importorskip(NEEDS[kind], reason=NOT_INSTALLED)
        if kind == "spark" and shutil.which("java") is None:
            pytest.skip("Spark needs Java; on Debian: apt-get install default-jre-headless")
        server = request.getfixturevalue("postgres") if kind == "postgres" else None
        spark_used.append(kind == "spark")
        return a_store(kind, tmp_path_factory.mktemp(kind) / "repo", tables.features, server)

    yield make
    if any(spark_used):
        from pyspark.sql import SparkSession  # noqa: PLC0415 - where it is installed

        session = SparkSession.getActiveSession()
        if session is not None:
            session.stop()
        signal.signal(signal.SIGINT, handler)


def asked(store: Any, tables: Tables, **options: Any) -> pd.DataFrame:
    """Return Feast's own answer, with the label rows numbered."""
    labels = tables.labels.to_pandas().assign(row=range(len(tables.labels)))
    service = store.get_feature_service(SERVICE)
    return store.get_historical_features(entity_df=labels, features=service, **options).to_df()


@pytest.mark.parametrize("kind", list(WRONG))
def test_a_store_is_wrong_where_the_documentation_says_so(kind: str, made: Any):
    """Asked for what was known only, where the store can be asked that."""
    tables = Tables()
    store = made(kind, tables)

    assert tables.wrong(asked(store, tables, filter_by_created_timestamp=True)) == WRONG[kind]
    if kind in ("postgres", "spark", "duckdb"):
        by_event_time = tables.wrong(asked(store, tables))
        assert (
            {"known too late", "known too late, an older one in time"}
            <= by_event_time
            <= (LATE | WRONG[kind])
        )
        rows, _ = feasting.join(store, service=SERVICE, labels=tables.labels)
        pairs = zip(rows["score"].to_pylist(), rows["price"].to_pylist(), strict=True)
        assert rows.select(tables.labels.column_names) == tables.labels
        assert list(pairs) == tables.told, "our join takes rows that are alike for one"


def test_two_values_of_one_row_are_refused(made: Any):
    """A SQL store has no order of rows: of two that differ in nothing but value, none is right."""
    tables = Tables()
    scores = tables.features["scores"]
    twin = scores.slice(0, 1).set_column(3, "score", pa.array([99], pa.int64()))
    tables.features["scores"] = pa.concat_tables([scores, twin])

    with pytest.raises(JoinError, match="two feature rows of one key"):
        feasting.join(made("spark", tables), service=SERVICE, labels=tables.labels)


def test_a_store_that_loses_rows_is_refused(made: Any):
    """Feast's default store drops label rows; nothing is trained on what is left."""
    tables = Tables()

    with pytest.raises(JoinError, match="dask store was given 229 label rows and returned 76"):
        feasting.join(made("dask", tables), service=SERVICE, labels=tables.labels)


def test_the_documentation_lists_what_was_found():
    """Every store, and how many of the cases it gets wrong."""
    text = (root() / "docs/how-to/choose-an-offline-store.md").read_text()
    total = len(FEATURES) + 2

    for kind, wrong in WRONG.items():
        (line,) = [row for row in text.splitlines() if row.startswith(f"| {kind} |")]
        assert f"| {len(wrong)} of {total} |" in line
