"""The load generator: latency counts from when a request was due, whatever the server does."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.serving import watch
from benchmarks.serving.book import NOT_ANSWERED, Book, fixed, poisson
from benchmarks.serving.lasting import slope
from benchmarks.serving.load import Job, Run, summary

REQUEST = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

rates = st.floats(1, 2_000)
spans = st.floats(0.1, 5)


@given(rates, spans)
def test_fixed_arrivals_come_evenly_and_within_the_time(per_s, seconds):
    """One gap for all; as many as the rate says, none of them late."""
    due_s = fixed(per_s, seconds)

    assert len(due_s) == int(per_s * seconds)
    assert np.allclose(np.diff(due_s), 1 / per_s)
    assert (due_s < seconds).all()


@given(rates, spans, st.integers(0, 2**32))
def test_poisson_arrivals_ascend_through_the_whole_time(per_s, seconds, seed):
    """The same seed gives the same ones; about as many in each half as the rate says."""
    due_s = poisson(per_s, seconds, np.random.default_rng(seed))

    assert np.array_equal(due_s, poisson(per_s, seconds, np.random.default_rng(seed)))
    assert (np.diff(due_s) >= 0).all()
    assert ((due_s >= 0) & (due_s < seconds)).all()
    for half in (due_s < seconds / 2, due_s >= seconds / 2):
        assert abs(half.sum() - per_s * seconds / 2) < 8 * np.sqrt(per_s * seconds / 2) + 8


def test_poisson_gaps_are_as_variable_as_they_are_long():
    """The standard deviation of an exponential is its mean; of even gaps it is nothing."""
    gaps_s = np.diff(poisson(1000, 20, np.random.default_rng(3)))

    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.05)


def one_server(book: Book, service_s: list[float]) -> None:
    """Answer a book's requests in order, one at a time, in virtual time."""
    now, busy_until, waiting = 0.0, 0.0, []
    while not book.finished:
        for connection, number in book.sendable(now):
            busy_until = max(now, busy_until) + service_s[number]
            waiting.append((busy_until, connection))
        ends = waiting[0][0] if waiting else float("inf")
        if book.next_s < ends:
            now = book.next_s
        else:
            now, connection = waiting.pop(0)
            book.ended(connection, now, 200)


@given(
    st.lists(st.tuples(st.floats(0, 2), st.floats(0.001, 0.5)), min_size=1, max_size=60),
    st.integers(1, 8),
)
def test_latency_is_that_of_the_queue_however_few_connections_there_are(drawn, connections):
    """Lindley: a request ends its service time after it is due or after the one before it ended.

    A generator that waits for answers would show a busy server the less load the busier it is.
    """
    due_s = sorted(due for due, _ in drawn)
    service_s = [s for _, s in drawn]
    book = Book(due_s, connections)

    one_server(book, service_s)

    ends, expected = 0.0, []
    for due, s in zip(due_s, service_s, strict=True):
        ends = max(due, ends) + s
        expected.append(ends - due)
    assert list(book.took_s) == pytest.approx(expected)
    assert list(book.due_s) == due_s


def test_a_stall_is_the_latency_of_all_that_were_due_meanwhile():
    """A second's stall at 100 requests a second delays a hundred, not one for each connection."""
    book = Book(fixed(100, 3).tolist(), 2)

    one_server(book, [1.0 if n == 100 else 0.001 for n in range(300)])

    assert sum(took > 0.1 for took in book.took_s) >= 90
    assert max(book.took_s) == pytest.approx(1.0)


def test_a_closed_loop_asks_again_only_when_it_was_answered():
    """Never more than its connections are under way; latency counts from sending."""
    book = Book(None, 3)

    assert len(list(book.sendable(1.0))) == 3
    assert list(book.sendable(2.0)) == []
    book.ended(1, 2.5, 200)
    assert [connection for connection, _ in book.sendable(2.5)] == [1]
    book.stop()
    book.close(4.0)

    assert list(book.took_s) == pytest.approx([3.0, 1.5, 3.0, 1.5])


def test_what_was_never_answered_or_never_sent_counts_as_having_taken_until_the_end():
    """Nothing that was due is forgotten; what was not due yet does not count."""
    book = Book([0.0, 0.1, 0.2, 9.0], 1)
    list(book.sendable(0.0))

    book.close(5.0)

    assert list(book.took_s) == pytest.approx([5.0, 4.9, 4.8])
    assert list(book.status) == [NOT_ANSWERED] * 3


def test_a_generator_that_sends_late_says_so_and_counts_from_when_it_was_due():
    """Its own lateness is told apart from the wait for a connection, and is not taken off."""
    book = Book([0.1, 0.2, 0.3], 1)

    list(book.sendable(0.25))
    book.ended(0, 1.0, 200)
    list(book.sendable(1.5))
    book.ended(0, 2.0, 200)
    list(book.sendable(2.0))
    book.ended(0, 2.5, 200)

    assert list(book.took_s) == pytest.approx([0.9, 1.8, 2.2])
    assert list(book.late_s) == pytest.approx([0.15, 0.5, 0.0])


def test_an_answer_that_nobody_asked_for_is_refused():
    """It would be counted as another request's."""
    with pytest.raises(ValueError, match="nobody asked"):
        Book([0.0], 1).ended(0, 1.0, 200)


@given(st.lists(st.binary(max_size=50), max_size=3), st.integers(1, 65535))
def test_a_job_reaches_the_other_process_unchanged(messages, port):
    """Requests are bytes, which JSON has none of."""
    job = Job(port=port, messages=messages, connections=2, seconds=1.0, per_s=3.5)

    assert Job.from_json(job.to_json()) == job


@contextmanager
def server(answer: Callable[[socket.socket], bool]) -> Iterator[int]:
    """Run a server in threads; ``answer`` answers one request and says whether to go on."""

    def serve(connection: socket.socket) -> None:
        with connection:
            held = b""
            while data := connection.recv(4096):
                held += data
                while len(held) >= len(REQUEST):
                    held = held[len(REQUEST) :]
                    if not answer(connection):
                        return

    def accept() -> None:
        while True:
            try:
                connection, _ = listens.accept()
            except OSError:
                return
            one = threading.Thread(target=serve, args=(connection,))
            one.start()
            threads.append(one)

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listens:
        taking = threading.Thread(target=accept)
        taking.start()
        yield listens.getsockname()[1]
        listens.shutdown(socket.SHUT_RDWR)
        taking.join()
    for one in threads:
        one.join()


def run(port: int, *, connections: int = 2, per_s: float = 200.0, seconds: float = 0.5) -> Run:
    """Drive an open loop of even arrivals in this process."""
    job = Job(
        port=port, messages=[REQUEST], connections=connections, seconds=seconds, per_s=per_s,
        evenly=True, settle_s=0.0,
    )  # fmt: skip
    made = Run(job)
    made.drive()
    return made


def test_a_real_server_that_stalls_is_seen_to_stall():
    """Whatever was due between begin and end of the stall took at least until its end."""
    lock, stall = threading.Lock(), {}

    def answer(connection):
        with lock:
            if "begin" not in stall:
                stall["begin"] = time.perf_counter()
                time.sleep(0.25)
                stall["end"] = time.perf_counter()
        connection.sendall(ANSWER)
        return True

    with server(answer) as port:
        done = run(port)

    due_s = np.array(done.book.due_s) + done.begun
    meanwhile = (due_s > stall["begin"]) & (due_s < stall["end"])
    assert meanwhile.sum() > 10
    assert (np.array(done.book.took_s)[meanwhile] >= (stall["end"] - due_s)[meanwhile]).all()
    assert set(done.book.status) == {200}


@pytest.mark.parametrize("whole", [ANSWER, CHUNKED])
def test_an_answer_in_pieces_is_one_answer(whole):
    """It ends where its length or its last chunk says, however it was cut on the way."""

    def answer(connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(whole), 7):
            connection.sendall(whole[at : at + 7])
            time.sleep(0.001)
        return True

    with server(answer) as port:
        done = run(port, per_s=50)

    assert list(done.book.status) == [200] * 25


def test_a_connection_that_the_server_closes_fails_one_request_and_is_made_again():
    """Every second request gets no answer; none is forgotten, and the others are answered."""
    asked = iter(range(10_000))

    def answer(connection):
        if next(asked) % 2:
            return False
        connection.sendall(ANSWER)
        return True

    with server(answer) as port:
        done = run(port, connections=1, per_s=40)

    assert list(done.book.status) == [200, NOT_ANSWERED] * 10


def test_refusals_are_counted_and_are_no_throughput():
    """A server that answers 429 quickly has answered nothing."""

    def answer(connection):
        head = b"HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\nserver-timing: a;dur=2"
        connection.sendall(head + b"\r\n\r\n")
        return True

    with server(answer) as port:
        done = run(port)
    job = Job(port=port, messages=[REQUEST], connections=2, seconds=0.5, settle_s=0.25)
    found = summary(done, job, 0.5, 0.001)

    assert found["per_s"] == 0
    assert found["failed"] == found["counted"] == 50
    assert found["statuses"] == {"429": 50}
    assert found["parts_ms"] == {"a": 2.0}


def test_the_cost_of_a_process_holds_that_of_its_children():
    """A server that computes in other processes pays for them, however deep they are."""
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    command = f"(\"{sys.executable}\" -c '{code}'; true); true"
    with subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()

        alive, spent = watch.tree(process.pid), watch.cpu_s(process.pid)
        process.communicate(b"\n")

    assert len(alive) == 3
    assert spent >= 0.28


@given(st.floats(-5, 5), st.floats(-100, 100))
def test_the_slope_of_a_line_is_its_own(b, a):
    """With nothing left over there is nothing uncertain."""
    at_s = np.arange(20.0)

    found, within = slope(at_s, a + b * at_s)

    assert found == pytest.approx(b, abs=1e-9)
    assert within == pytest.approx(0, abs=1e-6)


def test_memory_that_only_wanders_is_seldom_said_to_grow():
    """Samples that resemble their neighbours fool plain least squares three times as often."""
    rng, at_s, fooled = np.random.default_rng(11), np.arange(200.0), 0
    for _ in range(300):
        noise, value = rng.normal(0, 1, 200), np.zeros(200)
        for i in range(1, 200):
            value[i] = 0.6 * value[i - 1] + noise[i]
        found, within = slope(at_s, value)
        fooled += abs(found) > within

    assert fooled <= 300 * 0.1
