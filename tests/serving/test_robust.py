"""The real server among clients that are slow, many, rude or curious, and while it is stopped."""

from __future__ import annotations

import json
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.packages import body, make_package, predictor, records, wait_for
from tests.serving.conftest import INFER, PREDICT, ROWS, Running
from tests.serving.test_protocol import Talk

WANTED = 10_000
"""Connections; fewer where this process may not open so many files."""

CONTENT = body(ROWS[:1])
HEAD = f"POST {INFER} HTTP/1.1\r\nhost: here\r\n".encode()
REQUEST = HEAD + b"content-length: %d\r\n\r\n" % len(CONTENT) + CONTENT
SECRET = "a-secret-nobody-may-read"


def check_alive(running: Running) -> None:
    """Fail unless a normal client is answered."""
    assert running.client.post(INFER, content=CONTENT).status_code == 200


def affordable() -> int:
    """Return how many connections this process may open, having raised its limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard - 1000)


def test_ten_thousand_connections_do_not_stop_service(running: Running):
    """Idle ones, begun heads and begun bodies, thousands of each: a normal client is answered."""
    many = affordable()
    begun = [b"", HEAD, HEAD + b"content-length: 900\r\n\r\nabc"]
    before = running.memory_mib()
    with ExitStack() as held:
        for number in range(many):
            one = held.enter_context(socket.create_connection(("127.0.0.1", running.port)))
            one.sendall(begun[number % 3])
        for _ in range(20):
            check_alive(running)
        with Talk(running.port) as newcomer:
            assert newcomer.ask(REQUEST)[0] == 200
        grown = (running.memory_mib() - before) * 1024 / many
    print(f"{many} connections at once, {grown:.1f} KiB of the server each")
    assert grown < 64
    check_alive(running)


def test_large_bodies_that_never_end_are_not_all_kept(running: Running):
    """Of a hundred megabytes of begun bodies those past the limit get 503; others are served."""
    before = running.memory_mib()
    begun = HEAD + b"content-length: 1000000\r\n\r\n" + b"x" * 990_000
    refused = 0
    with ExitStack() as held:
        for _ in range(110):
            talk = held.enter_context(Talk(running.port))
            talk.socket.settimeout(0.02)
            try:
                refused += talk.ask(begun)[0] == 503
            except TimeoutError:
                continue  # kept, and waited for
        check_alive(running)
        assert running.memory_mib() < before + 160

    assert 0 < refused < 110


RUDE = {
    "garbage": (b"\x16\x03\x01\x02\x00" + bytes(50) + b"\r\n\r\n", 400),
    "length and chunks": (
        HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a bad length": (HEAD + b"content-length: 1x\r\n\r\n", 400),
    "large headers": (HEAD + b"a: " + b"b" * 20_000 + b"\r\n\r\n", 431),
    "many headers": (HEAD + b"a: b\r\n" * 65 + b"\r\n", 431),
    "a large body": (HEAD + b"content-length: 1048577\r\n\r\n", 413),
}


@pytest.mark.parametrize(("sent", "status"), RUDE.values(), ids=RUDE.keys())
def test_what_is_no_request_is_refused(running: Running, sent: bytes, status: int):
    """The limits of the protocol hold in the server that is deployed."""
    with Talk(running.port) as talk:
        answer = talk.ask(sent)

    assert answer[0] == status
    assert list(json.loads(answer[2])) == ["error"]
    check_alive(running)


def test_requests_sent_at_once_are_answered_in_their_order(running: Running):
    """Fifty requests in one piece on one connection: fifty answers, each its own."""
    one = [json.dumps({**json.loads(CONTENT), "id": f"n-{n}"}).encode() for n in range(50)]
    with Talk(running.port) as talk:
        talk.send(b"".join(HEAD + b"content-length: %d\r\n\r\n" % len(c) + c for c in one))
        talk.socket.shutdown(socket.SHUT_WR)
        said = talk.rest()

    ids = [json.loads(part.split(b"\r\n\r\n")[1])["id"] for part in said.split(b"HTTP/1.1 ")[1:]]
    assert ids == [f"n-{n}" for n in range(50)]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [INFER, PREDICT])
def test_a_prediction_is_only_posted(running: Running, path: str, method: str):
    """Every other method is told so, and a page of another site gets no permission to ask."""
    asks = {"origin": "http://elsewhere", "access-control-request-method": "POST"}
    answer = running.client.request(method, path, headers=asks)

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert not [name for name in answer.headers if name.startswith("access-control")]


CLOSED = [
    "/v2/repository/models/digits/unload",
    "/v2/repository/models/digits/load",
    "/v2/repository/index",
    "/v1/models/digits:explain",
    "/v2/models/digits/versions/4/infer",
    "/v2//repository/models/digits/unload",
    "/v2/models/../repository/models/digits/unload",
    "/v2/models/digits%2Finfer/../unload",
    "/openai/v1/models",
    "/metrics",
    "/docs",
    "/redoc",
]


@pytest.mark.parametrize("path", CLOSED)
def test_what_nobody_needs_is_closed(running: Running, path: str):
    """No call unloads a model, repeats a header or describes the server to a browser."""
    secret = f"authorization: Bearer {SECRET}\r\nx-secret: {SECRET}\r\n".encode()
    with Talk(running.port) as talk:
        rest = b" HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\n" + secret + b"\r\n{}"
        answer = talk.ask(b"POST " + path.encode() + rest)

    assert answer[0] == 404
    assert SECRET not in str(answer)
    assert running.client.get("/v2/models/digits/ready").status_code == 200


def test_no_answer_repeats_a_header_and_no_log_keeps_one(running: Running):
    """What a client says of itself for the edge stays out of answers, logs and records."""
    headers = {"authorization": f"Bearer {SECRET}", "cookie": SECRET, "x-mine": SECRET}
    for content in (CONTENT, b"{", b'{"inputs": []}'):
        for path in (INFER, PREDICT, "/v2/models/letters/infer"):
            answer = running.client.post(path, content=content, headers=headers)
            assert SECRET not in str(answer.headers) + answer.text
    with Talk(running.port) as talk:
        talk.ask(HEAD + f"authorization: {SECRET}\r\nbad\r\n\r\n".encode())
    time.sleep(0.5)

    kept = [path for path in running.log.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


def posts(port: int, count: int) -> tuple[list[int | str], list[threading.Thread]]:
    """Ask from as many threads; return where their statuses will be."""
    found: list[int | str] = []

    def ask() -> None:
        with Talk(port) as talk:
            try:
                found.append(talk.ask(REQUEST)[0])
            except (AssertionError, OSError) as e:
                found.append(repr(e))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return found, threads


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Running]:
    """A server of its own that takes long for each request."""
    made, log = make_package(tmp_path / "package"), tmp_path / "log"
    faults = ("--fault", "latency", "--fault-on", "all")
    with predictor(made.path, log, *faults) as (process, port), httpx.Client() as client:
        yield Running(process, port, log, made.path, client)


def test_a_busy_server_turns_away_and_a_stopped_one_finishes(slow: Running):
    """Above the limit 429 at once; told to stop, all in flight is answered, and it ends with 0.

    What is idle or half sent then does not keep it, and every answer is in the log.
    """
    crowd, threads = posts(slow.port, 90)
    for thread in threads:
        thread.join()
    assert set(crowd) == {200, 429}
    assert crowd.count(200) >= 64

    with Talk(slow.port), Talk(slow.port).send(HEAD) as half:
        inside, threads = posts(slow.port, 40)
        time.sleep(0.06)
        slow.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert half.answer()[0] == 503
        assert slow.process.wait(10) == 0

    assert inside == [200] * 40
    wait_for(
        lambda: Counter(r["status"] for r in records(slow.log))[200] == crowd.count(200) + 40, 5
    )
    with pytest.raises(ConnectionRefusedError):
        Talk(slow.port)
