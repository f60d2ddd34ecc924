"""Laws of keeping a log: copies away, old files removed, nothing done twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from penstock.predictions import files
from penstock.predictions.forget import forget
from penstock.predictions.hashing import Hasher
from penstock.predictions.keep import TRY_AGAIN, expire, keep
from penstock.predictions.log import Predictions
from penstock.predictions.place import Place
from penstock.rollout.slots import DRAIN_S
from serving.prediction_log import CLOSE_S
from serving.rotation import AGAIN_S, Keeper
from tests.packages import wait_for
from tests.predictions.logs import SALT, T0, contract, journal, opened, record, seen

DAY = 86_400.0
UNREADABLE = Path("/proc/self/mem")
"""A file that opens and then refuses to be read, as one on a broken disk does."""


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An object store on loopback; the address of its endpoint."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(store: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Return the address of a new bucket's folder, which every S3 client here finds."""
    for name, value in {
        "AWS_ENDPOINT_URL": store,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"b{abs(hash(request.node.name))}"
    host = store.removeprefix("http://")
    client = fs.S3FileSystem(endpoint_override=host, scheme="http", allow_bucket_creation=True)
    client.create_dir(name)
    return f"s3://{name}/logs"


def test_finished_files_are_copied_and_read_there(tmp_path: Path, bucket: str):
    """Once each; the copy is the log as far as it is finished."""
    journal(tmp_path, [record(n) for n in range(3)])
    place = Place.at(bucket)

    assert keep(tmp_path, now=T0, to=place).sent == 1
    assert keep(tmp_path, now=T0, to=place).sent == 0
    journal(tmp_path, [record(n, features={"n": [n]}) for n in (3, 4)], of=contract("n"))
    assert keep(tmp_path, now=T0, to=place).sent == 1
    there = Predictions(bucket).table(columns=["request_id", "features", "workload"])
    assert there.equals(Predictions(tmp_path).table(columns=["request_id", "features", "workload"]))
    assert len(there) == 5


def test_a_copy_that_was_not_noted_is_made_again(tmp_path: Path, bucket: str):
    """Killed between copy and note, the same object is written once more: still one of each."""
    journal(tmp_path, [record(n) for n in range(3)])
    keep(tmp_path, now=T0, to=Place.at(bucket))
    for note in tmp_path.glob("*.sent"):
        note.unlink()

    assert keep(tmp_path, now=T0, to=Place.at(bucket)).sent == 1
    assert len(Predictions(bucket).table()) == 3


def test_a_store_that_refuses_is_tried_again_and_keeps_nothing_back(tmp_path: Path, bucket: str):
    """Journals are finished all the same; the child says by its code that it must come again."""
    journal(tmp_path, [record()])
    other = bucket.replace("/logs", "-not-there/logs")
    command = [sys.executable, "-m", "penstock.predictions.keep", str(tmp_path)]

    for address, code in ((other, TRY_AGAIN), (bucket, 0)):
        done = subprocess.run([*command, address], capture_output=True, text=True, check=False)
        assert (done.returncode, bool(done.stderr)) == (code, code != 0)
        assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert len(Predictions(bucket).table()) == 1


def test_a_server_that_ends_copies_its_last_lines(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    """Its disk may go away with it."""
    monkeypatch.setenv("PENSTOCK_PREDICTIONS", bucket)
    log = opened(tmp_path)
    log.add(seen("r"))
    log.close(wait_s=60)

    assert Predictions(bucket).table()["request_id"].to_pylist() == ["r"]


def test_forgetting_and_expiry_reach_the_copies(tmp_path: Path, bucket: str):
    """A rewritten file is copied again; what is only there is rewritten and removed there."""
    ann = Hasher(SALT).user(b"ann")
    journal(tmp_path, [record(n, user=ann if n % 2 else "0" * 32) for n in range(6)])
    place, now = Place.at(bucket), datetime.fromtimestamp(T0, UTC)
    keep(tmp_path, now=T0, to=place)

    assert forget(tmp_path, b"ann", salt=SALT, now=now).rows == 3
    assert len(Predictions(bucket).table()) == 6
    assert keep(tmp_path, now=T0, to=place).sent == 1
    assert len(Predictions(bucket).table()) == 3
    assert forget(bucket, b"ann", salt=SALT, now=now).rows == 0
    assert (expire(place, now=T0 + 80 * DAY), expire(place, now=T0 + 91 * DAY)) == (0, 1)
    assert len(Predictions(bucket).table()) == 0


def test_an_object_is_whole_or_not_there(tmp_path: Path, bucket: str):
    """What fails on our side half way is neither a new object nor one in another's place."""
    journal(tmp_path, [record(n) for n in range(3)])
    place = Place.at(bucket)
    keep(tmp_path, now=T0, to=place)
    [path] = place.parquets()
    unwritable = pa.table(
        {"u": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])}
    )

    with pytest.raises(pa.ArrowNotImplementedError):
        place.write(unwritable, path)
    with pytest.raises(OSError, match="Input/output error"):
        place.send(UNREADABLE, "tests")

    there = place.fs.get_file_info(fs.FileSelector(place.root, recursive=True))
    assert [one.path for one in there if one.is_file] == [path]
    assert len(Predictions(bucket).table()) == 3


def test_a_copy_on_a_disk_is_whole_or_not_there(tmp_path: Path):
    """A reader of a shared folder never sees half a file, and a failed copy leaves none."""
    journal(tmp_path / "a", [record(n) for n in range(3)])
    place = Place.at(tmp_path / "copies")

    assert keep(tmp_path / "a", now=T0, to=place).sent == 1
    with pytest.raises(OSError, match="Input/output error"):
        place.send(UNREADABLE, "tests")

    assert len(Predictions(tmp_path / "copies").table()) == 3
    assert [path.suffix for path in (tmp_path / "copies" / "tests").iterdir()] == [".parquet"]


def test_every_file_with_records_is_as_private_as_the_journal(tmp_path: Path):
    """Nobody outside the group reads what a request held, in which form ever."""
    before = os.umask(0o022)
    try:
        log = opened(tmp_path / "a")
        log.add(seen("r"))
        log.close()
        journal(tmp_path / "a", [record()], torn=b"{bad\n")
        left = [*(tmp_path / "a").glob("predictions-*.jsonl")]
        keep(tmp_path / "a", now=time.time(), to=Place.at(tmp_path / "copies"))
    finally:
        os.umask(before)

    made = [p for p in tmp_path.rglob("*") if p.suffix in (".parquet", ".json")]
    made += [*(tmp_path / "a").glob("refused-*")]
    assert (len(left), len(made)) == (2, 8)
    assert {path.stat().st_mode & 0o777 for path in made} == {0o640}


def test_a_broken_file_keeps_no_other_from_expiring(tmp_path: Path):
    """It stays where it is, whatever its age is."""
    of = contract(kept_days=1)
    paths = [journal(tmp_path, [record(n)], of=of, at=T0 + n) for n in range(3)]
    keep(tmp_path, now=T0)
    broken = paths[0].with_suffix(".parquet")
    broken.write_bytes(b"PAR1")

    assert keep(tmp_path, now=T0 + 2 * DAY).expired == 2
    assert list(tmp_path.glob("*.parquet")) == [broken]


def test_a_log_below_another_is_not_touched(tmp_path: Path):
    """A folder's files are its own; what lies deeper is somebody else's."""
    of = contract(kept_days=1)
    for folder in (tmp_path, tmp_path / "deeper"):
        journal(folder, [record()], of=of)
        keep(folder, now=T0)

    assert keep(tmp_path, now=T0 + 2 * DAY).expired == 1
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_a_child_that_failed_is_started_again_soon(tmp_path: Path):
    """After a minute, not after the hour at which it comes anyway."""
    path = journal(tmp_path, [record()])
    [told] = tmp_path.glob("contract-*.json")
    text, now = told.read_text(), [1000.0]
    told.unlink()
    keeper = Keeper(tmp_path, clock=lambda: now[0])
    keeper.look()
    wait_for(lambda: not keeper.running, 20)
    told.write_text(text)
    keeper.look()
    now[0] += AGAIN_S + 1
    keeper.look()

    wait_for(path.with_suffix(".parquet").exists, 20)
    keeper.close(0)


def test_a_server_ends_before_its_supervisor_kills_it():
    """Requests in flight have the rest of the time."""
    assert CLOSE_S <= DRAIN_S / 2


def test_files_go_when_their_newest_row_is_too_old(tmp_path: Path):
    """A day is kept; a file with one younger row stays whole."""
    of = contract(kept_days=1)
    old = journal(tmp_path, [record(n) for n in range(3)], of=of, torn=b"{bad\n")
    young = journal(tmp_path, [record(0), record(7200)], of=of)
    keep(tmp_path, now=T0)

    assert keep(tmp_path, now=T0 + DAY + 3600).expired == 1
    left = {path.stem for path in tmp_path.iterdir() if old.stem in path.name}
    assert (left, len(Predictions(tmp_path).table())) == (set(), 2)
    assert young.with_suffix(".parquet").exists()
    assert keep(tmp_path, now=T0 + DAY + 7201).expired == 1


def test_one_keeper_at_a_time(tmp_path: Path):
    """A second one lets the first go on."""
    journal(tmp_path, [record()])
    with files.held(tmp_path), pytest.raises(files.Busy, match="another process"):
        keep(tmp_path, now=T0)

    assert keep(tmp_path, now=T0).finished == 1


def test_an_address_of_another_kind_is_refused():
    """Only folders, S3 and Google's store are places."""
    with pytest.raises(ValueError, match="no folder and no s3"):
        Place.at("https://bucket/logs")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path):
    """And nothing beside it that a reader or the next keeper would trip over."""
    path = tmp_path / "predictions-x.parquet"
    path.mkdir()

    with pytest.raises(IsADirectoryError):
        files.replace(path, b"half")

    assert list(tmp_path.iterdir()) == [path]


def test_the_child_takes_the_last_turn(tmp_path: Path):
    """Whatever its parent's priority is, it runs after everything that answers."""
    code = "import os, sys; from penstock.predictions.keep import main; main(sys.argv[1:]); "
    code += "print(os.nice(0))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "19\n"
    assert os.nice(0) < 19
