"""Laws of the transformer, on a real Redis and a real predictor: it adds features and nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from penstock.online import Layout
from serving.forwarding import DOWN, Forwarding, forwarded
from serving.hop import Answer, Hop, Unreachable
from serving.instead import StandIn
from serving.lean import Lean
from serving.package import Served
from serving.reading import Names, read_v1
from serving.seen import Seen
from serving.transformer import main
from tests.online.servers import Redis, redis_server
from tests.packages import body, free_port, predictor, records, wait_for
from tests.serving.lookedup import looking_up, materialized, process, raw, transformer

STOCK = """
import sys
from serving.transformer import arguments, assembled
package, host, port = sys.argv[1:]
given = ["--bundle", package, "--predictor_host", host, "--model_name", "digits"]
parts = assembled(arguments(given))
sys.argv = ["server", "--http_port", port, "--enable_grpc", "false"]
from kserve import ModelServer
from serving.transformer_model import TransformerModel
ModelServer().start([TransformerModel("digits", parts.names, parts.forwarding)])
"""


PIXELS_OF_ONE = json.dumps({"instances": raw(1).tolist()}).encode()


@dataclass
class Stack:
    """Everything that runs."""

    redis: Redis
    layout: Layout
    package: Path
    log: Path
    predictor: subprocess.Popen[bytes]
    predictor_port: int
    port: int
    metrics_port: int
    own_log: Path

    def ask(self, document: Any, *, protocol: str = "v1", **headers: str) -> httpx.Response:
        """Ask the transformer."""
        return ask(self.port, document, protocol=protocol, **headers)


def ask(port: int, document: Any, *, protocol: str = "v1", **headers: str) -> httpx.Response:
    """Ask a server on loopback."""
    path = {"v1": "/v1/models/digits:predict", "v2": "/v2/models/digits/infer"}[protocol]
    held = document if isinstance(document, bytes) else json.dumps(document).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"content-type": "application/json", **sent}
    return httpx.post(f"http://127.0.0.1:{port}{path}", content=held, headers=sent, timeout=20)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis, a predictor and a transformer."""
    folder = tmp_path_factory.mktemp("stack")
    log, own_log, metrics_port = folder / "log", folder / "own", free_port()
    more = ["--log", str(own_log), "--version", "3", "--slot", "b"]
    more += ["--metrics-port", str(metrics_port)]
    with redis_server() as redis:
        layout = materialized(folder / "sources", redis.port)
        package = folder / "package"
        looking_up(package, layout)
        with (
            predictor(package, log) as (running, predictor_port),
            transformer(package, predictor_port, redis.url, folder / "t.log", *more) as (_, port),
        ):
            yield Stack(
                redis, layout, package, log, running, predictor_port, port, metrics_port, own_log
            )


def by_id(*captures: int) -> dict[str, Any]:
    """Return a v1 request that names captures."""
    return {"instances": [{"capture_id": capture} for capture in captures]}


def v2_by_id(captures: list[int], **more: Any) -> dict[str, Any]:
    """Return a v2 request that names captures."""
    tensor = {"name": "capture_id", "shape": [len(captures)], "datatype": "INT64"}
    return {"id": "r", "inputs": [{**tensor, "data": captures}], **more}


def test_an_answer_is_the_predictors_to_the_features_of_training(stack: Stack):
    """In either protocol, in JSON and in bytes, looked up or sent: byte for byte the same body."""
    captures = [3, 1700, 42]
    rows = raw(*captures)
    wanted_v1 = ask(stack.predictor_port, {"instances": rows.tolist()})
    wanted_v2 = ask(stack.predictor_port, body(rows), protocol="v2")
    whole = {"parameters": {"binary_data_output": True}}
    sent = json.loads(body(rows)) | whole
    wanted_bytes = ask(stack.predictor_port, sent, protocol="v2")

    for document, wanted, protocol in (
        (by_id(*captures), wanted_v1, "v1"),
        ({"instances": rows.tolist()}, wanted_v1, "v1"),
        (v2_by_id(captures), wanted_v2, "v2"),
        (json.loads(body(rows)), wanted_v2, "v2"),
        (v2_by_id(captures, **whole), wanted_bytes, "v2"),
    ):
        found = stack.ask(document, protocol=protocol)
        assert (found.status_code, found.content) == (200, wanted.content), found.text
        for name in ("content-type", "x-penstock-version", "x-penstock-slot"):
            assert found.headers[name] == wanted.headers[name]
        assert "x-penstock-fallback" not in found.headers


def test_the_predictor_learns_who_asked_and_by_which_way(stack: Stack):
    """Its log has the request as if it had come straight from the edge."""
    stack.ask(
        by_id(7), x_request_id="over-there", x_user_id="u1", x_rollout_bucket="17",
        x_rollout_arm="challenger", x_rollout_shadow="1",
    )  # fmt: skip
    stack.ask({"instances": raw(7).tolist()}, x_user_id="u1")
    ask(stack.predictor_port, {"instances": raw(7).tolist()}, x_user_id="u1")

    def found() -> list[dict[str, Any]]:
        return [r for r in records(stack.log) if r.get("user")]

    wait_for(lambda: len(found()) >= 3, 10)
    first, second, third = found()
    assert first["request_id"] == "over-there"
    assert (first["bucket"], first["arm"], first["mirrored"]) == (17, "challenger", True)
    assert first["user"] == second["user"] == third["user"]
    assert second["request_id"] != "over-there"


def test_a_trace_goes_on_at_the_predictor_and_secrets_do_not():
    """What is passed on is named; nothing else is."""
    given = {
        b"traceparent": b"00-a-b-01", b"tracestate": b"x=1", b"x-rollout-arm": b"champion",
        b"authorization": b"Bearer secret", b"cookie": b"secret", b"x-penstock-version": b"9",
        b"host": b"digits-shadow",
    }  # fmt: skip

    seen = Seen(given)
    seen.fallbacks, seen.stale = ["values"], ("f", "g")
    passed = dict(forwarded(given, seen))

    assert passed.pop(b"x-request-id")
    assert passed == {
        b"traceparent": b"00-a-b-01", b"tracestate": b"x=1", b"x-rollout-arm": b"champion",
        b"x-rollout-shadow": b"1", b"x-rollout-fallback": b"values", b"x-rollout-stale": b"f,g",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"instances": [{"capture_id": "x"}]}, "capture_id: 'x' came"),
        ({"instances": [{"pixels": [17.0] * 64}]}, "pixels: 17 came"),
        ({"rows": []}, "instances: is missing"),
    ],
)
def test_what_is_wrong_with_a_request_is_400_by_its_field(stack: Stack, document: Any, said: str):
    """And never 500, which would be the server's fault."""
    found = stack.ask(document)

    assert found.status_code == 400
    assert found.json()["error"].startswith(said)


def test_a_body_that_is_packed_is_415(stack: Stack):
    """The predictor says the same."""
    found = stack.ask(b"\x1f\x8b", content_encoding="gzip")

    assert (found.status_code, "send it plain" in found.text) == (415, True)


def test_an_entity_that_nobody_knows_is_answered_as_declared(stack: Stack):
    """Nothing else is known of it: by the rules, and the header says so."""
    stack.ask(by_id(1))
    found = stack.ask(by_id(10**6))

    assert found.json()["predictions"][0]["label"] == 0
    assert found.headers["x-penstock-fallback"] == "rules"
    assert found.headers["x-penstock-version"] == "3", "as the predictor's own, when it is known"
    assert found.headers["x-penstock-slot"] == "a"


def local(stack: Stack, *, name: str = "digits", **hop: Any) -> tuple[Names, Forwarding, Hop]:
    """Return the parts that forward to the predictor, without a store."""
    served = Served(stack.package)
    over = {"connections": 4, "timeout_s": 0.3, **hop}
    made = Hop("127.0.0.1", stack.predictor_port, **over)
    names = Names(served.contract, None)
    return names, Forwarding(served.contract, made, name=name, features=None, instead=None), made


def test_a_refusal_of_the_predictor_is_the_same_refusal(stack: Stack):
    """Its status, and its sentence."""

    async def refused() -> tuple[int, str] | None:
        names, forwarding, hop = local(stack, name="nobody")
        asked = read_v1(names, PIXELS_OF_ONE, Seen({}))
        outcome = await forwarding.answer(asked, {})
        assert not await forwarding.ready()
        assert outcome.answered
        hop.close()
        await asyncio.sleep(0)  # until they are closed
        return asked.refusal

    url = f"http://127.0.0.1:{stack.predictor_port}/v2/models/nobody/infer"
    wanted = httpx.post(url, json=json.loads(body(raw(1))))
    assert asyncio.run(refused()) == (404, wanted.json()["error"])
    assert wanted.status_code == 404


def test_a_refusal_at_the_predictors_door_does_not_make_its_version_forgotten(stack: Stack):
    """Such a refusal names none; what stands in afterwards still says which it was."""
    _, forwarding, _ = local(stack)
    asked = read_v1(Names(Served(stack.package).contract, None), PIXELS_OF_ONE, Seen({}))
    forwarding.version = "3"

    forwarding._taken(asked, Answer(429, {}, b'{"error": "too many"}'))

    assert (forwarding.version, asked.refusal) == ("3", (429, "too many"))


def test_a_frozen_predictor_holds_few_connections_and_is_503(stack: Stack):
    """Twenty ask at once over four connections; all get one sentence, then answers again."""

    async def asked_for() -> tuple[list[Any], int, Any]:
        names, forwarding, hop = local(stack)
        document = json.dumps({"instances": raw(1).tolist()}).encode()

        async def one() -> Any:
            asked = read_v1(names, document, Seen({}))
            await forwarding.answer(asked, {})
            return asked.refusal or asked.labels

        stack.predictor.send_signal(signal.SIGSTOP)
        try:
            held = await asyncio.gather(*(one() for _ in range(20)))
            opened = hop.opened
            assert not await forwarding.ready()
        finally:
            stack.predictor.send_signal(signal.SIGCONT)
        after = await one()
        for _ in range(20):
            after = await one() if isinstance(after, tuple) else after
        hop.close()
        await asyncio.sleep(0)  # until they are closed
        return held, opened, after

    held, opened, after = asyncio.run(asked_for())

    assert held == [(503, DOWN)] * 20
    assert opened <= 4 + 4
    assert len(after) == 1


def test_without_the_predictor_rules_answer_and_nobody_is_told_it_is_ready(stack: Stack):
    """As the endpoint declares for a model that fails; and 503 with a time where it does not."""
    ready = f"http://127.0.0.1:{stack.port}/v2/models/digits/ready"
    live = f"http://127.0.0.1:{stack.port}/v2/health/live"
    assert httpx.get(ready).json() == {"name": "digits", "ready": True}
    stack.predictor.send_signal(signal.SIGSTOP)
    try:
        found = stack.ask(by_id(5), x_request_id="lost", x_rollout_bucket="7")
        states = [httpx.get(url, timeout=20).status_code for url in (ready, live)]
    finally:
        stack.predictor.send_signal(signal.SIGCONT)
    wait_for(lambda: httpx.get(ready, timeout=20).status_code == 200, 10)

    assert found.status_code == 200
    assert found.headers["x-penstock-fallback"] == "failed:rules", "a release counts it so"
    assert states == [503, 200]
    wait_for(lambda: "lost" in of_its_own(stack), 10)
    record = of_its_own(stack)["lost"]
    wanted = {"status": 200, "fallbacks": ["failed:rules"], "label": [0], "probability": [0.91],
              "bucket": 7, "version": "3", "slot": "b"}  # fmt: skip
    assert {name: record[name] for name in wanted} == wanted
    assert record["latency_ms"] > 0
    assert len(record["features"]["pixels"]) == 1
    assert "x-penstock-fallback" not in stack.ask(by_id(5)).headers


def of_its_own(stack: Stack) -> dict[str, dict[str, Any]]:
    """Return what the transformer has on record, by request."""
    return {record["request_id"]: record for record in records(stack.own_log)}


def test_on_record_here_is_what_is_on_none_of_the_predictors(stack: Stack):
    """A refusal and a rule's answer, and no request that the predictor answered; counted alike."""
    url = f"http://127.0.0.1:{stack.metrics_port}/metrics"

    def counted() -> dict[str, float]:
        lines = [one.rsplit(" ", 1) for one in httpx.get(url).text.splitlines() if one[0] != "#"]
        return {name: float(value) for name, value in lines}

    def requests(status: int) -> float:
        return sum(
            number
            for name, number in counted().items()
            if name.startswith("penstock_requests_total") and f'status="{status}"' in name
        )

    before = [requests(status) for status in (200, 400)]
    stack.ask(by_id(3), x_request_id="theirs")
    stack.ask({"rows": []}, x_request_id="refused")
    stack.ask(by_id(10**6), x_request_id="ruled")
    wait_for(lambda: {"refused", "ruled"} <= of_its_own(stack).keys(), 10)

    found = of_its_own(stack)
    assert "theirs" not in found
    assert (found["refused"]["status"], found["refused"]["label"]) == (400, None)
    assert (found["ruled"]["fallbacks"], found["ruled"]["label"]) == (["rules"], [0])
    assert [requests(status) for status in (200, 400)] == [before[0] + 1, before[1] + 1]
    kinds = [name for name in counted() if name.startswith("penstock_lookups_total")]
    assert kinds, "look-ups are counted where they are done"


def test_who_asks_whether_it_is_ready_is_told_who_answers_users(stack: Stack):
    """The predictor's version and slot, on each route; a release holds them against its table."""
    for path in ("/v2/models/digits/ready", "/v2/health/ready", "/v1/models/digits"):
        found = httpx.get(f"http://127.0.0.1:{stack.port}{path}", trust_env=False)
        assert (found.status_code, found.json()["ready"]) == (200, True)
        who = (found.headers["x-penstock-version"], found.headers["x-penstock-slot"])
        assert who == ("3", "a")


@pytest.mark.parametrize(("own", "status"), [("3", 200), ("", 200), ("2", 503)])
def test_it_is_not_ready_with_a_predictor_of_another_version(stack: Stack, own: str, status: int):
    """Features of one package for the model of another are nobody's answer."""
    sent: list[dict[str, Any]] = []

    async def asked() -> None:
        hop = Hop("127.0.0.1", stack.predictor_port, connections=1, timeout_s=5)
        served = Served(stack.package)
        named: dict[str, Any] = {"name": "digits", "features": None}
        forwarding = Forwarding(served.contract, hop, **named, instead=StandIn.of(served))
        names = Names(served.contract, stack.layout)
        lean = Lean(never, names, forwarding, name="digits", told=never, version=own)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await lean({"path": "/v2/models/digits/ready", "method": "GET"}, never, send)
        hop.close()

    asyncio.run(asked())
    assert sent[0]["status"] == status
    assert (b"x-penstock-version", b"3") in sent[0]["headers"]


def never(*_: Any) -> Any:
    """Be what nobody calls."""
    raise AssertionError


def test_it_says_what_it_takes(stack: Stack):
    """As the predictor does, and with what may be left out."""
    found = httpx.get(f"http://127.0.0.1:{stack.port}/openapi.json").json()

    assert "/v2/models/digits/infer" in found["paths"]
    assert "capture_id" in json.dumps(found)


def test_a_frozen_store_is_made_up_for_and_asked_again_when_it_is_back(stack: Stack):
    """The last answer for a capture that was asked before, rules for the others."""
    before = stack.ask(by_id(11))
    stack.redis.freeze()
    try:
        same, other = stack.ask(by_id(11)), stack.ask(by_id(12))
        sent = stack.ask({"instances": raw(12).tolist()})
    finally:
        stack.redis.thaw()
    wait_for(lambda: "x-penstock-fallback" not in stack.ask(by_id(13)).headers, 10)

    assert before.headers.get("x-penstock-fallback") is None
    assert same.headers["x-penstock-fallback"] == "cached"
    assert same.json() == before.json()
    for name in ("x-penstock-version", "x-penstock-slot"):
        assert same.headers[name] == before.headers[name]
    assert other.headers["x-penstock-fallback"] == "rules"
    assert "x-penstock-fallback" not in sent.headers, "who sends the features needs no store"


def test_the_stock_model_server_runs_it_unchanged(stack: Stack, tmp_path: Path):
    """KServe's own server answers with the same numbers, headers and refusals."""
    port = free_port()
    command = ["-c", STOCK, str(stack.package), f"127.0.0.1:{stack.predictor_port}", str(port)]
    with process(command, port, tmp_path / "stock.log", PENSTOCK_ONLINE=stack.redis.url):
        for document, protocol in ((by_id(3, 4), "v1"), (v2_by_id([3, 4]), "v2")):
            wanted = stack.ask(document, protocol=protocol)
            found = ask(port, document, protocol=protocol, x_request_id="mine")
            assert found.status_code == 200, found.text
            held, other = found.json(), wanted.json()
            if protocol == "v2":
                held = {o["name"]: o["data"] for o in held["outputs"]}
                other = {o["name"]: o["data"] for o in other["outputs"]}
                assert found.json()["model_version"] == wanted.json()["model_version"] == "3"
                np.testing.assert_allclose(held["probability"], other["probability"], rtol=1e-6)
                held, other = held["label"], other["label"]
            else:
                held, other = ([p["label"] for p in d["predictions"]] for d in (held, other))
            assert held == other
            assert found.headers["x-penstock-version"] == "3"
            assert found.headers["x-request-id"] == "mine"
        wrong = ask(port, {"instances": [{"capture_id": "x"}]})
        assert (wrong.status_code, "capture_id" in wrong.text) == (400, True)
        stack.predictor.send_signal(signal.SIGSTOP)
        try:
            url = f"http://127.0.0.1:{port}/v2/models/digits/ready"
            assert httpx.get(url, timeout=20).status_code == 503
        finally:
            stack.predictor.send_signal(signal.SIGCONT)


def test_it_does_not_start_without_its_store_or_its_rules(
    stack: Stack,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """One sentence, and exit 1."""
    given = ["--bundle", str(stack.package), "--model-name", "digits", "--port", str(stack.port)]
    monkeypatch.delenv("PENSTOCK_ONLINE", raising=False)
    assert main([*given, "--predictor-host", "127.0.0.1:1"]) == 1
    assert "PENSTOCK_ONLINE is not set" in capsys.readouterr().err
    monkeypatch.setenv("PENSTOCK_ONLINE", stack.redis.url)
    assert main([*given, "--predictor-host", "here:there"]) == 1
    assert "HOST or HOST:PORT" in capsys.readouterr().err
    assert main([*given, "--predictor-host", "127.0.0.1:1"]) == 1
    assert f"port {stack.port} cannot be listened on: Address" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*given, "--predictor-host", "127.0.0.1:1", "--log", str(tmp_path / "log")])
    assert "--log needs --version" in capsys.readouterr().err
    package = tmp_path / "signed"
    looking_up(package, stack.layout, signed=True)
    given[1] = str(package)
    assert main([*given, "--predictor-host", "127.0.0.1:1"]) == 1
    assert "must be signed" in capsys.readouterr().err


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


def hopping(handler: Handler, asks: int = 1, *, timeout_s: float = 0.5) -> tuple[list[Any], int]:
    """Ask a server of the test's own several times, one after the other."""

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    async def run() -> tuple[list[Any], int]:
        server = await asyncio.start_server(handled, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        hop = Hop("127.0.0.1", port, connections=2, timeout_s=timeout_s)
        found: list[Any] = []
        for _ in range(asks):
            try:
                answer = await hop.ask("POST", "/x", [(b"a", b"b")], b"body")
                found.append((answer.status, answer.body))
            except Unreachable as e:
                found.append(e)
        hop.close()
        server.close()
        await asyncio.sleep(0)  # until they are closed
        return found, hop.opened

    return asyncio.run(run())


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"content-length: 4" in head
    return await reader.readexactly(4)


def test_a_connection_is_used_again_and_an_answer_may_come_in_pieces():
    """Byte by byte, with a length and in chunks."""
    answers = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    ]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            assert await _request(reader) == b"body"
            for at in range(len(answer)):
                writer.write(answer[at : at + 1])
                await writer.drain()
                await asyncio.sleep(0)

    assert hopping(handle, 2) == ([(200, b"ok"), (503, b"no")], 1)


def test_a_connection_that_was_closed_while_idle_is_no_failure():
    """The request goes over a new one; a server that restarts loses nobody."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    found, opened = hopping(handle, 3)

    assert found == [(200, b"")] * 3
    assert opened == 3


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal", b"SSH-2.0\r\n\r\n"]
)
def test_an_answer_that_breaks_off_is_none(answer: bytes):
    """Nothing, half of one, and something that is no HTTP."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(answer)
        await writer.drain()

    (found,), _ = hopping(handle)

    assert isinstance(found, Unreachable)


def test_an_answer_that_comes_too_late_is_nobodys():
    """The next request does not get what the one before it waited for."""
    waiting = [1.0, 0.0]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        late = waiting.pop(0)
        await _request(reader)
        await asyncio.sleep(late)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % bool(late))

    found, opened = hopping(handle, 2, timeout_s=0.2)

    assert isinstance(found[0], Unreachable)
    assert "no answer within 200 ms" in str(found[0])
    assert (found[1], opened) == ((200, b"0"), 2)


def test_a_stand_in_needs_nothing_of_a_server(stack: Stack):
    """The rules of a package that is described answer as those of one that is served."""
    served = Served(stack.package)

    assert list(StandIn.of(served)._names.keys) == ["capture_id"]
