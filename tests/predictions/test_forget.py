"""Laws of forgetting: no trace of one user, everything of the others, while servers write."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from penstock.predictions import files
from penstock.predictions import forget as forgetting
from penstock.predictions.files import Busy
from penstock.predictions.forget import forget
from penstock.predictions.hashing import Hasher
from penstock.predictions.keep import keep
from penstock.predictions.log import Predictions
from tests.packages import wait_for
from tests.predictions.logs import SALT, T0, journal, opened, record, seen

NOW = datetime.fromtimestamp(T0, UTC)
ANN = Hasher(SALT).user("ann")


def holding(folder: Path, what: str) -> list[Path]:
    """Return the files that hold a text anywhere, compressed or not."""
    plain = [p for p in folder.rglob("*") if p.is_file() and what.encode() in p.read_bytes()]
    users = Predictions(folder).table(columns=["user"])["user"].to_pylist()
    return plain + [folder] * (what in users)


def test_no_file_holds_the_user_and_the_others_stay(tmp_path: Path):
    """In finished files, left journals, lines put aside; in every slot."""
    for slot in ("a", "b"):
        rows = [record(n, user=(ANN, "f" * 32, None)[n % 3]) for n in range(9)]
        journal(tmp_path / slot, rows, torn=b'{"user":"%s",\n' % ANN.encode())
        keep(tmp_path / slot, now=T0)
        journal(tmp_path / slot, [record(n, user=ANN) for n in (20, 21)] + [record(22)])

    removed = forget(tmp_path, "ann", salt=SALT, now=NOW)

    assert (removed.rows, removed.files) == (2 * (3 + 1 + 2), 4)
    assert holding(tmp_path, ANN) == []
    assert len(Predictions(tmp_path).table()) == 2 * (6 + 1)
    assert forget(tmp_path, "ann", salt=SALT, now=NOW).rows == 0


def test_what_was_done_is_noted_without_saying_for_whom(tmp_path: Path):
    """When and how much; neither the id nor its hash."""
    journal(tmp_path, [record(0, user=ANN)])

    forget(tmp_path, "ann", salt=SALT, now=NOW)

    [line] = (tmp_path / "forgotten.jsonl").read_text().splitlines()
    assert json.loads(line) == {"at": "2096-10-02T07:06:40+00:00", "rows": 1, "files": 1}


def test_another_salt_finds_nobody(tmp_path: Path):
    """Without the secret a user cannot be told from the others."""
    journal(tmp_path, [record(0, user=ANN)])

    assert forget(tmp_path, "ann", salt=b"another secret, as long", now=NOW).rows == 0


def test_a_server_writes_on_while_a_user_is_forgotten(tmp_path: Path):
    """It loses no record of anybody else, and none of the user's from before is left."""
    log = opened(tmp_path)
    for n in range(200):
        log.add(seen(f"a{n}", "ann"))
        log.add(seen(f"b{n}", "bob"))
    wait_for(lambda: log.counts["written"] == 400, 10)
    stop, added = threading.Event(), [0]

    def write() -> None:
        while not stop.wait(0.001):
            log.add(seen(f"c{added[0]}", "bob"))
            added[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    removed = forget(tmp_path, "ann", salt=SALT, now=NOW)
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
            forget(tmp_path, "ann", salt=SALT, now=NOW)

    assert forget(tmp_path, "ann", salt=SALT, now=NOW).rows == 1
    assert not list(tmp_path.glob("*.roll"))


def test_a_journal_that_cannot_be_read_is_said(tmp_path: Path):
    """Nobody is told that a user is gone while a file may still hold them."""
    path = journal(tmp_path, [record(0, user=ANN)])
    journal(tmp_path, [record(1)])
    for contract in tmp_path.glob("contract-*.json"):
        contract.write_text("{")

    with pytest.raises(OSError, match="no contract beside it"):
        forget(tmp_path, "ann", salt=SALT, now=NOW)
    assert path.exists()
