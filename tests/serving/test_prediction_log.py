"""Laws of the prediction log: nothing waits, nothing is lost unseen, nobody is named."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from penstock.predictions.files import held, journals
from penstock.predictions.keep import keep
from penstock.predictions.log import Predictions
from penstock.predictions.schema import PARTS
from serving import seen as seen_module
from serving.prediction_log import PredictionLog
from serving.seen import Seen
from tests.packages import wait_for
from tests.predictions.logs import SALT, contract, opened, seen


def lines(folder: Path) -> list[dict]:
    """Return what the journals of a folder hold, in order."""
    return [json.loads(line) for p in journals(folder) for line in p.read_text().splitlines()]


def ids(folder: Path) -> list[str]:
    """Return the requests in a log, wherever they are by now, in order."""
    table = Predictions(folder).sql('SELECT request_id FROM predictions ORDER BY "at", request_id')
    return table["request_id"].to_pylist()


def test_everything_taken_is_written_in_order(tmp_path: Path):
    """Closing writes what waits, and the counters say so."""
    log = opened(tmp_path)
    for n in range(500):
        log.add(seen(f"r{n}"))
    log.close()

    assert [line["request_id"] for line in lines(tmp_path)] == [f"r{n}" for n in range(500)]
    counts = {"written": 500, "dropped": 0, "failed": 0}
    assert json.loads((tmp_path / "counters.json").read_text()) == {**counts, "problem": ""}


def test_a_record_says_what_is_known_and_never_who_it_was(tmp_path: Path):
    """Every key is there; the user is a hash that another salt makes another one."""
    asked = Seen({b"x-user-id": b"ann@example.org", b"x-rollout-bucket": b"7"})
    asked.columns = {"x": np.array([0.5, np.nan]), "p": np.zeros((4, 2), np.float32)[::2]}
    asked.label, asked.probability = np.array([1, 0]), np.array([0.75, 0.5], np.float32)
    asked.status, asked.latency_ms, asked.fallbacks = 200, 1.23456, ["values"]
    asked.stale, asked.spent_us = ("x",), {"queue": 3.0}
    for name in ("one", "two"):
        log = opened(tmp_path / name, contract("x", "p"), salt=name.encode() * 8)
        log.add(asked)
        log.close()

    [line], [other] = lines(tmp_path / "one"), lines(tmp_path / "two")
    user = line.pop("user")
    assert (len(user), user != other["user"]) == (32, True)
    assert line == {
        "at": asked.at,
        "request_id": asked.request_id,
        "bucket": 7,
        "arm": None,
        "market": None,
        "mirrored": False,
        "slot": "a",
        "version": "1",
        "status": 200,
        "latency_ms": 1.235,
        "features": {"x": [0.5, None], "p": [[0.0, 0.0], [0.0, 0.0]]},
        "label": [1, 0],
        "probability": [0.75, 0.5],
        "fallbacks": ["values"],
        "stale": ["x"],
        "spent_us": {"queue": 3.0},
    }
    assert not any(b"ann" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_declared_feature_is_a_hash_and_its_absence_stays_visible(tmp_path: Path):
    """Equal values have equal hashes, those of another feature have others."""
    of = contract("n", "x", hashed=("n", "x"))
    log = opened(tmp_path, of)
    log.add(seen("r", n=np.array([41, 41, 7]), x=np.array([41.0, 0.5, np.nan])))
    log.close()

    keep(tmp_path, now=time.time())
    [found] = Predictions(tmp_path).table()["features"].to_pylist()
    assert found["n"][0] == found["n"][1] != found["n"][2]
    assert found["x"][2] is None
    assert len({*found["n"], *found["x"][:2]}) == 4
    assert all(len(value) == 32 for value in found["n"])


def test_a_short_salt_is_refused(tmp_path: Path):
    """A hash that anybody can try out hides nobody."""
    with pytest.raises(ValueError, match="has 3 bytes; 16 random ones"):
        PredictionLog(tmp_path, contract(), slot="a", version="1", salt=b"abc")


def test_a_full_queue_drops_and_counts(tmp_path: Path):
    """Without anybody writing, the queue takes its bytes and counts the rest, at once."""
    log = PredictionLog(tmp_path, contract(), slot="a", version="1", salt=SALT, queue_bytes=3000)

    for n in range(25):
        log.add(seen(f"r{n}"))

    assert log.counts["dropped"] > 10
    assert log.waiting_bytes < 3000 + 1000
    log.start()
    log.close()
    assert log.counts["written"] == 25 - log.counts["dropped"] == len(ids(tmp_path))


def test_what_makes_no_line_is_counted(tmp_path: Path):
    """Nothing that a request holds may raise once it was answered."""
    log = opened(tmp_path)
    odd = seen("r")
    odd.label = object()
    log.add(odd)
    log.add(seen("s"))
    log.close()

    assert log.counts == {"written": 1, "dropped": 0, "failed": 1}


def test_a_journal_is_rolled_by_size_and_all_become_parquet(tmp_path: Path):
    """The keeper that the server starts finishes what was rolled; nothing is lost or doubled."""
    log = opened(tmp_path, roll_bytes=2000)
    for n in range(60):
        log.add(seen(f"r{n:02}"))
        if n % 20 == 19:
            wait_for(lambda n=n: log.counts["written"] == n + 1, 10)
    wait_for(lambda: list(tmp_path.glob("*.parquet")), 20)
    log.close()
    keep(tmp_path, now=time.time())

    assert len(list(tmp_path.glob("*.parquet"))) >= 3
    assert ids(tmp_path) == [f"r{n:02}" for n in range(60)]


def test_a_journal_of_age_is_rolled(tmp_path: Path):
    """What a quiet server wrote is finished too."""
    log = opened(tmp_path, roll_s=0.3)
    log.add(seen("r"))
    wait_for(lambda: list(tmp_path.glob("*.parquet")), 20)
    log.close()

    assert ids(tmp_path) == ["r"]


def test_a_journal_that_a_server_holds_is_left_alone(tmp_path: Path):
    """It is read where it lies, up to its last whole line, and finished when the server is gone."""
    log = opened(tmp_path)
    log.add(seen("r"))
    wait_for(lambda: log.counts["written"] == 1, 5)

    assert (keep(tmp_path, now=time.time()).finished, ids(tmp_path)) == (0, ["r"])
    log.close()
    assert (keep(tmp_path, now=time.time()).finished, ids(tmp_path)) == (1, ["r"])


def test_a_folder_that_is_removed_is_made_again(tmp_path: Path):
    """Records go on being written, not into a file that no longer has a name."""
    folder = tmp_path / "log"
    log = opened(folder)
    log.add(seen("r"))
    wait_for(lambda: log.counts["written"] == 1, 5)
    for path in folder.iterdir():
        path.unlink()
    log.add(seen("s"))
    log.close()

    assert ids(folder) == ["s"]


def test_counts_outlive_the_process(tmp_path: Path):
    """The file sums up since the folder was made; the process counts its own."""
    for n in range(2):
        log = opened(tmp_path)
        log.add(seen(f"r{n}"))
        log.close()

    assert log.counts["written"] == 1
    assert Predictions(tmp_path).losses().written == 2


REFUSING = """
import json, logging, resource, sys, time
from pathlib import Path
from tests.predictions.logs import opened, seen
logging.basicConfig(format="%(levelname)s %(message)s")
folder, most = Path(sys.argv[1]), int(sys.argv[2])
log = opened(folder, queue_bytes=most)
log.add(seen("first"))
while log.counts["written"] < 1:
    time.sleep(0.01)
hard = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
for n in range(100):
    log.add(seen(f"r{n:03}"))
while not log.problem:
    time.sleep(0.01)
print(json.loads((folder / "counters.json").read_text())["problem"])
for n in range(100, 150):
    log.add(seen(f"r{n:03}"))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
while log.problem:
    time.sleep(0.01)
log.add(seen("s"))
log.close()
print(log.counts["written"], log.counts["dropped"])
"""


@pytest.mark.parametrize("most", [1 << 20, 10_000])
def test_a_disk_that_is_full_for_a_while(tmp_path: Path, most: int):
    """Records wait for it as far as the queue goes; the others are counted, and all are told."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSING, str(tmp_path), str(most)],
        capture_output=True,
        text=True,
        check=True,
    )
    problem, counted = done.stdout.splitlines()
    written, dropped = map(int, counted.split())

    found = ids(tmp_path)
    assert problem == f"{tmp_path} cannot be written: File too large"
    assert (len(set(found)), written + dropped) == (written, 152)
    assert {"first", "s"} < set(found)
    assert (dropped == 0) == (most == 1 << 20)
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["ERROR", "WARNING"]


WRITING = """
import sys, time
from pathlib import Path
from tests.predictions.logs import opened, seen
log = opened(Path(sys.argv[1]), roll_bytes=20_000)
n = 0
while True:
    log.add(seen(f"r{n:06}"))
    print(n, time.time(), flush=True)
    n += 1
    time.sleep(0.001)
"""


def test_a_killed_server_loses_less_than_the_stated_time(tmp_path: Path):
    """What was taken longer ago is there, once, and the next start finishes what was left."""
    out = tmp_path / "out"
    with out.open("w") as told:
        process = subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path)], stdout=told)
        wait_for(lambda: len(out.read_text().splitlines()) > 900, 30)
        process.send_signal(signal.SIGKILL)
        killed = time.time()
        process.wait()

    taken = [line.split() for line in out.read_text().splitlines() if len(line.split()) == 2]
    # Half a second for a machine that is busy with other tests; the statement is 0.2 s.
    owed = [f"r{int(n):06}" for n, at in taken if float(at) < killed - 0.2 - 0.5]
    for _ in range(2):
        found = ids(tmp_path)
        assert (len(set(found)), len(owed) > 100) == (len(found), True)
        assert set(owed) <= set(found)
        opened(tmp_path).close()
        with held(tmp_path, wait_s=60):
            pass  # the killed server's keeper has outlived it, and may still be at work
        keep(tmp_path, now=time.time() + 3600)
    assert not journals(tmp_path)


KEEPING = """
import os, random, signal, sys, time
from pathlib import Path
from penstock.predictions.keep import keep
folder, chance, killed = Path(sys.argv[1]), random.Random(int(sys.argv[2])), 0
for _ in range(12):
    child = os.fork()
    if child == 0:
        keep(folder, now=time.time() + 3600)
        os._exit(0)
    time.sleep(chance.uniform(0, 0.06))
    os.kill(child, signal.SIGKILL)
    killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
print(killed)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_a_keeper_may_be_killed_at_any_point(tmp_path: Path, seed: int):
    """However often it was killed, whoever reads sees each record once, before and after."""
    for turn in range(6):
        log = opened(tmp_path, version=str(turn))
        for n in range(300):
            log.add(seen(f"r{turn}-{n:03}"))
        log.close(wait_s=0)
    wanted = ids(tmp_path)
    command = [sys.executable, "-c", KEEPING, str(tmp_path), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert int(done.stdout) > 0
    assert ids(tmp_path) == wanted
    for _ in range(2):
        keep(tmp_path, now=time.time() + 3600)
    assert (ids(tmp_path), len(wanted), journals(tmp_path)) == (wanted, 1800, [])
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]  # noqa: PTH208


def test_the_parts_of_a_request_have_columns():
    """What is measured of a request is what the log keeps of it."""
    assert seen_module.PARTS == PARTS


def test_the_alarm_is_raised_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A folder that cannot be is one line in the server's log, not five a second."""
    (tmp_path / "file").write_text("")
    log = PredictionLog(tmp_path / "file" / "a", contract(), slot="a", version="1", salt=SALT)
    with caplog.at_level(logging.WARNING, "serving"):
        log.start()
        log.add(seen("r"))
        wait_for(lambda: log.problem, 5)
        time.sleep(0.5)
        log.close()

    assert len(caplog.records) == 1
    assert log.counts == {"written": 0, "dropped": 1, "failed": 0}
