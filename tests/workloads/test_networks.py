"""Laws of the two tabular networks: what a row becomes, and that a network learns from it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from penstock.export.graph import export
from penstock.stats.metrics import auc
from penstock.stats.slices import masks
from penstock.workload import load_network, part, root
from tests.workloads.test_credit import client, table
from workloads.credit import data as credit_data
from workloads.credit import model as credit_model
from workloads.credit import transform as credit
from workloads.streamrec import data as streamrec_data
from workloads.streamrec import transform as streamrec
from workloads.streamrec.simulator import Counts, _rates

NAMES = ("credit", "streamrec")


def clients(n: int = 3_000) -> pa.Table:
    """Return rows of invented clients, who default the likelier the later they are."""
    rng = np.random.default_rng(3)
    lines = [client(i, rng) for i in range(1, n + 1)]
    for line in lines[::50]:
        line[credit_data.BILL[-1]] = 400_000
    rows = credit_data.months(table(lines)).slice(n * (credit_data.MONTHS - 1))
    late = rows["months_late"].to_numpy() + rows["late_count"].to_numpy() / 2
    chance = 1 / (1 + np.exp(2.5 - late))
    return rows.append_column("defaulted", pa.array((rng.random(n) < chance).astype(np.int64)))


def impressions(folder: Path, patch: pytest.MonkeyPatch) -> pa.Table:
    """Return simulated impressions with features joined by hand, some of them missing."""
    patch.setenv(streamrec_data.VARIABLE, json.dumps({"impressions": 12_000, "days": 8}))
    streamrec_data.write(folder)
    rows = pq.read_table(folder / "labels.parquet").to_pandas()
    rows["hour"] = rows["event_timestamp"].dt.floor("h") - timedelta(hours=2)
    for name, keys in (
        ("users", ["user_id"]),
        ("items", ["item_id"]),
        ("tastes", ["user_id", "category"]),
        ("profiles", ["user_id"]),
    ):
        features = pq.read_table(folder / f"{name}.parquet").to_pandas()
        features = features.drop(columns="created_timestamp").rename(
            columns={"event_timestamp": "hour"}
        )
        rows = _latest(rows, features, keys)
    return pa.Table.from_pandas(rows.drop(columns="hour"), preserve_index=False)


def _latest(rows: pd.DataFrame, features: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return rows with the newest features of their keys that are no younger than their hour."""
    return pd.merge_asof(
        rows.sort_values("hour"), features.sort_values("hour"), on="hour", by=keys
    ).sort_values("impression_id")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    """Rows of each workload, as a snapshot holds them."""
    with pytest.MonkeyPatch.context() as patch:
        simulated = impressions(tmp_path_factory.mktemp("streamrec"), patch)
    return {"credit": clients(), "streamrec": simulated}


def transform(name: str) -> ModuleType:
    """Return a workload's transform."""
    return part(name, "transform")


@pytest.mark.parametrize("name", NAMES)
def test_each_row_is_packed_by_itself(rows: dict[str, pa.Table], name: str):
    """Rows in another order, or one alone, become the same numbers to the bit."""
    packed = transform(name).training_input(rows[name])
    order = np.random.default_rng(1).permutation(len(packed))

    shuffled = transform(name).training_input(rows[name].take(order))
    alone = [transform(name).training_input(rows[name].slice(i, 1))[0] for i in range(20)]

    assert packed.dtype == np.float32
    assert np.isfinite(packed).all()
    np.testing.assert_array_equal(shuffled, packed[order])
    np.testing.assert_array_equal(alone, packed[:20])


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_a_number_for_each_name(rows: dict[str, pa.Table], name: str):
    """``FEATURES`` names the packed columns, each once."""
    features = transform(name).FEATURES

    assert len(set(features)) == len(features)
    assert transform(name).training_input(rows[name]).shape == (len(rows[name]), len(features))


@pytest.mark.parametrize("name", NAMES)
def test_the_label_and_the_keys_are_not_looked_at(rows: dict[str, pa.Table], name: str):
    """A request has no label, and a client's number says nothing of them."""
    label = load_network(name).label
    without = rows[name].drop_columns([label, *({"client_id"} & set(rows[name].column_names))])

    packed = transform(name).training_input(without)

    np.testing.assert_array_equal(packed, transform(name).training_input(rows[name]))


@pytest.mark.parametrize("column", list(streamrec.NULLABLE))
def test_a_missing_value_is_not_a_zero(rows: dict[str, pa.Table], column: str):
    """Not known and none differ in what the network sees, and in nothing but that column."""
    some = rows["streamrec"].slice(0, 50)
    zeros, nulls = (
        some.set_column(
            some.column_names.index(column), column, pa.array([value] * 50, some[column].type)
        )
        for value in (0, None)
    )

    known, unknown = (streamrec.training_input(t) for t in (zeros, nulls))

    at = streamrec.FEATURES.index(f"{column}_missing")
    assert (known[:, at] == 0).all()
    assert (unknown[:, at] == 1).all()
    differ = {streamrec.FEATURES[i] for i in np.flatnonzero((known != unknown).any(axis=0))}
    assert differ <= {column, f"{column}_missing"}


def test_a_newcomer_counts_as_the_usual_rate():
    """What stands in for a missing rate is the rate that smoothing gives to nothing seen."""
    unseen = _rates("user", Counts(1), np.array([0]), broken=False)

    assert streamrec.log_odds(unseen["user_rate_24h"])[0] == pytest.approx(0)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=30))
def test_buckets_survive_float32(ids: list[int]):
    """Every bucket is in its table, and the packed float32 is that whole number."""
    for buckets in (streamrec.USER_BUCKETS, streamrec.ITEM_BUCKETS):
        found = streamrec.bucket(np.array(ids, np.int64), buckets)

        assert ((found >= 0) & (found < buckets)).all()
        np.testing.assert_array_equal(found.astype(np.float32).astype(np.int64), found)


def test_float32_holds_every_id_of_every_table():
    """The largest id of each embedding is a whole number that float32 has."""
    from workloads.streamrec.model import TABLES  # noqa: PLC0415 - beside the law it is about

    assert len(TABLES) == len(streamrec.IDS)
    assert max(size for size, _ in TABLES) < 2**24


def test_few_ids_share_a_bucket():
    """Ids that count up spread: half as many as there are buckets, and none meet."""
    ids = np.arange(streamrec.USER_BUCKETS // 3)

    assert len(np.unique(streamrec.bucket(ids, streamrec.USER_BUCKETS))) == len(ids)


def test_ids_fall_into_the_same_bucket_in_another_process():
    """No hash that Python salts by process; and it never changes, or trained tables are void."""
    code = (
        "import numpy as np, hashlib\n"
        "from workloads.streamrec.transform import bucket\n"
        "print(hashlib.sha256(bucket(np.arange(5000) ** 3, 2**14).tobytes()).hexdigest())"
    )
    here = hashlib.sha256(streamrec.bucket(np.arange(5000) ** 3, 2**14).tobytes()).hexdigest()

    for salt in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root(), env={"PYTHONHASHSEED": salt},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == here
    np.testing.assert_array_equal(
        streamrec.bucket(np.array([0, 1, 2, 499, 2**40]), 2**14), [0, 10125, 3867, 6536, 4767]
    )


def replaced(rows: pa.Table, column: str, value: object) -> pa.Table:
    """Return ten rows, the third with another value in a column."""
    held = rows.slice(0, 10).to_pylist()
    held[2][column] = value
    return pa.Table.from_pylist(held, rows.schema)


@pytest.mark.parametrize(
    ("name", "column", "value", "said"),
    [
        ("credit", "credit_limit", 0.0, "must be greater than 0"),
        ("credit", "use", None, "use is missing or infinite in 1 of 10"),
        ("credit", "bill", float("inf"), "bill is missing or infinite in 1 of 10"),
        ("streamrec", "category", 8, "category is 8"),
        ("streamrec", "mobile", 2, "mobile is 2"),
        ("streamrec", "user_id", -1, "user_id is -1"),
        ("streamrec", "item_id", None, "item_id is missing in 1 of 10"),
        ("streamrec", "event_timestamp", None, "event_timestamp is missing in 1 of 10"),
        ("streamrec", "taste", 1.5, "taste is 1.5"),
        ("streamrec", "taste_weight", float("inf"), "taste_weight is inf"),
        ("streamrec", "user_clicks_24h", -3, r"user_clicks_24h is -3"),
    ],
)
def test_what_cannot_be_is_refused(
    rows: dict[str, pa.Table], name: str, column: str, value: object, said: str
):
    """An impossible value is named with its column, not packed."""
    with pytest.raises(ValueError, match=said):
        transform(name).training_input(replaced(rows[name], column, value))


@pytest.mark.parametrize("name", NAMES)
def test_a_column_that_is_not_there_is_named(rows: dict[str, pa.Table], name: str):
    """Whatever column of the features is left out, the error says so."""
    column = transform(name).FEATURES[1]

    with pytest.raises(ValueError, match=f"no column '{column}'"):
        transform(name).training_input(rows[name].drop_columns([column]))


def test_the_heavy_tail_is_compressed():
    """A bill a thousand times another's is a few times its packed number, and keeps its sign."""
    small, large, owed = credit.compressed(np.array([1e3, 1e6, -1e6]), 1e3)

    assert 0 < small < large < 12 * small
    assert owed == -large


@pytest.mark.parametrize("column", credit.FEATURES)
def test_each_edge_is_a_step(column: str):
    """At its k-th edge a number has k steps behind it, and beyond the last nothing more happens."""
    edges = np.array(credit_model.EDGES[column])
    assert (np.diff(edges) > 0).all()
    packed = credit.compressed(edges, credit.UNITS[column])
    steps = credit_model.PiecewiseLinear({column: credit_model.EDGES[column]})

    beyond = credit.compressed(np.array([edges[-1] * 1e6]), credit.UNITS[column])
    rows_n1 = torch.tensor(np.concatenate([packed, beyond])[:, None], dtype=torch.float32)
    done = steps(rows_n1).sum(1).numpy()

    np.testing.assert_allclose(done[:-1], np.arange(len(edges)), atol=1e-3)
    assert done[-1] == pytest.approx(len(edges) - 1, abs=1e-3)


def trained(
    name: str, inputs: NDArray[np.float32], labels: NDArray[np.int64], *, steps: int = 150
) -> nn.Module:
    """Return a network after a short training with its declared settings."""
    settings = load_network(name).training
    torch.manual_seed(settings.seed)
    network = part(name, "model").build(classes=2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(settings.seed)
    rows_nd, labels_n = torch.tensor(inputs), torch.tensor(labels)
    for _ in range(steps):
        picked = torch.randint(len(labels), (settings.batch_size,), generator=order)
        loss = nn.functional.cross_entropy(network(rows_nd[picked]), labels_n[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Refuse operations without a deterministic form, as the training stage does."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(("name", "least"), [("credit", 0.72), ("streamrec", 0.62)])
def test_a_network_learns_exports_and_says_the_same(
    rows: dict[str, pa.Table], tmp_path: Path, name: str, least: float
):
    """A short training ranks rows it never saw, repeats to the bit, and its graph is the same."""
    declared = load_network(name)
    inputs = transform(name).training_input(rows[name])
    labels = rows[name][declared.label].to_numpy()
    cut = int(0.7 * len(labels))

    network = trained(name, inputs[:cut], labels[:cut])
    again = trained(name, inputs[:cut], labels[:cut])

    with torch.no_grad():
        logits = network(torch.from_numpy(inputs[cut:])).double().numpy()
        same = again(torch.from_numpy(inputs[cut:])).double().numpy()
    np.testing.assert_array_equal(logits, same)
    reached = auc(logits[:, 1] - logits[:, 0], labels[cut:])
    assert reached is not None
    assert reached > least
    held = rows[name].slice(cut)
    done = export(
        network, inputs[cut:], tmp_path / "model.onnx",
        settings=declared.export, slices=masks(held, declared),
    )  # fmt: skip
    assert (done.exporter, done.fallback_reason) == ("dynamo", None)
    assert done.max_abs_error < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_every_part_of_a_network_is_used(rows: dict[str, pa.Table], name: str):
    """Each learned tensor has a gradient, and each packed column can change the answer."""
    torch.manual_seed(1)
    network = part(name, "model").build(classes=2)
    inputs = torch.from_numpy(transform(name).training_input(rows[name])[:2000])
    network(inputs).square().sum().backward()

    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    plain = network(inputs)
    for i, column in enumerate(transform(name).FEATURES):
        other = inputs.clone()
        low, high = inputs[:, i].min(), inputs[:, i].max()
        # A value that the column has elsewhere, so that an id stays one.
        high = high if low < high else low + 1
        other[:, i] = torch.where(inputs[:, i] == high, low, high)
        assert not torch.equal(network(other), plain), column


@pytest.mark.parametrize("name", NAMES)
def test_every_declared_slice_has_rows_and_neither_none_nor_all(
    rows: dict[str, pa.Table], name: str
):
    """A slice that is empty says nothing, and one that holds every row says nothing new."""
    held = masks(rows[name], load_network(name))
    shares = {name: float(mask.mean()) for name, mask in held.items()}

    assert {name: share for name, share in shares.items() if not 0 < share < 1} == {}


def test_an_untrained_id_says_next_to_nothing(rows: dict[str, pa.Table]):
    """For a user that training never saw, the network's answer hardly depends on who it is."""
    some = rows["streamrec"].slice(0, 500)
    column = some.column_names.index("user_id")
    other = some.set_column(column, "user_id", pc.add(some["user_id"], 10_000))
    torch.manual_seed(1)
    network = part("streamrec", "model").build(classes=2).eval()

    with torch.no_grad():
        one, two = (network(torch.from_numpy(streamrec.training_input(t))) for t in (some, other))

    assert (one - two).abs().max() < 0.05
