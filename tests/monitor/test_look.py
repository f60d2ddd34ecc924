"""What the monitor says of a champion: nothing moved, the world moved, or nothing can be said."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from penstock.bundle import Bundle
from penstock.monitor import signals
from penstock.monitor.look import Asked, Found, look
from penstock.policy import Slice
from penstock.verdict import Check, Outcome
from penstock.watching import Watch
from penstock.workload import Workload
from tests.monitor import world
from tests.monitor.world import CREDIT, HOUR, T0
from tests.predictions import logs

PASS, FAIL, ERROR, UNSURE = Outcome.PASS, Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE
USUAL = world.clients(2_000, seed=3)


def seen(
    package: Bundle, address: str, *, outcomes: str = "", declared: Workload = CREDIT
) -> Found:
    """Look at the hour that the clients of a test asked in."""
    asked = Asked(predictions=address, outcomes=outcomes, since=T0, until=T0 + HOUR)
    return look(declared, package, 1, asked)


def watching(**said: Any) -> Workload:
    return replace(CREDIT, watch=replace(CREDIT.watch, **said))


def named(found: Found, name: str) -> Check:
    (check,) = [check for check in found.verdict.checks if check.name == name]
    return check


def test_nothing_moved(package: Bundle, tmp_path: Path):
    """The same clients, right as often: every check passes, and so does the verdict."""
    address = world.log(tmp_path / "log", world.asked(USUAL))
    outcomes = world.outcomes(tmp_path / "outcomes.jsonl", USUAL)

    found = seen(package, address, outcomes=outcomes, declared=watching(max_drop=0.05))

    assert {check.outcome for check in found.drift} == {PASS}
    assert {check.outcome for check in found.scores} == {PASS}
    assert named(found, "performance: auc").outcome is PASS
    assert FAIL not in {check.outcome for check in found.verdict.checks}
    assert signals.diagnosis(found) == "p(x) did not move; p(y given x): the metric holds"


def test_the_world_moved_and_nobody_knows_what_is_right(package: Bundle, tmp_path: Path):
    """Richer clients: the feature fails, by all three measures, and only that one."""
    address = world.log(tmp_path / "log", world.asked(world.clients(2_000, seed=3, richer=3)))

    found = seen(package, address)

    failed = {check.name for check in found.verdict.checks if check.outcome is FAIL}
    assert failed == {f"drift: credit_limit {m}" for m in ("PSI", "JS", "KS")}
    assert signals.diagnosis(found) == "p(x) moved; p(y given x): no outcomes, so unknown"
    said = signals.of(CREDIT, found)
    assert said["drift"]["feature"] == "credit_limit"
    assert said["drift"]["psi"] > 0.5


def test_what_is_right_moved_and_the_world_did_not(package: Bundle, tmp_path: Path):
    """The same clients default otherwise: concept drift, which only outcomes show."""
    now = world.clients(2_000, seed=3, upside_down=0.4)
    address = world.log(tmp_path / "log", world.asked(now))

    blind = seen(package, address)
    found = seen(package, address, outcomes=world.outcomes(tmp_path / "o.jsonl", now))

    assert blind.verdict.outcome is PASS
    assert named(found, "performance: auc").outcome is FAIL
    assert (
        signals.diagnosis(found)
        == "p(x) did not move; p(y given x): the metric fell, concept drift"
    )


def test_a_slice_that_fell_alone_is_named(package: Bundle, tmp_path: Path):
    """Of clients near their limit the opposite is right; all together hardly show it."""
    now = world.clients(3_000, seed=3)
    heavy = now["use"].to_numpy() >= 0.9
    labels = now[CREDIT.label].to_numpy()
    at = now.column_names.index(CREDIT.label)
    turned = now.set_column(at, CREDIT.label, pa.array(abs(labels - heavy)))
    address = world.log(tmp_path / "log", world.asked(now))

    found = seen(
        package,
        address,
        outcomes=world.outcomes(tmp_path / "o.jsonl", turned),
        declared=watching(max_drop=0.5),
    )

    told = signals.of(CREDIT, found)["performance"]
    assert told["outcome"] == "pass"
    assert "heavy use" in told["fallen"]
    assert "low limit" not in told["fallen"]


def test_a_slice_that_the_log_cannot_tell_is_no_pass(package: Bundle, tmp_path: Path):
    """Who is in it nobody knows, so neither does anybody how they fare."""
    now = world.clients(2_000, seed=3)
    address = world.log(tmp_path / "log", world.asked(now))
    large = Slice(name="large bill", column="bill", low=200_000)

    found = seen(
        package,
        address,
        outcomes=world.outcomes(tmp_path / "o.jsonl", now),
        declared=replace(CREDIT, slices=(*CREDIT.slices, large)),
    )

    check = named(found, "performance: auc of large bill")
    assert (check.outcome, "holds no bill" in check.reason) == (UNSURE, True)
    assert found.verdict.outcome is UNSURE


@pytest.mark.parametrize("users", [1, 2, 30, 150])
def test_few_users_say_nothing_good_or_bad(package: Bundle, tmp_path: Path, users: int):
    """KS and PSI of so few are noise: a verdict on them is never a pass, and never drift."""
    address = world.log(tmp_path / "log", world.asked(world.clients(users, seed=3)))

    found = seen(package, address)

    assert found.verdict.outcome is UNSURE
    assert named(found, "rows").outcome is UNSURE
    assert named(found, "drift: use KS").outcome is UNSURE
    assert named(found, "drift: use JS").outcome is UNSURE
    assert {check.outcome for check in found.scores} <= {UNSURE, PASS}


def test_many_requests_of_few_users_are_few(package: Bundle, tmp_path: Path):
    """Thirty users who ask a hundred times each know no more than thirty."""
    records = world.asked(world.clients(3_000, seed=3))
    for number, record in enumerate(records):
        record["user"] = f"{number % 30:032x}"

    found = seen(package, world.log(tmp_path / "log", records))

    assert found.seen is not None
    assert (found.seen.requests, found.seen.users) == (3_000, 30)
    assert named(found, "rows").outcome is UNSURE
    assert named(found, "drift: use KS").outcome is UNSURE


@pytest.mark.parametrize("there", ["no folder", "an empty folder", "of another hour"])
def test_without_a_prediction_nothing_is_known(package: Bundle, tmp_path: Path, there: str):
    """Silence is an error, never a pass."""
    address = tmp_path / "log"
    if there == "an empty folder":
        address.mkdir()
    if there == "of another hour":
        before = [logs.record(n, at=logs.T0 - 10 - n) for n in range(500)]
        world.log(address, before)

    found = seen(package, str(address))

    assert found.verdict.outcome is ERROR
    assert "nothing was predicted" in named(found, "rows").reason
    assert signals.of(CREDIT, found)["errors"]


def test_a_store_that_does_not_answer_is_an_error(package: Bundle, monkeypatch: pytest.MonkeyPatch):
    """What could not be looked at is said, and passes nothing."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    found = seen(package, "s3://bucket/log")

    assert found.verdict.outcome is ERROR
    assert "cannot be read" in named(found, "log").reason


@pytest.mark.parametrize(
    "over",
    [
        {"version": "2"},
        {"mirrored": True},
        {"arm": "probe"},
        {"arm": "standby"},
        {"arm": "fallback"},
        {"at": logs.T0 + 3600},
    ],
)
def test_only_what_the_champion_answered_its_users_counts(
    package: Bundle, tmp_path: Path, over: dict[str, Any]
):
    """Another version, copies, probes and what came later are no evidence."""
    mine = world.asked(world.clients(300, seed=3))
    others = [
        {**record, "request_id": f"x{n}", **over}
        for n, record in enumerate(world.asked(world.clients(700, seed=4, richer=9)))
    ]

    found = seen(package, world.log(tmp_path / "log", [*mine, *others]))

    assert found.seen is not None
    assert found.seen.requests == 300
    assert FAIL not in {check.outcome for check in found.drift}


def test_another_workload_in_the_same_place_does_not_count(package: Bundle, tmp_path: Path):
    """Copies of all workloads may lie in one store."""
    world.log(tmp_path / "log", world.asked(world.clients(300, seed=3)))
    other = replace(world.CONTRACT, workload="digits")
    world.log(tmp_path / "log" / "b", world.asked(USUAL), contract=other)

    found = seen(package, str(tmp_path / "log"))

    assert found.seen is not None
    assert found.seen.requests == 300


@pytest.mark.parametrize(
    ("name", "over"),
    [
        ("errors", {"status": 500, "label": None, "probability": None}),
        ("stand-ins", {"fallbacks": ["cached:lookup"]}),
        ("stale features", {"stale": ["use"]}),
    ],
)
def test_answers_that_break_are_told_apart_from_drift(
    package: Bundle, tmp_path: Path, name: str, over: dict[str, Any]
):
    """A tenth is too many of five in a hundred; of the world it says nothing."""
    records = world.asked(USUAL)
    records = [{**r, **over} if n % 10 == 0 else r for n, r in enumerate(records)]

    found = seen(package, world.log(tmp_path / "log", records))

    assert named(found, name).outcome is FAIL
    assert {check.outcome for check in found.drift} == {PASS}
    assert signals.of(CREDIT, found)["quality"]["outcome"] == "fail"


def test_missing_values_are_broken_data(package: Bundle, tmp_path: Path):
    """A feature that is suddenly missing is an upstream job that broke."""
    records = world.asked(USUAL)
    for record in records[::5]:
        record["features"] = {**record["features"], "use": [None]}

    found = seen(package, world.log(tmp_path / "log", records))

    assert named(found, "drift: use missing").outcome is FAIL
    assert signals.of(CREDIT, found)["quality"]["outcome"] == "fail"


def test_silence_since_hours_is_told(package: Bundle, tmp_path: Path):
    """The newest prediction may be no older than declared."""
    address = world.log(tmp_path / "log", world.asked(USUAL))
    quiet = watching(max_silence=timedelta(minutes=20))

    assert named(seen(package, address), "newest prediction").outcome is PASS
    assert named(seen(package, address, declared=quiet), "newest prediction").outcome is FAIL


def test_a_log_that_lost_its_records_is_no_evidence(package: Bundle, tmp_path: Path):
    """What is left may be the part that did not break."""
    address = world.log(tmp_path / "log", world.asked(USUAL))
    counted = {"written": 2_000, "dropped": 100, "failed": 0, "problem": None}
    (tmp_path / "log" / "counters.json").write_bytes(orjson.dumps(counted))

    found = seen(package, address)

    assert named(found, "log").outcome is ERROR
    assert "100 of 2,100" in named(found, "log").reason
    assert signals.of(CREDIT, found)["evidence"]["outcome"] == "error"


def test_a_problem_of_the_log_is_no_evidence(package: Bundle, tmp_path: Path):
    """Half a log is not judged by."""
    address = world.log(tmp_path / "log", world.asked(USUAL))
    (tmp_path / "log" / "predictions-20250101T000000000Z-aa-bb.parquet").write_bytes(b"PAR1")

    assert named(seen(package, address), "log").outcome is ERROR


def test_outcomes_that_are_not_there_are_an_error(package: Bundle, tmp_path: Path):
    """Who named them wanted to know."""
    address = world.log(tmp_path / "log", world.asked(USUAL))

    found = seen(package, address, outcomes=str(tmp_path / "gone.jsonl"))

    assert named(found, "outcomes").outcome is ERROR
    assert found.performance == ()


def test_a_feature_that_is_kept_as_a_hash_is_not_compared(package: Bundle, tmp_path: Path):
    """A hash has no distribution to compare; asked for by name it is an error, not a pass."""
    records = world.asked(USUAL)
    for record in records:
        record["features"] = {**record["features"], "use": ["00ff"]}
    address = world.log(tmp_path / "log", records, contract=world.hashing("use"))
    all_of_them = watching(columns=())

    found = seen(package, address, declared=all_of_them)
    asked = seen(package, address, declared=watching(columns=("use",)))

    assert "drift: late_count PSI" in {check.name for check in found.drift}
    assert "drift: use" in {check.name for check in asked.drift}
    assert asked.verdict.outcome is ERROR


def test_a_policy_that_says_nothing_is_safe():
    """The defaults are those of the checklist."""
    watch = Watch()

    assert (watch.psi, watch.ks, watch.js, watch.severe_psi) == (0.2, 0.1, 0.1, 0.5)
    assert watch.min_interval == timedelta(hours=24)
    assert watch.every is None
