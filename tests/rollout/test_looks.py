"""Laws of looks: bounded, in order, whole after a crash; never a reason for a release to stop."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rollout.judgement import Seen
from penstock.rollout.looks import FILE, HEAVY_EVERY, Looks, look, plain, read_looks, thinned
from tests.rollout.tales import BEGIN, Tale, looks_of


def seen(i: float, **over: Any) -> dict[str, Any]:
    """Return a look some seconds after the beginning."""
    made = look(at=BEGIN + timedelta(seconds=i), step="shadow", share_percent=0.0, seen=Seen(),
                summary={"requests": i})  # fmt: skip
    return {**made, **over}


def test_what_is_noted_is_read_back(tmp_path: Path):
    """Every field of a look, those of a judgement too."""
    tale = Tale.begun(tmp_path)
    tale.climb(1)
    made = looks_of(tale, "canary 10 %", 9.375, count=3)
    looks = Looks(tmp_path)

    for one in made:
        looks.note(one)

    assert read_looks(tmp_path)[0] == made[0]
    assert [x["rows"] for x in read_looks(tmp_path)] == [x["rows"] for x in made]


def test_what_is_long_is_kept_now_and_then_and_with_every_act(tmp_path: Path):
    """Slices and pairs of scores are in the first look of a step, in each twentieth, in acts."""
    looks = Looks(tmp_path)

    for i in range(45):
        looks.note(seen(i, segments=[1], act="enter" if i == 30 else "hold"))

    found = [i for i, one in enumerate(read_looks(tmp_path)) if "segments" in one]
    assert found == [0, HEAVY_EVERY, 30]


def test_the_file_stays_bounded_and_keeps_both_ends(tmp_path: Path):
    """However long a release lasts; what is left is spread over all of it."""
    looks = Looks(tmp_path, most=20)

    for i in range(1000):
        looks.note(seen(i))

    found = [x["summary"]["requests"] for x in read_looks(tmp_path)]
    assert len(found) < 40
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 999)
    assert sum(v < 500 for v in found) >= 5


def test_a_torn_line_costs_itself_alone(tmp_path: Path):
    """A writer that is killed in a line leaves the others, and the next one begins a new line."""
    Looks(tmp_path).note(seen(1))
    with (tmp_path / FILE).open("a") as out:
        out.write('{"at": "2026-01-05T09:')

    Looks(tmp_path).note(seen(2))

    assert [x["summary"]["requests"] for x in read_looks(tmp_path)] == [1, 2]


@pytest.mark.parametrize("line", ["[]", "3", '{"at": 5}', '"x"', "\x00\xff"])
def test_a_line_that_is_no_look_is_left_out(tmp_path: Path, line: str):
    """Whatever got into the file."""
    (tmp_path / FILE).write_text(line + "\n")

    assert read_looks(tmp_path) == []


def test_a_disk_that_takes_nothing_stops_nobody(tmp_path: Path):
    """The problem is kept in words, and is gone when a look is kept again."""
    folder = tmp_path / "looks"
    folder.write_text("a file where the folder should be")
    looks = Looks(folder)

    looks.note(seen(1))
    assert "looks are not kept" in looks.problem

    folder.unlink()
    looks.note(seen(2))
    assert looks.problem == ""
    assert len(read_looks(folder)) == 1


def test_no_file_is_no_look(tmp_path: Path):
    """A release of another machine has none here."""
    assert read_looks(tmp_path / "nowhere") == []


@given(
    moments=st.lists(st.integers(0, 10**6), min_size=1, max_size=80),
    steps=st.lists(st.sampled_from(["shadow", "canary"]), min_size=80, max_size=80),
    most=st.integers(10, 40),
)
def test_thinning_keeps_the_ends_the_order_and_the_bound(
    moments: list[int], steps: list[str], most: int
):
    """For any looks, also at the same moment."""
    whole = [
        {"at": (BEGIN + timedelta(seconds=s)).isoformat(), "step": step, "i": i}
        for i, (s, step) in enumerate(zip(sorted(moments), steps, strict=False))
    ]

    kept = [x["i"] for x in thinned(whole, most)]

    assert len(kept) <= most
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1]) == (0, len(whole) - 1)


def test_a_change_is_kept_when_others_go():
    """The look at which an outcome turned is what a person searches for."""
    whole = [seen(i, outcome="fail" if i >= 777 else "pass") for i in range(1000)]

    kept = [x["summary"]["requests"] for x in thinned(whole, 20)]

    assert 777 in kept


@given(value=st.recursive(st.floats() | st.none() | st.booleans() | st.text(), st.lists))
def test_any_number_is_written_as_json(value: object):
    """What is not finite becomes nothing; all else stays as it is."""
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == plain(value)


def test_numbers_of_numpy_are_numbers():
    """Not their names as text."""
    assert plain([np.int64(3), np.float64(0.5), np.bool_(True), np.float32("inf")]) == [
        3,
        0.5,
        True,
        None,
    ]
