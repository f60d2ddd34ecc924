"""Laws of the credit data: each month knows itself and its past, and no more."""

from __future__ import annotations

import csv
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import datachecks, features
from penstock.bundle import read
from tests.bundles import NOW
from workloads.credit import data

REAL = Path(__file__).parents[3] / "shared" / "data" / "uci_credit_default.csv"
COLUMNS = ("ID", "LIMIT_BAL", *data.SENSITIVE, *data.STATUS, *data.BILL, *data.PAID, data.LABEL)


def client(number: int, rng: np.random.Generator) -> dict[str, object]:
    """Return one client's line."""
    drawn = {
        "ID": number,
        "LIMIT_BAL": int(rng.integers(1, 50)) * 10_000,
        **{name: int(rng.integers(1, 4)) for name in data.SENSITIVE},
        **{name: int(rng.integers(-2, 4)) for name in data.STATUS},
        **{name: int(rng.integers(-500, 90_000)) for name in data.BILL},
        **{name: int(rng.integers(0, 20_000)) for name in data.PAID},
        data.LABEL: int(rng.random() < 0.22),
    }
    return {name: drawn[name] for name in COLUMNS}


def write(path: Path, lines: list[dict[str, object]]) -> Path:
    """Write lines as the CSV that UCI gives."""
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
    return path


def table(lines: list[dict[str, object]]) -> pa.Table:
    """Return lines as the file's table."""
    return pa.table({n: pa.array([line[n] for line in lines], pa.int64()) for n in COLUMNS})


@given(st.integers(0, 2**32), st.integers(0, 5))
def test_a_month_does_not_know_the_months_after_it(seed: int, month: int):
    """Whatever happens later changes nothing of what was computed before."""
    rng = np.random.default_rng(seed)
    lines = [client(i, rng) for i in range(1, 6)]
    changed = [dict(line) for line in lines]
    for line, other in zip(changed, [client(0, rng) for _ in lines], strict=True):
        for names in (data.STATUS, data.BILL, data.PAID):
            line.update({name: other[name] for name in names[month + 1 :]})

    before, after = (data.months(table(v)).slice(0, 5 * (month + 1)) for v in (lines, changed))

    assert before.equals(after)


def test_the_features_of_a_client_by_hand():
    """Use, delay, repayment and their trends, month by month, as one would work them out."""
    values = {
        "ID": 1, "LIMIT_BAL": 1000, "SEX": 1, "EDUCATION": 2, "MARRIAGE": 1, "AGE": 30,
        **dict(zip(data.STATUS, (-1, 0, 2, 3, 2, 0), strict=True)),
        **dict(zip(data.BILL, (100, 300, 500, 700, 600, 500), strict=True)),
        **dict(zip(data.PAID, (0, 100, 150, 0, 350, 600), strict=True)),
        data.LABEL: 0,
    }  # fmt: skip

    rows = data.months(table([values])).to_pylist()

    assert [r["use"] for r in rows] == [0.1, 0.3, 0.5, 0.7, 0.6, 0.5]
    assert [r["months_late"] for r in rows] == [0, 0, 2, 3, 2, 0]
    assert [r["months_late_high"] for r in rows] == [0, 0, 2, 3, 3, 3]
    assert [r["late_count"] for r in rows] == [0, 0, 1, 2, 3, 3]
    assert [r["repaid_share"] for r in rows] == [None, 1.0, 0.5, 0.0, 0.5, 1.0]
    assert [r["repaid_share_low"] for r in rows] == [None, 1.0, 0.5, 0.0, 0.0, 0.0]
    assert rows[5]["use_trend"] == pytest.approx((0.5 - 0.7) / 2)
    assert rows[5]["late_trend"] == pytest.approx(0 - 5 / 3)
    assert [r["event_timestamp"].month for r in rows] == [4, 5, 6, 7, 8, 9]
    known = {r["created_timestamp"] - r["event_timestamp"] for r in rows}
    assert known == {timedelta(days=3)}


def test_clients_become_a_snapshot_and_attributes_stay_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """September is what a decision in October sees; age and sex are in a file of their own."""
    rng = np.random.default_rng(1)
    lines = [client(i, rng) for i in range(1, 2001)]
    lines[7]["LIMIT_BAL"] = "5e+05"
    monkeypatch.setenv(data.VARIABLE, str(write(tmp_path / "clients.csv", lines)))

    features.run(workload="credit", out=tmp_path / "snapshot", now=NOW)

    made = read(tmp_path / "snapshot", kind="snapshot")
    parts = [pq.read_table(made.file(f"{n}.parquet")) for n in ("train", "holdout")]
    rows = pa.concat_tables(parts).sort_by("client_id")
    assert rows["bill"].to_pylist() == [float(line["BILL_AMT1"]) for line in lines]  # pyright: ignore[reportArgumentType]
    assert rows["credit_limit"][7].as_py() == 500_000
    assert 0.15 < len(parts[1]) / 2000 < 0.25
    assert not set(data.SENSITIVE.values()) & set(rows.column_names)
    apart = pq.read_table(made.file("attributes.parquet"))
    assert apart.column_names == ["client_id", "sex", "education", "marriage", "age"]


def test_labels_that_are_not_known_yet_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A day before October's payments are known there is nothing to learn from."""
    rng = np.random.default_rng(1)
    path = write(tmp_path / "clients.csv", [client(i, rng) for i in range(1, 50)])
    monkeypatch.setenv(data.VARIABLE, str(path))
    monkeypatch.setattr(data, "as_of", lambda: data.DECIDED + timedelta(days=29))

    with pytest.raises(ValueError, match="none of 49 labels was known"):
        features.run(workload="credit", out=tmp_path / "snapshot", now=NOW)

    assert not (tmp_path / "snapshot").exists()


@pytest.mark.parametrize("named", [None, "", "nowhere.csv"])
def test_a_path_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, named: str | None):
    """The data are the user's to fetch; the message says which and how to name them."""
    monkeypatch.delenv(data.VARIABLE, raising=False)
    if named is not None:
        monkeypatch.setenv(data.VARIABLE, named)

    with pytest.raises(ValueError, match=r"PENSTOCK_CREDIT_DATA (is not set|names).*UCI"):
        data.settings()


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A CSV without the columns is named with those it lacks; one with words in them, too."""
    rng = np.random.default_rng(1)
    monkeypatch.setenv(data.VARIABLE, str(tmp_path / "f.csv"))
    (tmp_path / "f.csv").write_text("ID,LIMIT_BAL\n1,2\n")
    with pytest.raises(ValueError, match="has no column AGE, BILL_AMT1"):
        data.clients()

    write(tmp_path / "f.csv", [{**client(1, rng), "AGE": "young"}])
    with pytest.raises(ValueError, match=r"holds a value that is no whole number.*young"):
        data.clients()


@pytest.mark.skipif(not REAL.exists(), reason=f"needs the UCI data at {REAL}")
def test_the_real_clients_pass_their_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """30,000 clients, 22.12 % of whom defaulted, every one with September's features."""
    monkeypatch.setenv(data.VARIABLE, str(REAL))

    features.run(workload="credit", out=tmp_path / "snapshot", now=NOW)
    datachecks.run(
        workload="credit", snapshot=tmp_path / "snapshot", out=tmp_path / "checked", now=NOW
    )

    made = read(tmp_path / "snapshot")
    parts = [pq.read_table(made.file(f"{n}.parquet")) for n in ("train", "holdout")]
    rows = pa.concat_tables(parts)
    assert (len(rows), sum(rows["defaulted"].to_pylist())) == (30_000, 6_636)
    assert rows["bill"].null_count == 0
