"""Laws of the layers around the applications, with small real applications inside them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx
import pytest

from penstock.endpoint import Endpoint
from serving.hardened import App, Hardened, Mended, Message, Receive, Scope, Send, refuse

INFER = "/v2/models/digits/infer"
ENDPOINT = Endpoint(max_in_flight=3)


def client(app: App) -> httpx.AsyncClient:
    """Return a client of an application."""
    inside = httpx.ASGITransport(app=app)  # pyright: ignore[reportArgumentType]
    return httpx.AsyncClient(transport=inside, base_url="http://here")


def ask(app: App, method: str, path: str, **more: dict[str, str]) -> httpx.Response:
    """Return the answer of an application to one request."""

    async def once() -> httpx.Response:
        async with client(app) as c:
            return await c.request(method, f"http://here{path}", **more)  # pyright: ignore[reportArgumentType]

    return asyncio.run(once())


def answering(document: object, status: int = 200) -> App:
    """Return an application that answers with a JSON document."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(document).encode()})

    return app


async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Fail with a text that nobody outside may see."""
    raise RuntimeError("password=hunter2")


async def waiting(
    inside: Callable[[Hardened, httpx.AsyncClient, asyncio.Event], Awaitable[None]], most: int = 3
) -> list[int]:
    """Fill an application with as many as are taken, act, let them go; return their statuses."""
    release = asyncio.Event()

    async def waits(_scope: Scope, _receive: Receive, send: Send) -> None:
        await release.wait()
        await refuse(send, 200, "")

    app = Hardened(waits, ENDPOINT)
    async with client(app) as c:
        first = [asyncio.create_task(c.post(INFER)) for _ in range(most)]
        while app.in_flight < most:  # noqa: ASYNC110 - a counter, not an event
            await asyncio.sleep(0)
        await inside(app, c, release)
        release.set()
        return [r.status_code for r in await asyncio.gather(*first)]


def test_one_request_too_many_is_asked_to_come_back():
    """With as many in flight as allowed the next gets 429; when one is done it is taken."""
    found: list[httpx.Response] = []

    async def one_more(app: Hardened, c: httpx.AsyncClient, release: asyncio.Event) -> None:
        found.append(await c.post(INFER))
        release.set()
        while app.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0)
        found.append(await c.post(INFER))

    assert asyncio.run(waiting(one_more)) == [200] * 3
    refused, after = found
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert after.status_code == 200


def test_at_the_limit_whoever_asks_how_we_are_is_answered():
    """Health is read while predictions are refused: a busy server is not a dead one."""

    async def probe(app: Hardened, c: httpx.AsyncClient, release: asyncio.Event) -> None:
        task = asyncio.create_task(c.get("/v2/health/ready"))
        await asyncio.sleep(0.01)
        release.set()
        assert (await task).status_code == 200

    asyncio.run(waiting(probe))


def test_while_it_drains_what_is_inside_is_finished_and_nothing_is_let_in():
    """In flight is answered; what comes gets 503, a time to return and the end of its connection.

    Only that the process lives is still said.
    """
    found: dict[str, httpx.Response] = {}

    async def stop(app: Hardened, c: httpx.AsyncClient, release: asyncio.Event) -> None:
        app.drain()
        found["post"] = await c.post(INFER)
        found["ready"] = await c.get("/v2/health/ready")
        release.set()
        found["live"] = await c.get("/v2/health/live")

    assert asyncio.run(waiting(stop, most=2)) == [200] * 2
    assert [r.status_code for r in found.values()] == [503, 503, 200]
    for name in ("post", "ready"):
        assert found[name].headers["retry-after"] == "1"
        assert found[name].headers["connection"] == "close"
        assert "stopping" in found[name].json()["error"]


def test_what_is_refused_is_counted_by_status():
    """The metrics can say how many were turned away, and why."""
    app = Hardened(answering({}), ENDPOINT)
    ask(app, "GET", "/docs")
    ask(app, "GET", INFER)
    app.drain()
    ask(app, "POST", INFER)

    assert app.refused == {404: 1, 405: 1, 503: 1}


@pytest.mark.parametrize(("method", "path"), [("POST", INFER), ("GET", "/v2")])
def test_an_exception_tells_the_client_nothing_and_the_log_its_request(
    caplog: pytest.LogCaptureFixture, method: str, path: str
):
    """The answer is generic; the server's log has the request id and the reason, no secret."""
    app = Hardened(broken, ENDPOINT)
    headers = {"x-request-id": "rid-7", "authorization": "Bearer secret"}

    found = ask(app, method, path, headers=headers)

    assert found.status_code == 500
    assert "hunter2" not in found.text
    assert "rid-7" in caplog.text
    assert "hunter2" in caplog.text
    assert "secret" not in caplog.text
    assert app.in_flight == 0


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/index",
        "/v2/repository/models/digits/load",
        "/v1/models/digits:explain",
        "/v2/models/digits/versions/3/load",
        "/v2/models/digits/versions/3/infer/ready",
        "/v2/models/digits/infer/",
        "/openai/v1/models",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/metrics",
        "//v2",
        "/v2/models/a/b/infer",
        "/v2/models/digits/infer\n",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_a_path_that_is_not_open_is_not_found(method: str, path: str):
    """What is not on the list never reaches the application, whatever it would do with it."""
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    assert started(Hardened(broken, ENDPOINT), scope)["status"] == 404


def started(app: App, scope: Scope) -> Message:
    """Return the start of an application's answer."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(app(scope, receive, send))
    return sent[0]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize(("path", "allow"), [(INFER, "POST"), ("/v2", "GET")])
def test_a_method_that_a_path_does_not_take_is_told_which_it_takes(
    method: str, path: str, allow: str
):
    """405 names the method; no preflight is answered, so no page of another site may ask."""
    found = ask(Hardened(broken, ENDPOINT), method, path)

    assert (found.status_code, found.headers["allow"]) == (405, allow)
    assert not [name for name in found.headers if name.startswith("access-control")]


def test_head_asks_what_get_asks():
    """A monitor that wants no body is answered like one that does."""
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(scope["method"])
        await refuse(send, 200, "")

    assert ask(Hardened(app, ENDPOINT), "HEAD", "/v2/health/live").status_code == 200
    assert ask(Hardened(app, ENDPOINT), "HEAD", INFER).status_code == 405
    assert seen == ["GET"]


def test_an_answer_is_neither_held_nor_read():
    """What the application sends goes out as it is, piece by piece: hot routes pay for nothing."""
    pieces: list[Message] = [
        {"type": "http.response.start", "status": 422, "headers": []},
        {"type": "http.response.body", "body": b'{"detail":', "more_body": True},
        {"type": "http.response.body", "body": b"null}"},
    ]
    given: list[object] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        given.extend((receive, send))
        for piece in pieces:
            await send(piece)

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": INFER, "headers": []}
    asyncio.run(Hardened(app, ENDPOINT)(scope, receive, send))

    assert sent == pieces
    assert given == [receive, send]


def test_the_description_is_answered_where_there_is_one():
    """The page for people stays closed; the document for programs is read, not posted to."""
    app = Hardened(broken, ENDPOINT, document={"openapi": "3.1.0"})

    assert ask(app, "GET", "/openapi.json").json() == {"openapi": "3.1.0"}
    assert ask(app, "POST", "/openapi.json").status_code == 405
    assert ask(app, "GET", "/docs").status_code == 404


def test_what_is_no_http_is_not_served():
    """A socket that would stay open around every limit is not taken."""
    with pytest.raises(RuntimeError, match="websocket is not served"):
        started(Hardened(answering({}), ENDPOINT), {"type": "websocket", "path": INFER})


MENDED = [
    (200, {"read": True, "nothing": None, "in": [{"a": None}]}, 200, {"read": True, "in": [{}]}),
    (200, {"data": [1, None]}, 200, {"data": [1, None]}),
    (500, {"error": "KeyError : 'secret'"}, 500, "the model failed"),
    (404, {"detail": "Not Found"}, 404, "Not Found"),
    (422, {"detail": [{"loc": ["body", "inputs"], "msg": "is missing"}]}, 400, "inputs: is miss"),
    (422, {"detail": [{"loc": ["body", 17], "msg": "JSON decode error"}]}, 400, "body: JSON dec"),
    (422, {}, 400, "cannot be answered"),
    (404, {"error": ""}, 404, "cannot be answered"),
    (400, {"error": "pixels: is missing"}, 400, "pixels: is missing"),
]


@pytest.mark.parametrize(("status", "document", "wanted", "said"), MENDED)
def test_the_stock_answers_get_the_protocols_form(
    status: int, document: object, wanted: int, said: object
):
    """Every error is one sentence under ``error``, 422 is 400, and no field is null."""
    found = ask(Mended(answering(document, status)), "GET", "/v2/models/m")

    assert found.status_code == wanted
    if status == 200:
        assert found.json() == said
    else:
        assert list(found.json()) == ["error"]
        assert str(said) in found.json()["error"]


def test_what_is_no_json_passes_the_mending_as_it_is():
    """Bytes of a binary answer are not read."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"a":null}', "more_body": True})
        await send({"type": "http.response.body", "body": b"\x00"})

    assert ask(Mended(app), "GET", "/v2").content == b'{"a":null}\x00'


@pytest.mark.parametrize(
    ("method", "path"), [("POST", INFER), ("GET", "/v2/models/digits/versions/4/ready")]
)
def test_kserve_is_asked_for_no_prediction_and_no_version(method: str, path: str):
    """It would read the body of an unknown model first, and fail where a version is named."""
    found = ask(Mended(broken), method, path)

    assert found.status_code == 404
    assert "no such model" in found.json()["error"]


def test_every_answer_says_who_gave_it_and_to_what():
    """Refused, failed or described: version and slot, and the id that came if it was a word."""
    said = [(b"x-penstock-version", b"3"), (b"x-penstock-slot", b"b")]
    app = Hardened(broken, ENDPOINT, document={}, said=said)
    ways = [("GET", "/docs"), ("PUT", INFER), ("POST", INFER), ("GET", "/openapi.json")]
    for number, (method, path) in enumerate(ways):
        headers = {"x-request-id": f"r-{number}"}
        found = ask(app, method, path, headers=headers).headers
        assert (found["x-penstock-version"], found["x-penstock-slot"]) == ("3", "b")
        assert found["x-request-id"] == f"r-{number}"
    app.drain()
    found = ask(app, "POST", INFER, headers={"x-request-id": "two words"}).headers
    assert found["x-penstock-version"] == "3"
    assert " " not in found["x-request-id"]
    mended = ask(Mended(answering({}), said=said), "GET", "/v1/models").headers
    assert mended["x-penstock-slot"] == "b"


def test_whoever_wants_to_know_is_told_of_the_end():
    """Metrics say that no new requests are taken from the moment that none are."""
    told: list[bool] = []
    app = Hardened(broken, ENDPOINT, told=lambda: told.append(app.draining))
    assert told == []

    app.drain()

    assert told == [True]
