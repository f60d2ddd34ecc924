"""Laws of reading evidence from growing logs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from penstock.predictions import files
from penstock.predictions.keep import keep
from penstock.rollout.evidence import LogReader, read_new
from serving.instead import FAILED
from tests.predictions import logs


def record(rid: str, *, version: str = "2", mirrored: bool = False, at: float = 10.0, **over: Any):
    """Return a prediction record."""
    return {
        "at": at,
        "request_id": rid,
        "version": version,
        "mirrored": mirrored,
        "status": 200,
        "latency_ms": 2.0,
        "label": [3],
        **over,
    }


def reader(tmp_path: Path, *records: dict[str, Any], labels: dict[str, int] | None = None):
    """Return a reader over a log of these records and these outcomes."""
    folder = tmp_path / "a"
    folder.mkdir(exist_ok=True)
    (folder / "predictions-1.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    outcomes = tmp_path / "outcomes.jsonl"
    outcomes.write_text(
        "".join(json.dumps({"request_id": k, "label": v}) + "\n" for k, v in (labels or {}).items())
    )
    found = LogReader(logs={"a": folder}, outcomes=outcomes)
    found.poll()
    return found


def seen(held: LogReader, *, shadow: bool = False, since: float = 0.0):
    """Return the evidence of version 2 over version 1."""
    return held.evidence(
        since=since,
        champion="1",
        challenger="2",
        shadow=shadow,
        slow_ratio=2.0,
        slow_floor_ms=20.0,
        alive=True,
    )


def test_what_the_champion_answers_for_a_challenger_counts_for_neither(tmp_path: Path):
    """Those users were given to the challenger, and it did not answer."""
    held = reader(
        tmp_path,
        record("r-1", version="1", arm="champion"),
        record("r-2", version="1", arm="challenger", latency_ms=400.0),
        record("r-3", version="2", arm="challenger"),
    )

    evidence = seen(held)

    assert evidence.champion.requests == 1
    assert evidence.champion.p99_ms == 2.0
    assert evidence.challenger.requests == 1


@given(st.lists(st.integers(0, 9), max_size=20), st.lists(st.integers(1, 40), max_size=30))
def test_a_growing_log_is_read_once_and_whole(
    tmp_path_factory: Any, rows: list[int], cuts: list[int]
):
    """However the writer's bytes arrive, every complete line is read exactly once."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    data = "".join(json.dumps({"n": n}) + "\n" for n in rows).encode()
    got, offset, written = [], 0, 0
    for cut in [*cuts, len(data)]:
        piece = data[written : written + cut]
        with path.open("ab") as f:
            f.write(piece)
        written += len(piece)
        new, offset = read_new(path, offset)
        got += [r["n"] for r in new]

    assert got == rows


def test_mirrored_copies_are_not_live_answers(tmp_path: Path):
    """In shadow only copies count, at a canary only answers to users."""
    held = reader(tmp_path, record("x", mirrored=True), record("y"), record("z"))

    assert seen(held, shadow=True).challenger.requests == 1
    assert seen(held).challenger.requests == 2


def test_agreement_joins_by_request_id(tmp_path: Path):
    """A copy is compared with the champion's answer to the same request, and no other."""
    held = reader(
        tmp_path,
        record("x", version="1", label=[3]),
        record("x", mirrored=True, label=[4]),
        record("y", version="1", label=[5]),
        record("y", mirrored=True, label=[5]),
        record("w", mirrored=True, label=[5]),
    )

    found = seen(held, shadow=True)

    assert (found.compared, found.disagreed) == (2, 1)


def test_labels_judge_answers_and_errors_are_not_answers(tmp_path: Path):
    """Only an answer can be right or wrong; a failed request is an error instead."""
    held = reader(
        tmp_path,
        record("x", label=[3]),
        record("y", label=[4]),
        record("z", status=500, label=None),
        labels={"x": 3, "y": 3, "z": 3},
    )

    found = seen(held).challenger

    assert (found.errors, found.labelled, found.wrong) == (1, 2, 1)


@pytest.mark.parametrize(
    ("over", "counted"),
    [
        ({"fallbacks": [f"{FAILED}:rules"]}, "errors"),
        ({"fallbacks": ["values", f"{FAILED}:cached"]}, "errors"),
        ({"fallbacks": ["rules"]}, "answered"),
        ({"fallbacks": ["values"]}, "answered"),
        ({"status": 429, "label": None}, "errors"),
        ({"status": 503, "label": None}, "errors"),
        ({"status": 400, "label": None}, "refused"),
        ({"status": 404, "label": None}, "refused"),
    ],
)
def test_what_a_version_could_not_do_is_told_from_what_it_would_not(
    tmp_path: Path, over: dict[str, Any], counted: str
):
    """A failed model is an error though something stood in for it, and so is being too busy.

    What stands in for a look-up is not the model's failure; a wrong request is refused.
    """
    found = seen(reader(tmp_path, record("x", **over), labels={"x": 3})).challenger

    assert found.requests == 1
    assert {k for k in ("errors", "refused", "answered") if getattr(found, k)} == {counted}
    assert found.labelled == found.answered


@pytest.mark.parametrize(
    ("status", "compared", "disagreed"), [(200, 1, 0), (400, 1, 1), (500, 1, 1), (429, 0, 0)]
)
def test_a_copy_that_is_refused_is_another_decision(
    tmp_path: Path, status: int, compared: int, disagreed: int
):
    """What the champion answers and the challenger would not; one too busy has not decided."""
    label = [3] if status == 200 else None
    held = reader(
        tmp_path,
        record("x", version="1"),
        record("x", mirrored=True, status=status, label=label),
        record("y", version="1", status=400, label=None),
        record("y", mirrored=True, status=400, label=None),
    )
    found = seen(held, shadow=True)

    assert (found.compared, found.disagreed) == (compared, disagreed)


def test_only_the_outcome_of_a_first_row_judges_it(tmp_path: Path):
    """An outcome of another row, or one that is no outcome, judges nothing and stops nothing."""
    held = reader(tmp_path, record("x", label=[3, 4]), record("y"), labels={"x": 3})
    wrong = [
        {"request_id": "x", "row": 1, "label": 4},
        {"request_id": ["x"], "label": 4},
        {"request_id": "y", "label": "4"},
    ]
    with held.outcomes.open("a") as f:
        f.writelines(json.dumps(one) + "\n" for one in wrong)
    held.poll()
    found = seen(held).challenger

    assert (found.labelled, found.wrong) == (1, 0)


def test_an_id_that_repeats_is_neither_compared_nor_judged(tmp_path: Path):
    """Nobody knows which copy belongs to which original, or whose outcome it is."""
    same = [[i % 10] for i in range(40)]
    held = reader(
        tmp_path,
        *[record("same", version="1", label=label) for label in same],
        *[record("same", mirrored=True, label=label) for label in same],
        *[record("once", version="1"), record("once", mirrored=True)],
        labels={"same": 3, "once": 3},
    )
    found = seen(held, shadow=True)

    assert (found.compared, found.disagreed) == (1, 0)
    assert (found.challenger.requests, found.challenger.repeated) == (41, 40)
    assert (found.challenger.labelled, found.challenger.wrong) == (1, 0)


def test_a_challenger_with_every_user_is_held_against_the_step_before(tmp_path: Path):
    """At the last step the champion has no users, and what it was is still known."""
    usual = [
        record(f"c{i}", version="1", at=5.0, status=400 if i % 2 else 200, latency_ms=50.0)
        for i in range(200)
    ]
    held = reader(tmp_path, *usual)
    seen(held)
    held.forget_before(10.0)
    with (tmp_path / "a" / "predictions-1.jsonl").open("a") as f:
        for i in range(200, 203):
            f.write(json.dumps(record(f"c{i}", version="1", at=15.0)) + "\n")
    held.poll()

    found = seen(held, since=10.0)

    assert (found.champion.requests, found.before.requests, found.before.refused) == (3, 200, 100)
    assert found.slow_limit_ms == 100.0


def test_records_from_before_the_step_are_no_evidence(tmp_path: Path):
    """What an earlier step saw does not count at this one."""
    held = reader(tmp_path, record("x", at=5.0), record("y", at=15.0))

    assert seen(held, since=10.0).challenger.requests == 1


def test_slow_is_measured_against_the_champion_with_a_floor(tmp_path: Path):
    """A request is slow above twice the champion's p99, and never below the floor."""
    quick = [record(f"c{i}", version="1", latency_ms=2.0) for i in range(20)]
    held = reader(tmp_path, *quick, record("x", latency_ms=19.0), record("y", latency_ms=21.0))

    assert seen(held).challenger.slow == 1


class FollowedLog(RuleBasedStateMachine):
    """A server that writes, is killed and starts again, its keeper, and who follows them."""

    @initialize()
    def begin(self):
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "a"
        self.reader = LogReader(logs={"a": self.folder}, outcomes=self.root / "none")
        self.number, self.whole, self.appended = 0, 0, list[str]()
        self.open_journal()

    def open_journal(self):
        self.path = logs.journal(self.folder, [], at=logs.T0 + self.number)
        self.file = self.path.open("ab", buffering=0)
        fcntl.flock(self.file, fcntl.LOCK_EX)

    @rule(count=st.integers(1, 3), torn=st.integers(0, 60))
    def append(self, count: int, torn: int):
        """Write whole lines and the beginning of another, which then is cut off or completed."""
        os.ftruncate(self.file.fileno(), self.whole)
        for _ in range(count):
            line = json.dumps(logs.record(self.number)).encode() + b"\n"
            self.whole += self.file.write(line)
            self.appended.append(f"r{self.number}")
            self.number += 1
        self.file.write(b'{"at":1.0,"request_id":"torn","version":"2","mirrored":false'[:torn])

    @rule()
    def spoil(self):
        """A line that is no record takes a number all the same."""
        os.ftruncate(self.file.fileno(), self.whole)
        self.whole += self.file.write(b'{"at":12\n\n')

    @rule()
    def roll(self):
        """End the journal as it is, as a crash does, and begin another."""
        self.file.close()
        self.whole = 0
        self.number += 1
        self.open_journal()

    @rule()
    def convert(self):
        keep(self.folder, now=time.time())

    @rule()
    def convert_and_remove(self):
        keep(self.folder, now=time.time() + 3600)

    @precondition(lambda self: list(self.folder.glob("*.parquet")))
    @rule()
    def remove_a_journal(self):
        """As forgetting does, in the middle of whatever was read of it."""
        for parquet in files.parquets(self.folder):
            parquet.with_suffix(".jsonl").unlink(missing_ok=True)

    @rule()
    def poll(self):
        self.reader.poll()

    @invariant()
    def none_is_doubled(self):
        taken = [r["request_id"] for r in self.reader._records]

        assert len(set(taken)) == len(taken)
        assert "torn" not in taken

    def teardown(self):
        """Whatever happened in between, in the end each record was taken, once."""
        self.reader.poll()
        self.file.close()
        shutil.rmtree(self.root)
        taken = {r["request_id"]: r["at"] for r in self.reader._records}

        assert len(self.reader._records) == len(self.appended)
        assert taken == {rid: logs.T0 + int(rid[1:]) for rid in self.appended}


TestFollowedLog = FollowedLog.TestCase
TestFollowedLog.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
