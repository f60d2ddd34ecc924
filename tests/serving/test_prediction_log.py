"""Laws of the prediction log: nothing waits, nothing is lost unseen."""

from __future__ import annotations

import json
from pathlib import Path

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
