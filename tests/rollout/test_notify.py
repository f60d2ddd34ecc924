"""Laws of notifications: each event at least once, in order, signed; nothing waits for them."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from penstock.rollout import notify
from penstock.rollout.branches import BACK
from penstock.rollout.drill import DRILL
from penstock.rollout.kill import CLEARED, KILL
from penstock.rollout.notify import Outbox, delivery, events_after, notifier_of, notifying
from penstock.rollout.past import PAGED
from penstock.rollout.state import INTENT, Act
from penstock.rollout.webhook import (
    SIGNATURE,
    Rejected,
    Undelivered,
    Webhook,
    WebhookError,
    read_secret,
)
from tests.rollout.tales import RELEASE, Tale, rolled_back

SECRET = b"a secret that both of them know"
PATIENCE_S = 10.0
"""Longest that a test waits for what must happen."""


class Receiver:
    """A server on this machine that notes what it gets and answers as it is told."""

    def __init__(self) -> None:
        """Listen on a free port."""
        self.got: list[dict[str, Any]] = []
        self.tries = 0
        self.answer, self.wait_s = 200, 0.0
        self.going = threading.Event()
        self.going.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.tries += 1
                time.sleep(receiver.wait_s)
                receiver.going.wait(PATIENCE_S)
                if receiver.answer == 200:
                    receiver.got.append({"path": self.path, "body": body, **self.headers})
                self.send_response(receiver.answer)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_request(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    @property
    def events(self) -> list[str]:
        """What was taken, by name."""
        return [json.loads(one["body"])["event"] for one in self.got]

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Yield a server that takes everything."""
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return the file of the shared secret."""
    file = tmp_path / "webhook.secret"
    file.write_bytes(SECRET + b"\n")
    file.chmod(0o600)
    return file


def until(true: Callable[[], bool]) -> None:
    """Wait for something that must happen."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < PATIENCE_S
        time.sleep(0.01)


def outbox(tale: Tale, receiver: Receiver, secret: Path, cursor: Path) -> Outbox:
    """Return an outbox of a tale's ledger."""
    webhook = Webhook(f"http://127.0.0.1:{receiver.port}/hooks/top?team=ml", secret, timeout_s=0.5)
    return Outbox(webhook, tale.ledger.entries, cursor, first_wait_s=0.01)


def test_each_event_arrives_in_order_signed_and_with_its_hash(
    tmp_path: Path, receiver: Receiver, secret: Path
):
    """Whoever has the secret can tell that the body was not changed, and when it was sent."""
    tale = Tale.begun(tmp_path)
    box = outbox(tale, receiver, secret, tmp_path / "cursor.json")

    tale.climb(1)
    tale.decide(Act.STEP_BACK, 0, why="harm", strike=True)
    tale.decide(Act.ROLL_BACK, why="harm again", strike=True)
    box.wake()
    box.close(timeout_s=PATIENCE_S)

    assert receiver.events == ["step entered", "step entered", "strike", "rolled back"]
    for one in receiver.got:
        stamp, _, digest = one[SIGNATURE].partition(",v1=")
        unix_s = stamp.removeprefix("t=")
        expected = hmac.new(SECRET, f"{unix_s}.".encode() + one["body"], hashlib.sha256)
        assert hmac.compare_digest(digest, expected.hexdigest())
        assert one["Idempotency-Key"] == json.loads(one["body"])["hash"]
        assert one["path"] == "/hooks/top?team=ml"


@pytest.mark.parametrize("trouble", ["down", "500", "slow"])
def test_a_receiver_that_comes_back_gets_all_of_it(
    tmp_path: Path, receiver: Receiver, secret: Path, trouble: str
):
    """Nobody listens, an error, or no answer in time: nothing is lost, and nothing waits."""
    tale = Tale.begun(tmp_path)
    cursor = tmp_path / "cursor.json"
    if trouble == "down":
        port, receiver.port = receiver.port, 1
    receiver.answer, receiver.wait_s = (500, 0) if trouble == "500" else (200, 0)
    receiver.wait_s = 0.8 if trouble == "slow" else 0.0
    box = outbox(tale, receiver, secret, cursor)
    tale.climb(0)
    box.wake()
    until(lambda: "entry" in delivery(cursor)["problem"])
    box.close(timeout_s=PATIENCE_S)
    receiver.got.clear()

    receiver.answer, receiver.wait_s = 200, 0.0
    if trouble == "down":
        receiver.port = port
    tale.climb(1)
    box = outbox(tale, receiver, secret, cursor)
    until(lambda: delivery(cursor)["sequence"] == tale.entries[-1].sequence)
    box.close(timeout_s=PATIENCE_S)

    assert receiver.events == ["step entered"] * 3
    assert delivery(cursor)["problem"] == ""


def test_tries_are_bounded(tmp_path: Path, receiver: Receiver, secret: Path):
    """A receiver that only fails is asked a few times, then left in peace for a while."""
    tale = Tale.begun(tmp_path)
    receiver.answer = 503
    box = outbox(tale, receiver, secret, tmp_path / "cursor.json")
    tale.climb(0)
    box.wake()
    # A wake before the entry was there may have made a burst of its own, of which no part is seen.
    until(lambda: receiver.tries >= notify.TRIES and quiet(receiver))
    tried = receiver.tries
    box.close(timeout_s=PATIENCE_S)

    assert tried in (notify.TRIES, 2 * notify.TRIES)


def quiet(receiver: Receiver) -> bool:
    """Return whether nobody asks a receiver any more."""
    before = receiver.tries
    time.sleep(1.0)
    return receiver.tries == before


@pytest.mark.parametrize("answer", [302, 400, 404, 410])
def test_what_will_never_be_taken_does_not_hold_up_the_rest(
    tmp_path: Path, receiver: Receiver, secret: Path, answer: int
):
    """A refused event is given up, counted, and no redirect is followed with it."""
    tale = Tale.begun(tmp_path)
    cursor = tmp_path / "cursor.json"
    receiver.answer = answer
    box = outbox(tale, receiver, secret, cursor)
    tale.climb(0)
    box.wake()
    until(lambda: delivery(cursor)["lost"] == 1)

    receiver.answer = 200
    tale.decide(Act.ROLL_BACK, why="harm")
    box.wake()
    box.close(timeout_s=PATIENCE_S)

    assert receiver.events == ["rolled back"]
    assert receiver.tries == 2


def test_waking_never_waits_for_a_receiver(tmp_path: Path, receiver: Receiver, secret: Path):
    """While one request hangs, entries are made and said to be there; later all of it arrives."""
    tale = Tale.begun(tmp_path)
    box = outbox(tale, receiver, secret, tmp_path / "cursor.json")
    receiver.going.clear()
    tale.climb(0)
    box.wake()
    until(lambda: receiver.tries == 1)

    tale.decide(Act.ROLL_BACK, why="harm")
    box.wake()
    assert receiver.got == []

    receiver.going.set()
    until(lambda: receiver.events[-1:] == ["rolled back"])
    box.close(timeout_s=PATIENCE_S)


def test_closing_leaves_a_receiver_that_hangs(tmp_path: Path, receiver: Receiver, secret: Path):
    """What is not sent then waits in the ledger: the cursor stays before it."""
    tale = Tale.begun(tmp_path)
    cursor = tmp_path / "cursor.json"
    box = outbox(tale, receiver, secret, cursor)
    receiver.going.clear()
    before = delivery(cursor)["sequence"]
    tale.climb(0)
    box.wake()
    until(lambda: receiver.tries == 1)

    box.close(timeout_s=0.01)

    assert delivery(cursor)["sequence"] <= before + 1
    receiver.going.set()


def test_what_was_sent_before_the_cursor_was_kept_is_sent_again(
    tmp_path: Path, receiver: Receiver, secret: Path
):
    """At least once: a cursor that cannot be read begins anew, with the same keys."""
    tale = Tale.begun(tmp_path)
    cursor = tmp_path / "cursor.json"
    cursor.write_text('{"sequence":')
    outbox(tale, receiver, secret, cursor).close(timeout_s=PATIENCE_S)
    cursor.write_text("torn")
    outbox(tale, receiver, secret, cursor).close(timeout_s=PATIENCE_S)

    assert receiver.events == ["opened", "opened"]
    assert len({one["Idempotency-Key"] for one in receiver.got}) == 1


def test_the_first_outbox_of_a_home_tells_nothing_old(
    tmp_path: Path, receiver: Receiver, secret: Path
):
    """Whoever adds a webhook is not told of all releases there ever were."""
    tale, _ = rolled_back(tmp_path)
    outbox(tale, receiver, secret, tmp_path / "cursor.json").close(timeout_s=PATIENCE_S)

    assert receiver.events == []


def test_good_news_is_told_when_it_is_true_and_bad_news_at_once(tmp_path: Path):
    """A step that was only decided on is not told; a strike is."""
    tale = Tale.begun(tmp_path)
    tale.climb(0)
    end, body = tale.entries[-1].sequence, tale.entries[-2].body
    tale.append(INTENT, {**body, "n": 2, "step": 1})

    assert list(events_after(tale.entries, end)) == []

    tale.append(INTENT, {**body, "n": 3, "action": "roll back", "step": None, "why": "harm"})

    assert [e["event"] for e in events_after(tale.entries, end)] == ["rolled back"]


def test_every_kind_of_event_is_told(tmp_path: Path):
    """Those that the how-to lists, and commands and restored tables are not among them."""
    tale = Tale.begun(tmp_path)
    tale.decide(Act.ENTER, 0)
    tale.command("pause")
    tale.append(PAGED, {"release": RELEASE, "n": 1, "cause": "drill", "why": "none for 40 days"})
    tale.append(DRILL, {"passed": False, "why": "slow"})
    tale.append(KILL, {"by": "ann", "to": "rules", "reason": "harm"})
    tale.append(CLEARED, {"reason": "mended"})
    tale.decide(Act.AWAIT, 1, table=None)
    tale.decide(Act.ROLL_BACK, why="harm")
    tale.append(BACK, {"market": "all", "from": 2, "to": 1, "reason": "revenue fell"})

    told = list(events_after(tale.entries, 0))

    assert [e["event"] for e in told] == [
        "opened", "step entered", "paged", "drill", "kill switch", "kill cleared",
        "approval wanted", "rolled back", "returned",
    ]  # fmt: skip
    assert {e["event"] for e in told} <= notify.TOLD
    assert told[3]["text"] == "rehearsed rollback failed: slow"


def test_an_entry_that_nobody_understands_keeps_no_other_from_being_told(tmp_path: Path):
    """A read-back of nothing, a release that was never opened, a body without its fields."""
    tale = Tale.begun(tmp_path)
    tale.append("in force", {"release": RELEASE, "n": 99, "milliseconds": 1})
    tale.append("intent", {"release": "digits/9/all/1", "n": 1, "action": "enter"})
    tale.append("intent", {"release": RELEASE})
    tale.append(PAGED, {"release": RELEASE, "n": 1, "cause": "drill", "why": "none"})

    assert [e["event"] for e in events_after(tale.entries, 0)] == ["opened", "paged"]


@pytest.mark.parametrize(
    ("mode", "content", "said"),
    [(0o644, SECRET, "chmod 600"), (0o600, b"short", "has 5 bytes"), (0o600, None, "No such file")],
    ids=["open to others", "short", "missing"],
)
def test_a_secret_that_is_none_is_refused(
    tmp_path: Path, mode: int, content: bytes | None, said: str
):
    """With what to do, and without a byte of it."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)

    with pytest.raises(WebhookError) as refused:
        read_secret(file)

    assert said in str(refused.value)
    assert content is None or content.decode() not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["ftp://x/y", "http://", "nothing", "http://ann:word@x/y", "http://x:99999/", "http://x/\ny"],
)
def test_an_address_that_is_none_is_refused_unquoted(secret: Path, url: str):
    """What is in an address may be a secret."""
    with pytest.raises(WebhookError) as refused:
        Webhook(url, secret)

    assert url not in str(refused.value)


def test_no_error_tells_the_secret_or_the_path(receiver: Receiver, secret: Path):
    """Not when nobody answers, and not when it is refused."""
    path = "/T000/B000/verysecret"
    silent = Webhook(f"http://127.0.0.1:1{path}", secret)
    refusing = Webhook(f"http://127.0.0.1:{receiver.port}{path}", secret)
    receiver.answer = 403

    with pytest.raises(Undelivered) as one:
        silent.tell({"hash": "x"})
    with pytest.raises(Rejected) as other:
        refusing.tell({"hash": "x"})

    for said in (str(one.value), str(other.value), repr(silent)):
        assert "verysecret" not in said
        assert SECRET.decode() not in said


def test_the_environment_says_where_to_send(tmp_path: Path, receiver: Receiver, secret: Path):
    """No variable, no outbox; an address alone is a mistake; both begin at the ledger's end."""
    tale = Tale.begun(tmp_path)
    url = {notify.URL_VARIABLE: f"http://127.0.0.1:{receiver.port}/"}

    assert notifier_of(tmp_path, tale.ledger.entries, {}) is None
    with pytest.raises(WebhookError, match=notify.SECRET_VARIABLE):
        notifier_of(tmp_path, tale.ledger.entries, url)

    both = {**url, notify.SECRET_VARIABLE: str(secret)}
    box = notifier_of(tmp_path, tale.ledger.entries, both)
    assert box is not None
    tale.climb(0)
    box.wake()
    box.close(timeout_s=PATIENCE_S)
    assert receiver.events == ["step entered"]


def test_a_command_tells_what_it_entered(
    tmp_path: Path, receiver: Receiver, secret: Path, capsys: pytest.CaptureFixture[str]
):
    """A drill or a kill outside of any release is told too; what cannot be told stops nothing."""
    tale = Tale.begun(tmp_path)
    both = {notify.URL_VARIABLE: f"http://127.0.0.1:{receiver.port}/",
            notify.SECRET_VARIABLE: str(secret)}  # fmt: skip

    with notifying(tmp_path, tale.ledger.entries, both):
        tale.append(DRILL, {"passed": True, "why": ""})
    assert capsys.readouterr().err == ""
    with notifying(tmp_path, tale.ledger.entries, {notify.URL_VARIABLE: "nowhere"}):
        tale.append(KILL, {"by": "ann", "to": "rules", "reason": "harm"})

    assert receiver.events == ["drill"]
    assert "nobody is notified" in capsys.readouterr().err
