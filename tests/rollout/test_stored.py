"""Laws of evidence from copied logs: the same as from the logs themselves, only later."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from penstock.predictions import files
from penstock.predictions.keep import keep
from penstock.predictions.place import Place
from penstock.rollout.evidence import Evidence
from penstock.rollout.judge import WHOLE, judge
from penstock.rollout.observing import Observer
from penstock.rollout.reading import LogReader
from penstock.rollout.stored import HEARD_S, StoredReader
from penstock.verdict import Outcome
from tests.predictions.logs import T0, journal, record
from tests.rollout.carried import Release, Told
from tests.rollout.carried import judge as told_judge
from tests.rollout.test_evidence import ALL, CANARY, POLICY, SHADOW, plan_of, seen

LATER = T0 + 100


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Return the endpoint of an object store on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> str:
    """Return where copies go: a folder, or a bucket of a real S3 server."""
    if request.param == "folder":
        return str(tmp_path / "copies")
    endpoint = request.getfixturevalue("store")
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"b{abs(hash(request.node.name))}"
    host = endpoint.removeprefix("http://")
    client = fs.S3FileSystem(endpoint_override=host, scheme="http", allow_bucket_creation=True)
    client.create_dir(name)
    return f"s3://{name}/logs"


def reader(address: str, **over: Any) -> StoredReader:
    """Return a reader of what is copied of the workload ``tests``."""
    return StoredReader(at=lambda: Place.at(f"{address}/tests"), every_s=0.0, **over)


def pod(folder: Path, address: str, *records: dict[str, Any], **counts: Any) -> None:
    """Let a pod finish a journal of these records and copy it, with its counters."""
    journal(folder, records)
    if counts:
        (folder / files.COUNTERS).write_text(json.dumps({"written": len(records), **counts}))
    assert keep(folder, now=T0, to=Place.at(address)).problem == ""


def two_arms() -> list[dict[str, Any]]:
    """Return answers of both versions, some wrong, some failed, some copies."""
    made: list[dict[str, Any]] = []
    for n in range(40):
        version = "2" if n % 4 == 0 else "1"
        arm = "challenger" if version == "2" else "champion"
        user, status = f"user {n}", 500 if n % 13 == 0 else 200
        made.append(record(n, user=user, version=version, arm=arm, status=status, label=[n % 2]))
    return made


def numbers(found: Evidence) -> Any:
    """Return what can be compared of evidence; what is not known is -1."""
    arms = [
        {"at": a.at_n, "failed": a.failed_n, "latency_ms": a.latency_ms_n, **a.values_n}
        for a in (found.challenger, found.champion)
    ]
    kept = [{k: np.nan_to_num(v, nan=-1).tolist() for k, v in arm.items()} for arm in arms]
    return kept, found.newest_at, found.lost_share, found.conflict


def test_copies_say_what_the_logs_said(tmp_path: Path, address: str):
    """Of two pods, with outcomes: evidence is number for number that of the journals."""
    rows = two_arms()
    truths = [{"request_id": r["request_id"], "label": 1} for r in rows]
    lines = "".join(json.dumps(t) + "\n" for t in truths)
    (tmp_path / "outcomes").mkdir()
    (tmp_path / "outcomes" / "day.jsonl").write_text(lines)
    (tmp_path / "outcomes.jsonl").write_text(lines)
    for name, part in (("a", rows[::2]), ("b", rows[1::2])):
        journal(tmp_path / name, part)
    own = LogReader(logs={n: tmp_path / n for n in "ab"}, outcomes=tmp_path / "outcomes.jsonl")
    own.poll()
    wanted = seen(own, CANARY, now=LATER)
    for name in "ab":
        keep(tmp_path / name, now=T0, to=Place.at(address))
    copied = reader(address, outcomes=lambda: Place.at(tmp_path / "outcomes"))
    for _ in range(3):
        copied.poll()

    assert numbers(seen(copied, CANARY, now=LATER)) == numbers(wanted)
    assert wanted.challenger.users == 10


def test_each_file_is_taken_once_and_whenever_it_comes(tmp_path: Path, address: str):
    """Late ones too; what was last written before the release was opened is not even read."""
    held = reader(address)
    held.poll()
    assert len(seen(held, ALL, now=LATER).challenger) == 0
    pod(tmp_path / "a", address, record(1, version="2", user="u"))
    held.poll()
    pod(tmp_path / "b", address, record(0, version="2", user="v"))
    for _ in range(2):
        held.poll()
    assert len(seen(held, ALL, now=LATER).challenger) == 2
    late = reader(address, since=LATER)
    late.poll()
    assert len(seen(late, ALL, now=LATER).challenger) == 0


def test_nothing_younger_than_what_is_asked_about_is_there(tmp_path: Path):
    """One pod's file has come and another's has not: neither counts before both would have."""
    address = str(tmp_path / "copies")
    quick = [record(n, version="1", user=f"u{n}") for n in range(10)]
    pod(tmp_path / "a", address, *quick)
    held = reader(address)
    held.poll()
    counted = [len(seen(held, CANARY, now=T0 + s).champion) for s in (-1, 0, 4.5, 4.5, 20)]
    assert counted == [0, 1, 5, 5, 10]
    assert seen(held, CANARY, now=T0 + 20).conflict == ""


def test_what_a_pod_lost_is_known_where_its_copies_are(tmp_path: Path, address: str):
    """Its counters come with its files; the worst pod counts, and what it cannot write is said."""
    pod(tmp_path / "a", address, *two_arms(), dropped=0, failed=0, problem="")
    pod(tmp_path / "b", address, record(1000, user="u"), dropped=1, failed=0, problem="")
    held = reader(address)
    held.poll()
    assert seen(held, CANARY, now=LATER).lost_share == 0.5

    pod(tmp_path / "b", address, record(1001, user="u"), dropped=1, problem="the disk is full")
    held.poll()
    found = seen(held, CANARY, now=LATER)
    assert found.conflict == "the disk is full"


def test_a_place_that_cannot_be_read_is_an_error_and_no_silence(tmp_path: Path):
    """What is hidden must not look like nothing happened; when it is back, nothing is missed."""
    address = str(tmp_path / "copies")
    pod(tmp_path / "a", address, record(1, version="2", user="u"))
    (broken,) = (tmp_path / "copies" / "tests").glob("*.parquet")
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    held = reader(address)
    held.poll()
    found = seen(held, ALL, now=LATER)
    assert found.conflict.startswith("the copied log cannot be read")
    judged = judge(plan_of(POLICY), found, ALL, now=datetime.fromtimestamp(LATER, UTC))
    assert judged.outcome is Outcome.ERROR
    assert next(c for c in judged.verdict.checks if c.name == WHOLE).outcome is Outcome.ERROR

    broken.write_bytes(whole)
    held.poll()
    back = seen(held, ALL, now=LATER)
    assert (back.conflict, len(back.challenger)) == ("", 1)


def test_a_place_that_does_not_answer_is_asked_again_and_not_all_the_time(tmp_path: Path):
    """A store counts its questions; and what is away now is not taken for empty."""
    now, asked = [0.0], [0]

    def at() -> Place:
        asked[0] += 1
        raise ConnectionError("no route to the store")

    held = StoredReader(at=at, every_s=5.0, monotonic=lambda: now[0])
    for s in (0.0, 1.0, 4.9, 5.0):
        now[0] = s
        held.poll()
    assert asked == [2]
    assert "no route to the store" in seen(held, SHADOW, now=LATER).conflict


def test_outcomes_that_grow_are_read_on(tmp_path: Path, address: str):
    """A line that is still being written waits; a file that came later is read as well."""
    folder = tmp_path / "outcomes"
    folder.mkdir()
    pod(tmp_path / "a", address, *(record(n, version="2", user=f"u{n}") for n in range(3)))
    held = reader(address, outcomes=lambda: Place.at(folder))
    one, two, three = (json.dumps({"request_id": f"r{n}", "label": 1}) for n in range(3))
    (folder / "1.jsonl").write_text(f"{one}\n{two[:9]}")
    held.poll()
    assert known(held) == [1, -1, -1]
    (folder / "1.jsonl").write_text(f"{one}\n{two}\n")
    (folder / "2.jsonl").write_text(f"{three}\n")
    os.utime(folder / "2.jsonl", (0, 0))
    held.poll()
    assert known(held) == [1, 1, 1]


def known(held: StoredReader) -> list[float]:
    """Return what is known of the challenger's answers, -1 for nothing."""
    values = seen(held, ALL, now=LATER).challenger.values_n.get("right", np.full(3, np.nan))
    return np.nan_to_num(values, nan=-1).tolist()


def test_a_release_is_judged_by_what_had_come_and_silence_counts_from_then(tmp_path: Path):
    """The observer asks about a while ago, and the newest record is as young as it can be."""
    release = Release(folder=tmp_path)
    release.open()
    asked: list[float] = []
    judged: list[datetime] = []

    class Late:
        def poll(self) -> None:
            pass

        def evidence(self, window: Any, *, now: float, alive: bool) -> Told:
            asked.append(now)
            return Told(now, Outcome.PASS)

    def judging(plan: Any, evidence: Told, step: Any, *, now: datetime) -> Any:
        judged.append(now)
        return told_judge(plan, evidence, step, now=now)

    ledger, late = release.ledger(), Late()
    parts: dict[str, Any] = {"plane": release.plane(), "reader": late, "ledger": ledger}
    held = Observer(**parts, judge=judging, late_s=60.0)
    plan = release.opened.plan(release.policy)
    now = datetime.fromisoformat(ledger.entries()[-1].at) + timedelta(seconds=300)
    state = replace(release.state(), step=1, entered_at=now)
    glance = held.look(release.opened, plan, state, ledger.entries("digits"), now)
    ledger.close()

    assert asked == [(now - timedelta(seconds=60)).timestamp()]
    assert judged == [now - timedelta(seconds=60)]
    assert glance.seen.evidence_at == now


def test_whatever_cannot_be_read_is_a_problem_and_ends_no_look(tmp_path: Path):
    """A release that is never looked at leaves its users where they are."""
    address = str(tmp_path / "copies")
    pod(tmp_path / "a", address, record(1, version="2", user="u"), dropped=0, problem="")
    (counters,) = (tmp_path / "copies" / "tests").glob(f"{files.COPIED}*")
    counters.write_text("[1]")
    held = reader(address)
    held.poll()
    found = seen(held, ALL, now=LATER)
    assert (found.conflict, len(found.challenger)) == ("", 1)

    def at() -> Place:
        raise ValueError("it is no address")

    wrong = StoredReader(at=at, every_s=0.0)
    wrong.poll()
    assert "it is no address" in seen(wrong, ALL, now=LATER).conflict


def test_a_pod_that_ended_with_a_full_disk_long_ago_keeps_nobody_from_a_release(tmp_path: Path):
    """Its counters stay where they were copied; one that lives copies them again."""
    address = str(tmp_path / "copies")
    said = {"dropped": 9, "failed": 0, "problem": "the disk is full"}
    pod(tmp_path / "a", address, record(1, user="u"), **said)
    (counters,) = (tmp_path / "copies" / "tests").glob(f"{files.COPIED}*")
    for written, wanted in ((T0 - HEARD_S - 1, ""), (T0 - HEARD_S + 1, "the disk is full")):
        os.utime(counters, (written, written))
        held = reader(address, since=T0)
        held.poll()
        assert seen(held, CANARY, now=LATER).conflict == wanted
