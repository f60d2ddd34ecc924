"""Laws of the kill switch over HTTP: what whoever asks is told, and why a call was refused."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from penstock.rollout import kill, killroll, killserver, killtokens, switch
from penstock.rollout.access import LOOPBACK
from tests.packages import wait_for
from tests.people import person


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose slot a serves version 1, where an operator may throw the switch."""
    serving = tmp_path / "serving"
    switch.prepare(serving)
    desired = {"model": "digits", "slots": {"a": {"version": "1"}}}
    (serving / "desired.json").write_text(json.dumps(desired))
    known = [{"name": "operator", "public_key": person("operator").public_key, "roles": []}]
    (serving / killroll.ROLL).write_text(json.dumps(known))
    return tmp_path


@pytest.fixture
def desk(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, str]]:
    """The port where the switch is heard, and a token."""
    token, port = killtokens.new_token(home, "desk", person("operator"))
    monkeypatch.setattr(killserver.Handler, "timeout", 0.3)
    worker = threading.Thread(target=killserver.serve, args=(home,))
    worker.start()
    wait_for(lambda: killserver.heard(port), 5)
    yield port, token
    killtokens.tokens_of(home).unlink()
    worker.join()


def asked(port: int, token: str, body: bytes, length: object) -> tuple[int, str]:
    """Return status and error of a call whose content-length may lie."""
    with socket.create_connection((LOOPBACK, port)) as line:
        head = f"POST /kill HTTP/1.1\r\nauthorization: Bearer {token}\r\n"
        line.sendall(f"{head}content-length: {length}\r\n\r\n".encode() + body)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        return answer.status, json.loads(answer.read())["error"]


@pytest.mark.parametrize(
    ("body", "length", "status", "said"),
    [
        (b"{}", "abc", 400, "content-length says 'abc'"),
        (b"{}", "-1", 400, "content-length says '-1'"),
        (b"", "0", 400, "a body of 1 to 4096 bytes"),
        (b"", "9" * 5000, 400, "a body of 1 to 4096 bytes"),
        (b"x", 1, 400, "the body is no JSON"),
        (b"[" * 4000, 4000, 400, "the body is no JSON"),
        (b"[]", 2, 400, 'the body is {"reason": "why"'),
        (b'{"reason": "\\u001b[2J"}', 23, 400, "printable characters"),
        (b'{"reason"', 40, 408, "did not come whole"),
    ],
)
def test_each_refusal_says_what_was_wrong_with_the_call(
    home: Path, desk: tuple[int, str], body: bytes, length: object, status: int, said: str
):
    """A slow body is no full disk, and a wrong length no wrong reason; nothing is thrown."""
    assert asked(*desk, body, length)[0] == status
    assert said in asked(*desk, body, length)[1]
    assert kill.killed(home) is None


def test_without_a_token_it_is_told_whether_and_no_more(home: Path, desk: tuple[int, str]):
    """Who threw it and why is for callers with a token."""
    port, token = desk
    kill.throw(home, person("operator"), reason="unfair", now=datetime.now(UTC), to="a")
    line = http.client.HTTPConnection(LOOPBACK, port)
    line.request("GET", "/kill")
    assert json.loads(line.getresponse().read()) == {"thrown": True}
    line.request("GET", "/kill", headers={"authorization": f"Bearer {token}"})
    assert json.loads(line.getresponse().read())["reason"] == "unfair"
    line.close()


def test_tokens_that_are_broken_are_not_the_callers_mistake(home: Path, desk: tuple[int, str]):
    """A file of tokens that cannot be read is said to be, with what mends it."""
    killtokens.tokens_of(home).write_text("{")
    status, said = asked(*desk, b"{}", 2)
    assert status == 503
    assert "penstock kill token" in said
