"""Laws of the server's side of HTTP, over real sockets with a small application behind them."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.endpoint import Endpoint
from serving.hardened import BEGUN, Hardened, Headers, Mended, Receive, Scope, Send
from serving.protocol import Limits, Protocol, protocol
from serving.server import MOST_FILES, RESERVED_FILES, Stopping, open_files, server
from tests.packages import wait_for

SMALL = Limits(
    body_bytes=100_000,
    unfinished_bytes=250_000,
    connections=12,
    head_bytes=4096,
    headers=20,
    head_s=0.4,
    body_s=0.4,
    idle_s=0.8,
    write_s=0.5,
    linger_s=1.0,
)
PATH = "/v2/models/m/infer"
HEAD = f"POST {PATH} HTTP/1.1\r\nhost: here\r\n".encode()


def post(body: bytes, *more: bytes) -> bytes:
    """Return a whole request."""
    return HEAD + b"content-length: %d\r\n" % len(body) + b"".join(more) + b"\r\n" + body


class Service:
    """A running server: it says how much it read and in how many messages."""

    def __init__(self, limits: Limits, said: Headers = ()) -> None:
        self.refused: Counter[int] = Counter()
        self.kind = protocol(limits, self.refused, said)
        self.running = self.ran = 0
        self.begun_s = 0.0
        self.talks: list[Talk] = []
        self.release = threading.Event()
        self.listens = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listens.getsockname()[1]
        self.app = Hardened(self.answer, Endpoint())
        made = uvicorn.Config(
            self.app,  # pyright: ignore[reportArgumentType]
            http=self.kind,
            ws="none",
            lifespan="off",
            loop="uvloop",
            log_config=None,
            timeout_graceful_shutdown=3,
        )
        self.server = Stopping(made, self.app, grace_s=2)
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.listens]}, daemon=True
        )

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with what was read, at once or when released."""
        self.running += 1
        self.ran += 1
        self.begun_s = scope[BEGUN]
        message = await receive()
        waits = dict(scope["headers"]).get(b"x-wait") == b"1"
        while waits and not self.release.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.01)
        much = int(dict(scope["headers"]).get(b"x-much", b"0"))
        said = {"read": len(message["body"]), "more": message["more_body"], "pad": "x" * much}
        body = json.dumps(said).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.running -= 1

    def talk(self) -> Talk:
        """Open a connection, which ends with the service."""
        made = Talk(self.port)
        self.talks.append(made)
        return made


class Talk:
    """A raw connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> Talk:
        """Send pieces one by one."""
        for piece in pieces:
            self.socket.sendall(piece)
        return self

    def rest(self) -> bytes:
        """Return all that comes until the server closes."""
        parts = []
        try:
            while part := self.socket.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            parts.append(b"(reset)")
        return b"".join(parts)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return the next answer: status, headers, body."""
        held = b""
        while b"\r\n\r\n" not in held:
            held += self._more(held)
        head, body = held.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        while len(body) < int(headers.get("content-length", "0")):
            body += self._more(body)
        return int(lines[0].split()[1]), headers, body

    def _more(self, held: bytes) -> bytes:
        part = self.socket.recv(65536)
        assert part, f"the server closed after {held!r}"
        return part

    def ask(self, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send and return the answer."""
        return self.send(*pieces).answer()


@contextmanager
def running(limits: Limits = SMALL, said: Headers = ()) -> Iterator[Service]:
    """Run a service."""
    service = Service(limits, said)
    service.thread.start()
    wait_for(lambda: service.server.started, 5)
    try:
        yield service
    finally:
        service.release.set()
        service.server.should_exit = True
        service.thread.join(10)
        for talk in service.talks:
            talk.socket.close()
        assert not service.thread.is_alive()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One service for the module."""
    with running() as made:
        yield made


def check_alive(service: Service) -> None:
    """Fail unless a normal request is answered."""
    with service.talk() as talk:
        assert talk.ask(post(b"hello"))[0] == 200


def error(answer: tuple[int, dict[str, str], bytes]) -> str:
    """Return the sentence of a refusal, which is JSON and ends its connection."""
    assert answer[1]["content-type"] == "application/json"
    assert answer[1]["connection"] == "close"
    said = json.loads(answer[2])
    assert list(said) == ["error"]
    return said["error"]


def test_a_request_is_handed_on_when_it_is_whole(service: Service):
    """However many pieces it comes in, the application is called once, with all of it."""
    body = b"x" * 90_000
    with service.talk() as talk:
        request = post(body)
        talk.send(request[:10])
        time.sleep(0.05)
        talk.send(request[10:70_000])
        time.sleep(0.05)
        assert service.running == 0
        status, _, said = talk.ask(request[70_000:])

    assert (status, json.loads(said)["read"], json.loads(said)["more"]) == (200, 90_000, False)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_is_taken_up_to_the_limit(service: Service, chunked: bool):
    """The limit holds for a body that says its length and for one that comes in chunks."""

    def request(size: int) -> bytes:
        if not chunked:
            return post(b"x" * size)
        piece = b"%x\r\n%s\r\n" % (size // 2, b"x" * (size // 2))
        rest = size - size // 2
        return (
            HEAD
            + b"transfer-encoding: chunked\r\n\r\n"
            + piece
            + b"%x\r\n%s\r\n0\r\n\r\n" % (rest, b"x" * rest)
        )

    with service.talk() as talk:
        assert talk.ask(request(SMALL.body_bytes))[0] == 200
    with service.talk() as talk:
        refused = talk.ask(request(SMALL.body_bytes + 1))
        assert refused[0] == 413
        assert str(SMALL.body_bytes) in error(refused)


def test_a_declared_length_is_refused_before_anything_is_sent(service: Service):
    """A client that asks first is told 413 instead of 100, and need not send the body."""
    with service.talk() as talk:
        refused = talk.ask(HEAD + b"content-length: 100001\r\nexpect: 100-continue\r\n\r\n")
        assert refused[0] == 413
    with service.talk() as talk:
        talk.send(HEAD + b"content-length: 3\r\nexpect: 100-continue\r\n\r\n")
        assert talk.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert talk.ask(b"abc")[0] == 200


def test_a_client_that_goes_on_sending_still_reads_its_refusal(service: Service):
    """What comes behind a refused head is dropped for a while: a reset would take the answer."""
    with service.talk() as talk:
        talk.send(HEAD + b"content-length: 9000000\r\n\r\n")
        time.sleep(0.05)
        assert talk.ask(b"x" * 9_000_000)[0] == 413


HEADS = {
    "a long header": HEAD + b"x-a: " + b"y" * 5000 + b"\r\n\r\n",
    "many headers": HEAD + b"x-a: y\r\n" * 20 + b"\r\n",
    "a long path": b"GET /" + b"y" * 5000 + b" HTTP/1.1\r\nhost: here\r\n\r\n",
    "a header without end": HEAD + b"x-a: " + b"y" * 200_000,
    "headers without end": HEAD + b"x-a: yyyyyyyyyyyyyyyyyyyyyy\r\n" * 8000,
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_a_head_has_a_size(service: Service, head: bytes):
    """Long headers, many headers and headers that never end are refused with 431."""
    with service.talk() as talk:
        try:
            for start in range(0, len(head), 4000):
                talk.send(head[start : start + 4000])
        except (BrokenPipeError, ConnectionResetError):
            pass
        refused = talk.answer()
    assert refused[0] == 431
    assert "4096" in error(refused)


NOT_HTTP = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
    "two lengths": HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "length and chunks": HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    "a length in letters": HEAD + b"content-length: many\r\n\r\n",
    "a negative length": HEAD + b"content-length: -1\r\n\r\n",
    "a length with a sign": HEAD + b"content-length: +3\r\n\r\nabc",
    "a length past 64 bits": HEAD + b"content-length: 99999999999999999999\r\n\r\n",
    "a bad chunk": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "an unknown encoding": HEAD + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": HEAD + b"host: there\r\ncontent-length: 0\r\n\r\n",
    "a folded header": HEAD + b"x-a: b\r\n c\r\n\r\n",
    "a space before the colon": HEAD + b"content-length : 3\r\n\r\nabc",
    "a bare line end": b"GET / HTTP/1.1\nhost: here\nx: y\n\n",
    "no version": b"GET /\r\n\r\n",
    "an unknown version": b"GET / HTTP/3.7\r\nhost: here\r\n\r\n",
    "a path that is no text": b"GET /\xff\xfe HTTP/1.1\r\nhost: here\r\n\r\n",
    "a tunnel": b"CONNECT other:443 HTTP/1.1\r\nhost: other\r\n\r\n",
    "the next protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("sent", NOT_HTTP.values(), ids=NOT_HTTP.keys())
def test_what_is_no_http_is_refused_in_our_form(service: Service, sent: bytes):
    """Whatever two servers might read differently gives 400, and the connection ends."""
    with service.talk() as talk:
        refused = talk.ask(sent)
        assert refused[0] == 400
        assert error(refused)
    check_alive(service)


def test_an_upgrade_is_not_taken(service: Service):
    """A request that would rather speak another protocol is answered as it stands."""
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\n"
    with service.talk() as talk:
        assert talk.ask(post(b"abc", upgrade))[0] == 200


SLOW = {
    "head": HEAD[:-9],
    "body": HEAD + b"content-length: 10\r\n\r\nabc",
}


@pytest.mark.parametrize("missing", SLOW)
def test_what_does_not_arrive_in_time_is_refused(service: Service, missing: str):
    """A head or body that drips is answered 408, however steadily it drips."""
    with service.talk() as talk:
        talk.send(SLOW[missing])
        for _ in range(3):
            time.sleep(0.1)
            talk.send(b"a")
        refused = talk.answer()
    assert refused[0] == 408
    assert f"the request's {missing}" in error(refused)


@pytest.mark.parametrize("cut", [30, -3])
def test_what_was_refused_is_not_done_later(service: Service, cut: int):
    """The rest of a request that came too late starts nothing, nor does what follows."""
    before, request = service.ran, post(b"abcdef")
    with service.talk() as talk:
        assert talk.ask(request[:cut])[0] == 408
        talk.send(request[cut:] + request)
        assert talk.rest() == b""
    assert service.ran == before


def test_each_part_has_a_time_of_its_own():
    """A slow head leaves its body all its time, and a slow request the next one."""
    head, body = post(b"abcdef")[:-6], b"abcdef"
    with running(replace(SMALL, head_s=1.0, body_s=1.0)) as service:
        late, next_one = service.talk(), service.talk()
        for talk in (late, next_one):
            talk.send(head[:9])
        time.sleep(0.65)
        late.send(head[9:] + body[:3])
        next_one.send(head[9:] + body + head[:9])
        time.sleep(0.65)
        assert late.ask(body[3:])[0] == 200
        assert next_one.answer()[0] == 200
        assert next_one.ask(head[9:] + body)[0] == 200


@pytest.mark.parametrize("sent", [b"", b"\r\n", post(b"abc") + b"\r\n"])
def test_an_idle_connection_ends_without_a_word(service: Service, sent: bytes):
    """One that sends nothing, or only line ends, is closed: there is nothing to answer."""
    with service.talk() as talk:
        talk.send(sent)
        if len(sent) > 2:
            assert talk.answer()[0] == 200
        assert talk.rest() == b""


def test_a_client_that_does_not_read_is_dropped():
    """Answers that nobody reads cost their connection, not the place of a request."""
    with running(replace(SMALL, write_s=1.5)) as service:
        connections = service.server.server_state.connections
        with service.talk() as talk:
            talk.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            talk.send(post(b"abc", b"x-much: 9000000\r\n") * 2)
            wait_for(lambda: service.ran == 1, 1)
            wait_for(lambda: service.app.in_flight == 0, 1)
            assert connections
            wait_for(lambda: not connections, 5)
        assert service.ran == 1
        check_alive(service)


def test_a_client_that_reads_late_gets_all_its_answers(service: Service):
    """Its further requests begin when it reads, and are answered in their order."""
    with service.talk() as talk:
        talk.send(post(b"abc", b"x-much: 5000000\r\n") + post(b"x"))
        talk.send(post(b"xy", b"connection: close\r\n"))
        time.sleep(0.1)
        said = talk.rest().split(b"HTTP/1.1 200 OK")[1:]

    assert [json.loads(one.split(b"\r\n\r\n")[1])["read"] for one in said] == [3, 1, 2]


def test_a_request_says_when_it_was_whole(service: Service):
    """What waited for its turn can be told from what just came."""
    before = time.perf_counter()
    with service.talk() as talk:
        talk.send(HEAD + b"content-length: 2\r\n\r\na")
        time.sleep(0.1)
        assert talk.ask(b"b")[0] == 200

    assert before + 0.1 <= service.begun_s <= time.perf_counter()


def test_a_refusal_says_who_gave_it():
    """The headers of the server are on what its protocol refuses."""
    with running(said=[(b"x-penstock-slot", b"b")]) as service, service.talk() as talk:
        status, headers, _ = talk.ask(b"GET / HTTP/1.1\r\n\r\n")

    assert (status, headers["x-penstock-slot"]) == (400, "b")


def test_slow_bodies_take_no_place(service: Service):
    """A body that is not whole is not in flight, so it keeps nobody out."""
    for _ in range(5):
        service.talk().send(HEAD + b"content-length: 10\r\n\r\nabc")
    time.sleep(0.1)
    assert service.app.in_flight == 0
    check_alive(service)


def test_bodies_on_their_way_have_a_limit_together():
    """Many large unfinished bodies do not fill the memory, and what they held is given back."""
    with running() as service:
        begun = HEAD + b"content-length: 100000\r\n\r\n" + b"x" * 90_000
        talks = [service.talk().send(begun) for _ in range(2)]
        wait_for(lambda: service.kind.shared.unfinished_bytes == 180_000, 5)
        with service.talk() as third:
            refused = third.ask(begun)
            assert (refused[0], refused[1]["retry-after"]) == (503, "1")
            assert "try again" in error(refused)
        assert talks[0].ask(b"x" * 10_000)[0] == 200
        for talk in talks:
            talk.socket.close()
        wait_for(lambda: service.kind.shared.unfinished_bytes == 0, 5)


def test_requests_of_one_connection_are_answered_in_their_order(service: Service):
    """Requests that are sent without waiting are answered one after the other."""
    sizes = [1, 50_000, 3, 0, 7]
    with service.talk() as talk:
        talk.send(b"".join(post(b"x" * size) for size in sizes[:-1]))
        talk.send(post(b"x" * sizes[-1], b"connection: close\r\n"))
        said = talk.rest().split(b"HTTP/1.1 200 OK")[1:]

    assert [json.loads(one.split(b"\r\n\r\n")[1])["read"] for one in said] == sizes


@pytest.mark.parametrize(
    "second",
    [b"garbage\r\n\r\n", HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", HEAD + b"a: b"],
)
def test_what_follows_a_request_does_not_take_its_answer(service: Service, second: bytes):
    """Nonsense sent behind a good request gives it neither another's answer nor none."""
    service.release.clear()
    with service.talk() as talk:
        talk.send(post(b"abc", b"x-wait: 1\r\n") + second)
        time.sleep(0.6)
        service.release.set()
        status, headers, said = talk.answer()
        assert (status, json.loads(said)["read"]) == (200, 3)
        assert headers["connection"] == "close"
        assert talk.rest() == b""


def test_a_client_that_closed_its_half_is_answered(service: Service):
    """Closing the sending side after a whole request is no reason to drop its answer."""
    service.release.clear()
    with service.talk() as talk:
        talk.send(post(b"abc", b"x-wait: 1\r\n"))
        talk.socket.shutdown(socket.SHUT_WR)
        time.sleep(0.1)
        service.release.set()
        assert talk.answer()[0] == 200
        assert talk.rest() == b""


def test_the_old_protocol_is_spoken(service: Service):
    """HTTP/1.0 needs no host and gets one answer."""
    with service.talk() as talk:
        talk.send(f"POST {PATH} HTTP/1.0\r\ncontent-length: 2\r\n\r\nab".encode())
        assert talk.rest().startswith(b"HTTP/1.1 200 OK")


def test_strangers_make_room_for_those_who_come():
    """At the limit the oldest connection that has asked nothing is dropped, no known one."""
    with running(replace(SMALL, head_s=60, idle_s=60)) as service:
        known = [service.talk() for _ in range(2)]
        for talk in known:
            assert talk.ask(post(b"abc"))[0] == 200
        idle = [service.talk() for _ in range(SMALL.connections - 2)]
        wait_for(lambda: len(service.kind.shared.strangers) == SMALL.connections - 2, 5)

        check_alive(service)

        assert idle[0].rest() == b""
        for talk in [*known, *idle[1:-1]]:
            assert talk.ask(post(b"abc"))[0] == 200
        idle[-1].socket.close()
        wait_for(lambda: not service.kind.shared.strangers, 5)


def test_where_everybody_is_known_a_newcomer_waits():
    """With no stranger to drop, one connection more is told to come back."""
    with running() as service:
        known = [service.talk() for _ in range(SMALL.connections)]
        for talk in known:
            assert talk.ask(post(b"abc"))[0] == 200
        with service.talk() as talk:
            refused = talk.answer()
            assert (refused[0], refused[1]["retry-after"]) == (503, "1")


def test_a_stop_finishes_what_is_whole_and_refuses_the_rest():
    """In flight is answered, half a request gets 503, newcomers 503 or nothing, then it ends."""
    with running(replace(SMALL, head_s=10, idle_s=10)) as service:
        inside, half, late = service.talk(), service.talk(), service.talk()
        inside.send(post(b"abc", b"x-wait: 1\r\n"))
        half.send(HEAD)
        assert late.ask(post(b"abc"))[0] == 200
        wait_for(lambda: service.running == 1, 5)

        service.server.should_exit = True
        wait_for(lambda: service.app.draining, 5)
        turned_away = late.ask(post(b"abc"))
        time.sleep(0.3)
        with service.talk() as newcomer:
            assert newcomer.ask(post(b"abc"))[0] == 503
        service.release.set()

        assert (turned_away[0], turned_away[1]["retry-after"]) == (503, "1")
        assert "stopping" in error(turned_away)
        assert inside.answer()[0] == 200
        assert half.answer()[0] == 503
        service.thread.join(5)
        assert not service.thread.is_alive()


@given(cuts=st.lists(st.integers(0, 400), max_size=6), chunked=st.booleans())
@settings(max_examples=25, deadline=None)
def test_where_a_request_is_cut_makes_no_difference(
    service: Service, cuts: list[int], chunked: bool
):
    """Split anywhere, two requests on one connection are answered as when sent at once."""
    body = bytes(range(200))
    one = post(body)
    if chunked:
        head = HEAD + b"transfer-encoding: chunked\r\n\r\n"
        one = head + b"64\r\n%s\r\n64\r\n%s\r\n0\r\n\r\n" % (body[:100], body[100:])
    both = one + one.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
    ends = sorted(cut % len(both) for cut in cuts)
    with service.talk() as talk:
        for start, end in zip([0, *ends], [*ends, len(both)], strict=True):
            talk.send(both[start:end])
            time.sleep(0.001)
        found = talk.rest()
    assert found.count(b'"read": 200') == 2


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(sorted(NOT_HTTP.values())))))
@settings(max_examples=25, deadline=None)
def test_any_bytes_are_survived(service: Service, sent: list[bytes]):
    """Whatever comes is answered with a status below 500 or not at all; nothing is kept of it."""
    with service.talk() as talk:
        try:
            talk.send(*sent)
            talk.socket.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError, OSError):
            pass
        found = talk.rest()
    assert not found or found.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4", b"(reset)"))
    wait_for(lambda: service.kind.shared.unfinished_bytes == 0, 5)


def test_nonsense_leaves_no_line_in_the_log(service: Service, caplog: pytest.LogCaptureFixture):
    """Strangers cannot fill the disk: what they send is counted and not written down."""
    caplog.set_level(logging.DEBUG)
    before = service.refused[400]
    with service.talk() as talk:
        talk.ask(b"\x00\x00\r\n\r\n")

    assert service.refused[400] == before + 1
    assert caplog.text == ""


def test_a_server_may_open_as_many_files_as_it_is_allowed():
    """The soft limit of files, often 1024, is raised to the hard one; connections leave a rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = min(soft, 1024)
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        most = open_files()
        held = resource.getrlimit(resource.RLIMIT_NOFILE)
        app = Hardened(Mended, Endpoint())  # pyright: ignore[reportArgumentType] - never called
        made = server(app, app, Endpoint())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert held == (most, hard)
    assert most == min(hard, MOST_FILES) or (most, hard) == (MOST_FILES, resource.RLIM_INFINITY)
    assert made.config.http.limits.connections == most - RESERVED_FILES


def test_the_limits_of_two_servers_are_their_own():
    """Binding limits makes a new protocol; the common one stays as it was."""
    first, second = protocol(SMALL, Counter()), protocol(Limits(), Counter())

    assert (first.limits, second.limits) == (SMALL, Limits())
    assert not hasattr(Protocol, "limits")
