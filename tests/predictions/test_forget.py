"""Laws of forgetting: no trace of one user, everything of the others, while servers write."""

from __future__ import annotations

import fcntl
import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.predictions import files
from penstock.predictions import forget as forgetting
from penstock.predictions.files import Busy
from penstock.predictions.forget import forget
from penstock.predictions.hashing import Hasher
from penstock.predictions.keep import Kept, finish, keep
from penstock.predictions.log import Predictions
from penstock.predictions.place import Place
from tests.packages import wait_for
from tests.predictions.logs import SALT, T0, journal, opened, record, seen

NOW = datetime.fromtimestamp(T0, UTC)
ANN = Hasher(SALT).user(b"ann")


def holding(folder: Path, what: str) -> list[Path]:
    """Return the files that hold a text anywhere, compressed or not."""
    plain = [p for p in folder.rglob("*") if p.is_file() and what.encode() in p.read_bytes()]
    users = Predictions(folder).table(columns=["user"])["user"].to_pylist()
    return plain + [folder] * (what in users)


def test_no_file_holds_the_user_and_the_others_stay(tmp_path: Path):
    """In finished files, left journals, lines put aside; in every slot."""
    tmp_path /= "serving"
    for slot in ("a", "b"):
        rows = [record(n, user=(ANN, "f" * 32, None)[n % 3]) for n in range(9)]
        journal(tmp_path / slot, rows, torn=b'{"user":"%s",\n' % ANN.encode())
        keep(tmp_path / slot, now=T0)
        journal(tmp_path / slot, [record(n, user=ANN) for n in (20, 21)] + [record(22)])

    removed = forget(tmp_path, b"ann", salt=SALT, now=NOW)

    assert (removed.rows, removed.files) == (2 * (3 + 1 + 2), 4)
    assert holding(tmp_path, ANN) == []
    assert len(Predictions(tmp_path).table()) == 2 * (6 + 1)
    assert forget(tmp_path, b"ann", salt=SALT, now=NOW).rows == 0


def test_what_was_done_is_noted_without_saying_for_whom(tmp_path: Path):
    """When and how much; neither the id nor its hash."""
    journal(tmp_path, [record(0, user=ANN)])

    forget(tmp_path, b"ann", salt=SALT, now=NOW)

    [line] = (tmp_path / "forgotten.jsonl").read_text().splitlines()
    assert json.loads(line) == {"at": "2096-10-02T07:06:40+00:00", "rows": 1, "files": 1}


def test_another_salt_finds_nobody(tmp_path: Path):
    """Without the secret a user cannot be told from the others."""
    journal(tmp_path, [record(0, user=ANN)])

    assert forget(tmp_path, b"ann", salt=b"another secret, as long", now=NOW).rows == 0
    assert not (tmp_path / "forgotten.jsonl").exists()


@settings(max_examples=10, deadline=None)
@given(st.binary(min_size=1, max_size=600), st.sampled_from([b"", b"\x80", b"longer"]))
def test_whoever_the_edge_can_name_is_found(
    tmp_path_factory: pytest.TempPathFactory, user: bytes, more: bytes
):
    """In any encoding and of any length, and nobody whose id only begins alike."""
    folder = tmp_path_factory.mktemp("log")
    log = opened(folder)
    for n, who in enumerate((user, user + more + b"2")):
        log.add(seen(f"r{n}", who))
    log.close()

    assert forget(folder, user, salt=SALT, now=NOW).rows == 1
    assert Predictions(folder).table()["request_id"].to_pylist() == ["r1"]


def test_nobody_is_no_user(tmp_path: Path):
    """An empty id is a mistake of whoever calls, not somebody without rows."""
    journal(tmp_path, [record(0)])

    with pytest.raises(ValueError, match="nobody is named"):
        forget(tmp_path, b"", salt=SALT, now=NOW)


@pytest.mark.parametrize("what", ["", "others", "others/serving/a/deeper"])
def test_logs_of_others_are_not_searched_for(tmp_path: Path, what: str):
    """A folder that only holds logs somewhere below is left as it is, and said."""
    held = journal(tmp_path / "others" / "log", [record(0, user=ANN)])
    slot = tmp_path / "others" / "serving" / "a"
    deep = [journal(path, [record(0, user=ANN)]) for path in (slot, slot / "deeper" / "log")]

    with pytest.raises(ValueError, match=r"is no log\. Name the folder of a slot"):
        forget(tmp_path / what, b"ann", salt=SALT, now=NOW)
    assert forget(slot.parent, b"ann", salt=SALT, now=NOW).rows == 1
    assert [path.exists() for path in (held, *deep)] == [True, False, True]


def test_copies_on_a_disk_are_rewritten_too(tmp_path: Path):
    """They have no contracts beside them, and are still a log."""
    slot, copies = tmp_path / "a", tmp_path / "copies"
    journal(slot, [record(n, user=ANN if n else None) for n in range(3)])
    keep(slot, now=T0, to=Place.at(copies))

    assert forget(copies, b"ann", salt=SALT, now=NOW, copies=True).rows == 2
    assert holding(copies, ANN) == []
    with pytest.raises(ValueError, match="is it on a disk that is not mounted"):
        forget(tmp_path / "gone", b"ann", salt=SALT, now=NOW, copies=True)


def test_who_looks_at_a_journal_is_not_taken_for_its_server(tmp_path: Path):
    """Two may ask at one moment whether it is open; a server that writes is seen by both."""
    path = journal(tmp_path, [record(0, user=ANN)])
    with path.open("rb") as looking:
        fcntl.flock(looking.fileno(), fcntl.LOCK_SH)
        assert not files.is_open(path)
        assert forget(tmp_path, b"ann", salt=SALT, now=NOW).rows == 1


def test_a_journal_that_was_not_finished_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever takes it after it was given up keeps it from being rewritten: no false promise."""
    path = journal(tmp_path, [record(0, user=ANN)])

    def late(folder: Path, kept: Kept) -> None:
        with path.open("rb") as held:
            files.take(held.fileno())
            finish(folder, kept)

    monkeypatch.setattr(forgetting, "finish", late)
    with pytest.raises(Busy, match="held by another process; call again"):
        forget(tmp_path, b"ann", salt=SALT, now=NOW)


def test_a_broken_file_is_said_and_the_others_are_rewritten(tmp_path: Path):
    """It may hold the user: better an error than a false promise."""
    broken = journal(tmp_path, [record(0, user=ANN)], at=T0 - 60).with_suffix(".parquet")
    keep(tmp_path, now=T0, linger_s=-1)
    broken.write_bytes(broken.read_bytes()[:-9])
    journal(tmp_path, [record(1, user=ANN), record(2)])

    with pytest.raises(OSError, match="no whole Parquet file"):
        forget(tmp_path, b"ann", salt=SALT, now=NOW)
    broken.unlink()
    assert holding(tmp_path, ANN) == []
    assert Predictions(tmp_path).table()["request_id"].to_pylist() == ["r2"]


def test_a_server_writes_on_while_a_user_is_forgotten(tmp_path: Path):
    """It loses no record of anybody else, and none of the user's from before is left."""
    log = opened(tmp_path)
    for n in range(200):
        log.add(seen(f"a{n}", b"ann"))
        log.add(seen(f"b{n}", b"bob"))
    wait_for(lambda: log.counts["written"] == 400, 10)
    stop, added = threading.Event(), [0]

    def write() -> None:
        while not stop.wait(0.001):
            log.add(seen(f"c{added[0]}", b"bob"))
            added[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    removed = forget(tmp_path, b"ann", salt=SALT, now=NOW)
    stop.set()
    writer.join()
    log.close()

    found = Predictions(tmp_path).table()["request_id"].to_pylist()
    assert (removed.rows, holding(tmp_path, ANN)) == (200, [])
    assert sorted(found) == sorted(
        [f"b{n}" for n in range(200)] + [f"c{n}" for n in range(added[0])]
    )
    assert log.counts["dropped"] == 0


def test_a_journal_that_is_not_given_up_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hanging server's journal cannot be rewritten: better an error than a false promise."""
    monkeypatch.setattr(forgetting, "WAIT_S", 0.2)
    path = journal(tmp_path, [record(0, user=ANN)])
    with path.open("ab") as held:
        files.take(held.fileno())
        with pytest.raises(Busy, match="held by a server"):
            forget(tmp_path, b"ann", salt=SALT, now=NOW)

    assert forget(tmp_path, b"ann", salt=SALT, now=NOW).rows == 1
    assert not list(tmp_path.glob("*.roll"))


def test_a_journal_that_cannot_be_read_is_said(tmp_path: Path):
    """Nobody is told that a user is gone while a file may still hold them."""
    path = journal(tmp_path, [record(0, user=ANN)])
    journal(tmp_path, [record(1)])
    for contract in tmp_path.glob("contract-*.json"):
        contract.write_text("{")

    with pytest.raises(OSError, match="no contract beside it"):
        forget(tmp_path, b"ann", salt=SALT, now=NOW)
    assert path.exists()
