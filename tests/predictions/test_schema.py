"""Laws of reading a journal into columns."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.predictions import files
from penstock.predictions.keep import keep
from penstock.predictions.log import Predictions
from penstock.predictions.schema import schema, tabled
from tests.predictions.logs import T0, contract, journal, record

OF = contract("n", "m", "t", "x", "p")
WHOLE = st.integers(-(2**63), 2**63 - 1)
EXACT = st.integers(-(2**53), 2**53)


@st.composite
def features(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Return the features of one to three rows, as a server writes them."""
    rows = draw(st.integers(1, 3))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    return {
        "n": column(WHOLE),
        "m": column(st.none() | EXACT.map(float)),
        "t": column(st.integers(0, 4_000_000_000_000_000)),
        "x": column(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        "p": column(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2)),
    }


def as_read(written: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return features as a reader should see them."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    whole = [None if v is None else int(v) for v in written["m"]]
    return {**written, "m": whole, "t": [epoch + timedelta(microseconds=v) for v in written["t"]]}


@settings(deadline=None)
@given(st.lists(features(), min_size=1, max_size=5))
def test_every_value_comes_back_as_it_was_asked(written: list[dict[str, list[Any]]]):
    """Whole numbers to the last digit, times as times, what is missing as missing."""
    lines = [orjson.dumps(record(n, features=f)) + b"\n" for n, f in enumerate(written)]

    table, refused = tabled(b"".join(lines), OF)

    assert (table.schema, refused) == (schema(OF), [])
    assert table["features"].to_pylist() == [as_read(f) for f in written]
    assert table["line"].to_pylist() == list(range(len(written)))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["good", "blank", "broken", "odd", "whole as 3.0"]), max_size=12))
def test_a_bad_line_costs_itself_alone(kinds: list[str]):
    """All others keep values and numbers; what is put aside is what could not be read."""
    of = contract("n")
    made = {
        "good": orjson.dumps(record(features={"n": [2**60 + 1]})),
        "blank": b"",
        "broken": b'{"at":12',
        "odd": b'{"at":"noon"}',
        "whole as 3.0": orjson.dumps(record(features={"n": [3.0]})),
    }

    table, refused = tabled(b"".join(made[k] + b"\n" for k in kinds), of)

    good = {"good": 2**60 + 1, "whole as 3.0": 3}
    assert [f["n"][0] for f in table["features"].to_pylist()] == [
        good[k] for k in kinds if k in good
    ]
    assert table["line"].to_pylist() == [n for n, k in enumerate(kinds) if k in good]
    assert refused == [made[k] + b"\n" for k in kinds if k in ("broken", "odd")]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 700))
def test_a_journal_cut_off_anywhere_is_read_up_to_there(tmp_path_factory: Any, cut: int):
    """A killed server's last line is the only one that may be missing."""
    folder = tmp_path_factory.mktemp("log")
    path = journal(folder, [record(n) for n in range(2)])
    data = path.read_bytes()
    path.write_bytes(data[:cut])
    whole = data[:cut].count(b"\n")

    for _ in range(2):
        assert len(Predictions(folder).table()) == whole
        keep(folder, now=T0)


def test_lines_put_aside_are_kept_and_counted(tmp_path: Path):
    """Nothing disappears because it cannot be read."""
    path = journal(tmp_path, [record()], torn=b'{"at":1\n{"half')

    assert keep(tmp_path, now=T0).refused_lines == 1
    assert (tmp_path / f"refused-{path.name}").read_bytes() == b'{"at":1\n'
    assert Predictions(tmp_path).losses().unreadable == 1


def test_a_name_tells_when_and_by_which_contract():
    """And a name that is not ours tells nothing."""
    name = files.name_of(files.new_stem("0123456789ab", at=T0 + 0.125) + ".jsonl")

    assert name is not None
    assert name.contract == "0123456789ab"
    assert math.isclose(name.begun.timestamp(), T0 + 0.125)
    assert files.name_of("predictions-17.jsonl") is None
