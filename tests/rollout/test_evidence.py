"""Laws of reading evidence from growing logs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
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

from penstock.endpoint import Endpoint
from penstock.predictions import files
from penstock.predictions.keep import keep
from penstock.release import Measure, Rollout
from penstock.rollout import answering, lines
from penstock.rollout.evidence import Evidence
from penstock.rollout.judge import WHOLE, judge
from penstock.rollout.judgement import Reader, Window
from penstock.rollout.outcomes import Outcomes
from penstock.rollout.plan import plan_of
from penstock.rollout.reading import LogReader
from penstock.workload import Slice, Workload, load
from serving.instead import FAILED
from tests.predictions import logs

POLICY = Rollout(
    canary_percents=(10, 100),
    soak=timedelta(days=1),
    deadline=timedelta(days=2),
    primary=Measure(name="right answers", source="right", margin=0.1, deviation=0.3),
)
SHADOW, CANARY, ALL, BAKE = plan_of(POLICY).steps
NOW = 1000.0
AT = datetime.fromtimestamp(NOW, UTC)


def record(rid: str, *, version: str = "2", mirrored: bool = False, at: float = 10.0, **over: Any):
    """Return a prediction record; each is of a user of its own."""
    return {
        "at": at,
        "request_id": rid,
        "user": f"user of {rid}",
        "version": version,
        "mirrored": mirrored,
        "status": 200,
        "latency_ms": 2.0,
        "label": [3],
        "probability": [0.75],
        **over,
    }


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append lines to a file."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as f:
        f.writelines(json.dumps(one) + "\n" for one in records)


def reader(
    tmp_path: Path,
    *records: dict[str, Any],
    labels: dict[str, int] | None = None,
    declared: Workload | None = None,
) -> LogReader:
    """Return a reader over a log of these records and these outcomes."""
    write(tmp_path / "a" / "predictions-1.jsonl", records)
    outcomes = tmp_path / "outcomes.jsonl"
    write(outcomes, [{"request_id": k, "label": v} for k, v in (labels or {}).items()])
    found = LogReader(logs={"a": tmp_path / "a"}, outcomes=outcomes, declared=declared)
    found.poll()
    return found


def seen(held: Reader, step: Any = CANARY, *, now: float = NOW, **over: Any) -> Evidence:
    """Return the evidence of version 2 over version 1."""
    given: dict[str, Any] = {
        "market": "all",
        "champion": "1",
        "challenger": "2",
        "since": 0.0,
        "opened": 0.0,
        **over,
    }
    return held.evidence(Window(step=step, **given), now=now, alive=True)


def right(found: Evidence) -> list[float]:
    """Return what is known of the challenger's answers."""
    values = found.challenger.values_n.get("right", np.empty(0))
    return values[~np.isnan(values)].tolist()


def test_what_the_champion_answers_for_a_challenger_is_the_challengers_failure(tmp_path: Path):
    """Those users were given to the challenger, and it did not answer; whoever fails twice is one.

    They are no users of the champion's, whose time would be that of both.
    """
    held = reader(
        tmp_path,
        record("r-1", version="1", arm="champion"),
        record("r-2", version="1", arm="challenger", latency_ms=400.0),
        record("r-3", version="2", arm="challenger"),
        record("r-4", version="2", arm="challenger", status=500),
        record("r-4", version="1", arm="challenger"),
    )
    found = seen(held)

    assert len(found.champion) == 1
    assert found.champion.quantile_ms(0.99) == 2.0
    assert len(found.challenger) == 3
    assert len(found.challenger.failing) == 2
    assert found.challenger.quantile_ms(0.99) == 2.0


def test_a_challenger_that_answers_late_has_not_failed(tmp_path: Path):
    """Its own record may be written after that of the champion, who was asked when it was late."""
    held = reader(
        tmp_path,
        record("r-1", arm="challenger", at=10.0),
        record("r-2", version="1", arm="challenger", at=99.0),
    )
    early = seen(held, now=100.0).challenger
    lost = seen(held, now=102.0).challenger
    write(tmp_path / "a" / "predictions-1.jsonl", [record("r-2", arm="challenger", at=99.4)])
    held.poll()
    came = seen(held, now=102.0).challenger

    assert [len(arm.failing) for arm in (early, lost, came)] == [0, 1, 0]
    assert [len(arm) for arm in (early, lost, came)] == [1, 2, 2]


@settings(deadline=None)
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
        for block, end in lines.blocks(path, offset):
            got += [r["n"] for r in lines.records(block)]
            offset = end

    assert got == rows


@settings(deadline=None)
@given(st.lists(st.sampled_from(["good", "cut", "blank", "list", "odd", "two"]), max_size=12))
def test_a_spoiled_line_costs_itself_alone(kinds: list[str]):
    """Whatever a crash left between them, whole records around it are read, in their order."""
    texts = {
        "cut": '{"at":1.0,"requ',
        "blank": "",
        "list": "[1, 2]",
        "two": '{"at":1.0,"request_id":"a"} {"at":1.0,"request_id":"b"}',
        "odd": json.dumps(record("odd", label="3", features={"x": "text"}, mirrored=1)),
    }
    written = [
        json.dumps(record(f"r{n}")) if kind == "good" else texts[kind]
        for n, kind in enumerate(kinds)
    ]
    found = lines.told("".join(f"{t}\n" for t in written).encode(), lines.schema(["x"]))
    kept = [(n, kind) for n, kind in enumerate(kinds) if kind in ("good", "odd")]
    wanted = [f"r{n}" if kind == "good" else kind for n, kind in kept]

    assert found["request_id"].to_pylist() == wanted
    assert all(
        label == ([3] if rid != "odd" else None)
        for rid, label in zip(wanted, found["label"].to_pylist(), strict=True)
    )


def test_mirrored_copies_are_not_live_answers(tmp_path: Path):
    """In shadow only copies count, at a canary only answers to users."""
    held = reader(tmp_path, record("x", mirrored=True), record("y"), record("z"))

    assert len(seen(held, SHADOW).challenger) == 1
    assert len(seen(held).challenger) == 2


@pytest.mark.parametrize("arm", ["standby", "probe", "fallback"])
def test_what_says_nothing_of_a_release_is_no_evidence(tmp_path: Path, arm: str):
    """A standby's trickle, probes and answers under the kill switch are of neither version."""
    held = reader(
        tmp_path, record("x", arm=arm), record("y", arm=arm, version="1"), record("z", arm=None)
    )

    assert (len(seen(held).challenger), len(seen(held).champion)) == (1, 0)


def test_each_market_has_its_own_evidence(tmp_path: Path):
    """A record that names none is of everybody's, as are those from before there were markets."""
    held = reader(
        tmp_path, record("x", market="eu"), record("y", market=None), record("z", market="all")
    )
    held.logs = {}

    assert len(seen(held, market="eu").challenger) == 1
    assert len(seen(held).challenger) == 2
    assert len(seen(held, market="us").challenger) == 0


def test_agreement_joins_by_request_id(tmp_path: Path):
    """A copy is compared with the champion's answer to the same request, and no other."""
    held = reader(
        tmp_path,
        record("x", version="1", label=[3]),
        record("x", mirrored=True, label=[4]),
        record("y", version="1", label=[5]),
        record("y", mirrored=True, label=[5]),
        record("w", mirrored=True, label=[5]),
        record("v", version="1", label=[5]),
    )
    copies = seen(held, SHADOW).copies

    assert (len(copies), int((~copies.alike_n).sum())) == (2, 1)
    assert copies.coverage == pytest.approx(2 / 3)


def test_a_copy_may_be_on_its_way_still(tmp_path: Path):
    """A request of this moment is not counted as one without a copy."""
    held = reader(tmp_path, record("x", version="1", at=10.0), record("y", version="1", at=99.5))

    assert seen(held, SHADOW, now=100.0).copies.sent == 1


def test_labels_judge_answers_and_errors_are_not_answers(tmp_path: Path):
    """Only an answer can be right or wrong; a failed request is an error instead."""
    held = reader(
        tmp_path,
        record("x", label=[3]),
        record("y", label=[4]),
        record("z", status=500, label=None),
        labels={"x": 3, "y": 3, "z": 3},
    )
    found = seen(held)

    assert found.challenger.failed_n.sum() == 1
    assert sorted(right(found)) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("over", "counted"),
    [
        ({"fallbacks": [f"{FAILED}:rules"]}, "failed"),
        ({"fallbacks": ["values", f"{FAILED}:cached"]}, "failed"),
        ({"fallbacks": ["rules"]}, "answered"),
        ({"fallbacks": ["values"]}, "answered"),
        ({"status": 429, "label": None}, "failed"),
        ({"status": 503, "label": None}, "failed"),
        ({"status": None, "label": None}, "failed"),
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
    found = seen(reader(tmp_path, record("x", **over), labels={"x": 3}))
    one = found.challenger
    ways = {
        "failed": one.failed_n.sum(),
        "refused": one.refused_n.sum(),
        "answered": (~np.isnan(one.latency_ms_n)).sum(),
    }

    assert ways == {"failed": 0, "refused": 0, "answered": 0, counted: 1}
    assert right(found) == ([1.0] if counted == "answered" else [])


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
    copies = seen(held, SHADOW).copies

    assert (len(copies), int((~copies.alike_n).sum())) == (compared, disagreed)


def test_only_the_outcome_of_a_first_row_judges_it(tmp_path: Path):
    """An outcome of another row, or one that is no outcome, judges nothing and stops nothing."""
    held = reader(tmp_path, record("x", label=[3, 4]), record("y"), labels={"x": 3})
    wrong = [
        {"request_id": "x", "row": 1, "label": 4},
        {"request_id": ["x"], "label": 4},
        {"request_id": "y", "label": "4"},
        {"request_id": "y", "label": True},
        {"request_id": "y"},
        ["y"],
    ]
    write(held.outcomes, wrong)  # type: ignore[arg-type]
    held.poll()

    assert right(seen(held)) == [1.0]


def test_what_became_of_the_row_that_was_shown_is_the_requests(tmp_path: Path):
    """A ranking's click counts whichever row it is of; of several rows that of the first does."""
    held = reader(tmp_path, record("x", label=[3, 4]), record("y", label=[3, 4]))
    for rid, row, label in (("x", 1, 1), ("y", 0, 0), ("y", 1, 1)):
        write(held.outcomes, [{"request_id": rid, "row": row, "label": label}])
    held.poll()
    found = seen(held).challenger

    assert found.values_n["label"].tolist() == [1.0, 0.0]
    assert np.isnan(found.values_n["right"]).tolist() == [True, False]


def test_of_several_outcomes_the_last_counts(tmp_path: Path):
    """Corrections come later: by their time, and one without a time yields; then by their place."""
    path = tmp_path / "outcomes.jsonl"
    held = Outcomes(path=path)
    for told in (
        [("x", 1, 50.0), ("x", 2, 40.0), ("y", 1, None), ("y", 2, None)],
        [("x", 3, None), ("z", 1, 7.0), ("x", 4, 60.0)],
    ):
        write(path, [{"request_id": r, "label": v, "at": at} for r, v, at in told])
        held.poll()
    value, came = held.values["label"].of(np.asarray([hash(r) for r in ("x", "y", "z", "none")]))

    assert value[:3].tolist() == [4.0, 2.0, 1.0]
    assert np.isnan(value[3])
    assert came[0] == 60.0
    assert np.isnan(came[1])


def test_other_numbers_of_an_outcome_are_measures_of_their_own(tmp_path: Path):
    """Revenue may come later than the click, or without one; what is unknown to the log is not."""
    held = reader(tmp_path, record("x"), record("y"), labels={"x": 3, "unknown": 1})
    write(held.outcomes, [{"request_id": "x", "revenue": 2.5, "at": 12.0, "note": "text"}])
    held.poll()
    found = seen(held).challenger

    assert set(found.values_n) == {"label", "right", "revenue"}
    assert np.nansum(found.values_n["revenue"]) == 2.5
    assert np.nansum(found.came_at_n["revenue"]) == 12.0


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
    found = seen(held, SHADOW)

    assert (len(found.copies), int((~found.copies.alike_n).sum())) == (1, 0)
    assert (len(found.challenger), found.repeated) == (41, 80)
    assert right(found) == [1.0]


@pytest.mark.parametrize(("named", "counts"), [(5, (5, 1)), (0, (3, 3))])
def test_who_has_no_id_is_nobody_unless_nobody_has_one(
    tmp_path: Path, named: int, counts: tuple[int, int]
):
    """Requests of one user are one user; a caller without a name is not as many as it sends."""
    held = reader(
        tmp_path,
        *[record(f"x{n}", user="u") for n in range(named)],
        *[record(f"y{n}", user=None) for n in range(3)],
    )
    found = seen(held)

    assert (len(found.challenger), found.challenger.users) == counts
    assert found.anonymous is not bool(named)
    checks = judge(plan_of(POLICY), found, CANARY, now=AT).verdict.checks
    (whole,) = [check for check in checks if check.name == WHOLE]
    assert ("as no user is named" in whole.reason) is not bool(named)


@pytest.mark.parametrize("step", [ALL, BAKE])
def test_a_challenger_with_every_user_is_held_against_the_step_before(tmp_path: Path, step: Any):
    """At 100 % the champion has no users, and what it was is still known."""
    usual = [
        record(f"c{i}", version="1", at=5.0, status=400 if i % 2 else 200, latency_ms=50.0)
        for i in range(200)
    ]
    early = [record(f"e{i}", version="1", at=2.0) for i in range(10)]
    held = reader(tmp_path, *early, *usual, record("x", at=15.0))
    found = seen(held, step, since=10.0, before=4.0)

    assert (len(found.champion), found.champion.refused_n.sum()) == (200, 100)
    assert answering.slow_limit_ms(POLICY, found.champion) == 100.0
    # Where nobody said when that was, what is known of the champion since the release began.
    assert len(seen(held, step, since=10.0).champion) == 210


def test_records_from_before_the_step_are_no_evidence(tmp_path: Path):
    """What an earlier step saw does not count at this one."""
    held = reader(tmp_path, record("x", at=5.0), record("y", at=15.0))

    assert len(seen(held, since=10.0).challenger) == 1


def test_users_before_anyone_was_on_the_challenger_are_kept_apart(tmp_path: Path):
    """What users are like by themselves is what they did before the release touched any of them."""
    held = reader(
        tmp_path,
        record("old", version="1", at=1.0, user="u"),
        record("a", version="1", at=5.0, user="u"),
        record("b", version="2", at=8.0, user="v"),
        record("c", version="1", at=9.0, user="w"),
        record("d", version="1", at=15.0, user="u"),
        record("e", version="2", at=15.0, user="v"),
    )
    found = seen(held, since=10.0, opened=2.0)

    assert len(found.earlier) == 1
    assert found.earlier.user_n.tolist() == found.champion.user_n.tolist()


def test_slow_is_measured_against_the_champion_with_a_floor(tmp_path: Path):
    """A request is slow above twice the champion's p99, and never below the floor."""
    quick = [record(f"c{i}", version="1", latency_ms=2.0) for i in range(100)]
    slow = [record(f"c{i}", version="1", latency_ms=30.0) for i in range(100, 200)]

    assert answering.slow_limit_ms(POLICY, seen(reader(tmp_path, *quick)).champion) == 20.0
    assert answering.slow_limit_ms(POLICY, seen(reader(tmp_path, *slow)).champion) == 60.0


def test_records_from_the_future_are_a_conflict_and_no_evidence(tmp_path: Path):
    """Clocks that differ by seconds differ; by more, nothing that is timed can be believed."""
    held = reader(tmp_path, record("x", at=98.0), record("y", at=103.0), record("z", at=200.0))

    assert "future" in seen(held, now=100.0).conflict
    assert len(seen(held, now=100.0).challenger) == 2
    assert seen(held, now=300.0).conflict == ""


def test_users_met_in_both_arms_are_in_neither_and_many_are_a_conflict(tmp_path: Path):
    """Within a step a user sees one version; where that is not so, another table was in force."""
    users = [record(f"x{n}", user=f"u{n}") for n in range(200)]
    both = [record(f"y{n}", user=f"u{n}", version="1") for n in (0, 1)]
    more = [record(f"z{n}", user=f"u{n}", version="1") for n in range(2, 20)]
    held = reader(tmp_path, *users, *both)

    assert seen(held).conflict == ""
    assert (seen(held).challenger.users, seen(held).champion.users) == (198, 0)
    write(tmp_path / "a" / "predictions-1.jsonl", more)
    held.poll()
    assert "both arms" in seen(held).conflict


def test_what_the_log_lost_since_the_step_began_is_counted(tmp_path: Path):
    """Losses of long ago are no fault of this step's evidence, and of now they are."""
    held = reader(tmp_path, record("x"))
    counters = tmp_path / "a" / files.COUNTERS

    def count(at: float, **counts: Any) -> Evidence:
        counters.write_text(json.dumps({"written": 0, "dropped": 0, "failed": 0, **counts}))
        os.utime(counters, (at, at))
        held.poll()
        return seen(held, since=100.0)

    assert count(50.0, written=1000, dropped=900).lost_share == 0.0
    assert count(90.0, written=2000, dropped=1000).lost_share == 0.0
    assert count(110.0, written=2900, dropped=1050, failed=50).lost_share == pytest.approx(0.1)
    assert count(120.0, written=2900, problem="disk full").conflict == "disk full"


@pytest.mark.parametrize(("written_at", "lost"), [(5.0, 0.0), (25.0, 0.9)])
def test_a_reader_that_begins_late_blames_the_step_unless_all_was_lost_before(
    tmp_path: Path, written_at: float, lost: float
):
    """Nobody knows when it was lost: counters of before the step clear it, later ones do not."""
    (tmp_path / "a").mkdir()
    counters = tmp_path / "a" / files.COUNTERS
    counters.write_text(json.dumps({"written": 10, "dropped": 90, "failed": 0}))
    os.utime(counters, (written_at, written_at))
    held = reader(tmp_path, record("x"))

    assert seen(held, since=20.0).lost_share == lost


def sliced() -> Workload:
    """Return a workload with slices of the features that logs of tests have."""
    slices = (
        Slice(name="low", column="x", high=1.0),
        Slice(name="high", column="x", low=1.0),
        Slice(name="none", column="x", missing=True),
        Slice(name="two", column="n", among=(2,)),
        Slice(name="who", column="user_id", among=(7,)),
    )
    hidden = Endpoint(hashed=("user_id",))
    return replace(load("streamrec"), slices=slices, endpoint=hidden)


FEATURES: list[dict[str, Any] | None] = [
    {"x": [0.5], "n": [1]},
    {"x": [2.0, 0.1], "n": [2, 1]},
    {"x": [None], "n": [2]},
    None,
    {"x": [], "n": []},
]


@pytest.mark.parametrize("finished", [False, True])
def test_slices_are_of_a_requests_first_row_in_a_journal_as_in_parquet(
    tmp_path: Path, finished: bool
):
    """Missing is a value; a request that was not read is in no slice; hashes cannot be told."""
    records = [logs.record(n, features=held, version="2") for n, held in enumerate(FEATURES)]
    logs.journal(tmp_path / "a", records, of=logs.contract("x", "n"))
    if finished:
        keep(tmp_path / "a", now=time.time())
        for journal in files.journals(tmp_path / "a"):
            journal.unlink()
    held = LogReader(logs={"a": tmp_path / "a"}, outcomes=tmp_path / "no", declared=sliced())
    held.poll()
    found = seen(held, now=logs.T0 + 100)

    assert found.slices == ("low", "high", "none", "two")
    assert "who" in found.unsliced
    members = [len(found.challenger.in_slice(k)) for k in range(4)]
    assert members == [1, 1, 1, 2]


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_are_of_class_1_of_two_and_of_the_decision_of_more(tmp_path: Path, classes: int):
    """Two versions that decide otherwise are compared by one and the same probability."""
    held = reader(
        tmp_path,
        record("x", version="1", label=[1], probability=[0.75]),
        record("x", mirrored=True, label=[0], probability=[0.75]),
        declared=sliced() if classes == 2 else load("digits"),
    )
    copies = seen(held, SHADOW).copies

    assert copies.one_n.tolist() == [0.75]
    assert copies.other_n.tolist() == [0.25 if classes == 2 else 0.75]


@pytest.mark.parametrize("finished", [False, True])
def test_all_rows_of_a_ranking_are_compared_row_by_row(tmp_path: Path, finished: bool):
    """A request's rows belong together, and a copy's to those of its original."""
    rankings = {"r1": [0.9, 0.2, 0.4], "r2": [0.1, 0.8]}
    records = [
        logs.record(
            n, request_id=rid, version=version, mirrored=version == "2",
            label=[1] * len(scores), probability=[s + shift for s in scores],
            features={"x": [0.5] * len(scores)},
        )
        for n, (rid, scores) in enumerate(rankings.items())
        for version, shift in (("1", 0.0), ("2", 0.05))
    ]  # fmt: skip
    logs.journal(tmp_path / "a", [*records, logs.record(9)])
    if finished:
        keep(tmp_path / "a", now=time.time() + 3600)
        keep(tmp_path / "a", now=time.time() + 3600)
    held = LogReader(logs={"a": tmp_path / "a"}, outcomes=tmp_path / "no", declared=sliced())
    held.poll()
    copies = seen(held, SHADOW, now=logs.T0 + 100).copies

    found = {(int(p), round(o, 3), round(c, 3)) for p, o, c in zip(
        copies.pair_r, copies.one_r, copies.other_r, strict=True)}  # fmt: skip
    wanted = {
        (place, round(score, 3), round(score + 0.05, 3))
        for place, scores in enumerate(rankings.values())
        for score in scores
    }
    assert found == wanted


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
        taken = self.reader.rows.requests["request"].tolist()

        assert len(set(taken)) == len(taken)
        assert hash("torn") not in taken

    def teardown(self):
        """Whatever happened in between, in the end each record was taken, once."""
        self.reader.poll()
        self.file.close()
        shutil.rmtree(self.root)
        held = self.reader.rows.requests
        taken = dict(zip(held["request"].tolist(), held["at"].tolist(), strict=True))

        assert len(held) == len(self.appended)
        assert taken == {hash(rid): logs.T0 + int(rid[1:]) for rid in self.appended}


TestFollowedLog = FollowedLog.TestCase
TestFollowedLog.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
