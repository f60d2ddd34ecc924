"""Laws of the prediction log: nothing waits, nothing is lost unseen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from penstock.rollout.evidence import read_new
from serving.prediction_log import PredictionLog


def test_everything_taken_is_written_in_order(tmp_path: Path):
    """Closing writes what waits, and the counters say so."""
    log = PredictionLog(tmp_path / "predictions-1.jsonl")
    log.start()
    for n in range(500):
        log.add({"n": n})
    log.close()

    lines = (tmp_path / "predictions-1.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == list(range(500))
    assert json.loads((tmp_path / "counters.json").read_text()) == {"dropped": 0, "written": 500}


def test_a_full_queue_drops_and_counts(tmp_path: Path):
    """Without anybody writing, the queue takes its size and counts the rest; adding never waits."""
    log = PredictionLog(tmp_path / "predictions-1.jsonl", size=10)

    for n in range(25):
        log.add({"n": n})

    assert log.counts == {"written": 0, "dropped": 15}


def test_a_disk_that_refuses_is_counted(tmp_path: Path):
    """A log that cannot be written loses records and says how many; nothing is raised."""
    log = PredictionLog(tmp_path / "gone" / "predictions-1.jsonl")
    log.start()
    log.add({"n": 1})
    log.close()

    assert log.counts == {"written": 0, "dropped": 1}


TORN = """
import resource, sys, time
from pathlib import Path
from serving.prediction_log import PredictionLog
log = PredictionLog(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (250, resource.RLIM_INFINITY))
log.start()
for n in range(100):
    log.add({"n": n})
while sum(log.counts.values()) < 100:
    time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for n in range(100, 150):
    log.add({"n": n})
log.close()
print(log.counts["written"], log.counts["dropped"])
"""


def test_a_disk_that_tears_a_line_spoils_no_other(tmp_path: Path):
    """What a full disk let through stays, the torn line goes, and the log goes on when it can."""
    path = tmp_path / "predictions-1.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", TORN, str(path)], capture_output=True, text=True, check=True
    )
    written, dropped = map(int, done.stdout.split())

    records, _ = read_new(path, 0)
    numbers = [r["n"] for r in records]
    assert (written, written + dropped) == (len(numbers), 150)
    assert 0 < dropped < 100
    assert numbers == [*range(100 - dropped), *range(100, 150)]


def test_a_line_that_an_earlier_process_tore_is_removed(tmp_path: Path):
    """A process that gets the number of one that was killed appends whole lines to whole lines."""
    path = tmp_path / "predictions-1.jsonl"
    path.write_text('{"n":1}\n{"n":')
    log = PredictionLog(path)
    log.start()
    log.add({"n": 2})
    log.close()

    assert path.read_text() == '{"n":1}\n{"n":2}\n'
