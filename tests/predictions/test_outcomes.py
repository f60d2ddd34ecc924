"""Laws of joining outcomes: every one of them is accounted for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.predictions.log import Predictions
from penstock.predictions.outcomes import SCHEMA, join, read_outcomes
from tests.predictions.logs import T0, journal, record


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    """Six requests of versions 1 and 2 in turn; the last was refused, the others have two rows."""
    folder = tmp_path_factory.mktemp("log")
    rows = [
        record(n, version=str(1 + n % 2), label=[1, 0], probability=[0.75, 0.5]) for n in range(5)
    ]
    journal(folder, [*rows, record(5, status=429, label=None, probability=None, features=None)])
    return Predictions(folder)


OUTCOME = st.fixed_dictionaries(
    {
        "request_id": st.sampled_from([f"r{n}" for n in range(6)] + ["elsewhere"]),
        "row": st.integers(0, 2),
        "label": st.integers(0, 1),
        "at": st.none() | st.integers(0, 9).map(lambda n: T0 + n),
    }
)


def last(outcomes: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the outcome of each example that counts: the latest, of those the last line."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for one in sorted(outcomes, key=lambda o: (o["at"] is not None, o["at"] or 0, o["line"])):
        found[one["request_id"], one["row"]] = one
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(OUTCOME, max_size=12))
def test_every_outcome_is_joined_or_counted(log: Predictions, given_: list[dict[str, Any]]):
    """Against a join written out by hand."""
    outcomes = [{**o, "line": n} for n, o in enumerate(given_)]
    counts = last(outcomes)
    answered = {(f"r{n}", row): str(1 + n % 2) for n in range(5) for row in (0, 1)}

    found = join(log, pa.Table.from_pylist(outcomes, schema=SCHEMA), version="1")

    told = found.told
    assert told.outcomes == told.joined + told.repeated + told.elsewhere + told.unknown
    assert told.joined == sum(answered.get(key) == "1" for key in counts)
    assert told.elsewhere == sum(answered.get(key) == "2" for key in counts)
    assert told.repeated == len(outcomes) - len(counts)
    assert told.conflicting == sum(
        o["label"] != counts[o["request_id"], o["row"]]["label"] for o in outcomes
    )
    assert (told.predictions, told.waiting) == (6, 6 - told.joined)
    known = {(r["request_id"], r["row"]): r["outcome"] for r in found.table.to_pylist()}
    assert known == {
        key: counts[key]["label"] if key in counts else None
        for key, version in answered.items()
        if version == "1"
    }


@pytest.mark.parametrize(
    "text",
    [
        '"label": 1e30', '"label": 1.9', '"label": 1.0', '"label": true', '"label": "1"',
        '"label": 9223372036854775808', '"label": null', '"label": 1, "row": 0.5',
        '"label": 1, "row": false', '"label": 1, "request_id": null', '"label": 1, "request_id": 7',
        '"label": 1, "at": 1e300', '"label": 1, "at": true', '"label": 1, "at": -1',
    ],
)  # fmt: skip
def test_what_is_no_outcome_is_counted_and_not_made_one(
    log: Predictions, tmp_path: Path, text: str
):
    """A label, a row, an id or a time of another type is nobody's truth."""
    path = tmp_path / "outcomes.jsonl"
    path.write_text(f'{{"request_id": "r1", {text}}}\n{{"request_id": "r0", "label": 1}}\n')

    outcomes, unreadable = read_outcomes(path)

    assert (outcomes["request_id"].to_pylist(), unreadable) == (["r0"], 1)
    assert join(log, outcomes, unreadable=unreadable).told.joined == 1


def test_the_first_may_be_asked_for_and_the_late_are_counted(log: Predictions, tmp_path: Path):
    """A correction is the second one; a day is late where an hour was expected."""
    path = tmp_path / "outcomes.jsonl"
    lines = [
        {"request_id": "r0", "label": 1, "at": T0 + 60},
        {"request_id": "r0", "label": 0, "at": T0 + 86_400},
        {"request_id": "r1", "label": 1, "at": T0 + 90_000},
    ]
    path.write_bytes(b"".join(orjson.dumps(o) + b"\n" for o in lines) + b'[1]\n{"label":1}\n{"re')
    outcomes, unreadable = read_outcomes(path)

    for take, label, late in (("first", 1, 1), ("last", 0, 2)):
        found = join(log, outcomes, unreadable=unreadable, take=take, expected=timedelta(hours=1))
        first = found.table.to_pylist()[0]
        assert (first["request_id"], first["label"], first["outcome"]) == ("r0", 1, label)
        assert (found.told.late, found.told.unreadable) == (late, 2)
    assert first["outcome_at"] == datetime.fromtimestamp(T0 + 86_400, UTC)
