"""Laws of the layer around the server, with small real applications inside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from serving.hardened import MAX_BODY, MAX_IN_FLIGHT, App, Hardened, Receive, Scope, Send, refuse

INFER = "/v2/models/digits/infer"


def client(app: App) -> httpx.AsyncClient:
    """Return a client of a hardened application."""
    inside = httpx.ASGITransport(app=Hardened(app))  # pyright: ignore[reportArgumentType]
    return httpx.AsyncClient(transport=inside, base_url="http://here")


async def answer(send: Send, document: object, status: int = 200) -> None:
    """Answer with a JSON document."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


async def reader(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, as a framework does: any error while reading is a bad request."""
    try:
        while (await receive()).get("more_body"):
            pass
    except Exception:  # noqa: BLE001 - that is what FastAPI does
        await refuse(send, 400, "could not be read")
        return
    await answer(send, {"read": True, "nothing": None})


async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Fail with a text that nobody outside may see."""
    raise RuntimeError("password=hunter2")


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(("size", "status"), [(MAX_BODY, 200), (MAX_BODY + 1, 413)])
def test_a_body_is_taken_up_to_the_limit(declared: bool, size: int, status: int):
    """The limit holds for a body that says its length and for one that comes in pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 65536):
            yield b"x" * min(65536, size - start)

    async def post() -> httpx.Response:
        async with client(reader) as c:
            return await c.post(INFER, content=b"x" * size if declared else pieces())

    assert asyncio.run(post()).status_code == status


def test_one_request_too_many_is_asked_to_come_back():
    """While as many as allowed are in flight the next gets 503; when one is done it is taken."""

    async def story() -> tuple[httpx.Response, list[int], int]:
        release = asyncio.Event()

        async def waits(_scope: Scope, _receive: Receive, send: Send) -> None:
            await release.wait()
            await answer(send, {})

        async with client(waits) as c:
            first = [asyncio.create_task(c.post(INFER)) for _ in range(MAX_IN_FLIGHT)]
            await asyncio.sleep(0.1)
            refused = await c.post(INFER)
            release.set()
            done = [r.status_code for r in await asyncio.gather(*first)]
            return refused, done, (await c.post(INFER)).status_code

    refused, done, after = asyncio.run(story())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert done == [200] * MAX_IN_FLIGHT
    assert after == 200


def test_an_exception_tells_the_client_nothing_and_the_log_its_request(
    caplog: pytest.LogCaptureFixture,
):
    """The answer is generic; the server's log has the request id and the reason."""

    async def post() -> httpx.Response:
        async with client(broken) as c:
            return await c.post(INFER, headers={"x-request-id": "rid-7"})

    found = asyncio.run(post())
    assert found.status_code == 500
    assert "hunter2" not in found.text
    assert "rid-7" in caplog.text
    assert "hunter2" in caplog.text


def test_answers_hold_no_nulls():
    """The protocol's schemas know no null; a field without a value is not sent."""

    async def post() -> httpx.Response:
        async with client(reader) as c:
            return await c.post(INFER)

    assert asyncio.run(post()).json() == {"read": True}


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/index",
        "/v2/repository/models/digits/load",
        "/v1/models/digits:explain",
        "/v2/models/digits/versions/3/infer",
        "/v2/models/digits/infer/",
        "/openai/v1/models",
        "/redoc",
        "//metrics",
    ],
)
def test_a_path_that_is_not_open_is_not_found(path: str):
    """What is not on the list never reaches the application, whatever it would do with it."""

    async def post() -> httpx.Response:
        async with client(broken) as c:
            return await c.post(f"http://here{path}")

    assert asyncio.run(post()).status_code == 404
