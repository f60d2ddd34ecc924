"""Laws of work that a signal must not cut in two."""

from __future__ import annotations

import signal
import sqlite3
import threading
from pathlib import Path

import pytest

from penstock.processes import undisturbed


def test_a_signal_waits_for_the_end_of_the_block():
    """Everything in the block is done before Ctrl-C is felt, and the old handler is back."""
    before = signal.getsignal(signal.SIGINT)
    done: list[str] = []

    @undisturbed()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_block_hears_a_signal_where_it_asks():
    """Asking raises what came; what was heard once is not raised again at the end."""
    with undisturbed() as heed:
        heed()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            heed()

    assert ended.value.code == 143


def test_the_block_s_own_error_is_what_the_caller_sees():
    """A Ctrl-C during the clearing up does not hide why there was any."""

    @undisturbed()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        work()


def test_a_signal_during_a_statement_leaves_no_lock(tmp_path: Path):
    """A statement that is running when Ctrl-C comes ends, so that the next writer can write."""
    path = tmp_path / "held.db"
    reader = sqlite3.connect(path)
    reader.execute("CREATE TABLE t (x)")
    reader.commit()
    numbers = f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n LIMIT {10**6})"
    this = threading.main_thread().ident or 0
    timer = threading.Timer(0.02, signal.pthread_kill, (this, signal.SIGINT))
    counted: list[tuple[int]] = []

    @undisturbed()
    def read() -> None:
        timer.start()
        counted.extend(reader.execute(f"{numbers} SELECT count(*) FROM n"))
        timer.join()

    with pytest.raises(KeyboardInterrupt):
        read()
    assert counted == [(10**6,)]
    with sqlite3.connect(path, timeout=0) as writer:
        writer.execute("INSERT INTO t VALUES (1)")


def test_outside_the_main_thread_nothing_changes():
    """A thread cannot set handlers, and does not fail for it."""
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with undisturbed() as heed:
            heed()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [before]
