"""Laws of the lean path: it answers and refuses as KServe's own server would, and never fails."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import workload as workloads
from penstock.endpoint import Endpoint
from penstock.register.contract import contract_of
from penstock.request import instances, v1_request, v2_request
from serving.answering import Answering
from serving.batching import Batching
from serving.hardened import BEGUN, Hardened, Receive, Scope, Send, refuse
from serving.package import Served
from serving.path import Path
from serving.reading import Asked, Names
from serving.seen import Seen
from tests.serving import tables
from tests.strategies import plain_values

pytestmark = pytest.mark.filterwarnings("ignore::fastapi.exceptions.FastAPIDeprecationWarning")
"""Of KServe's own server."""

NAME = "streamrec"
CONTRACT = contract_of(workloads.load(NAME))
SENT = instances(CONTRACT, tables.rows(CONTRACT, 4, seed=5))
ONE, TWO = v1_request(CONTRACT, SENT), v2_request(CONTRACT, SENT, request_id="mine")
V1, V2 = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"
LENGTH = "inference-header-content-length"
BOTH = {"parameters": {"binary_data_output": True}}


async def elsewhere(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer in the place of KServe's application."""
    await refuse(send, 418, "elsewhere")


class Servers:
    """The same package behind the lean path, and under KServe's own server."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.seen: list[Seen] = []
        names, self.answering = Names(served.contract, None), Answering(served, version="3")
        batching = Batching(self.answering.run, most=64, timeout_ms=60_000)
        self.lean = Path(
            elsewhere, names, self.answering, batching, name=NAME, told=[self.seen.append]
        )
        self.stock = _stock(names, self.answering)

    def ask(self, path: str, content: bytes, **headers: str) -> list[httpx.Response]:
        """Return the lean answer and the stock one."""
        said = {"content-type": "application/json", **headers}
        return [_ask(app, "POST", path, content, said) for app in (self.lean, self.stock)]

    def ask_lean(self, path: str, content: bytes, headers: Mapping[str, str] | None = None) -> Any:
        """Return the lean answer alone."""
        return _ask(self.lean, "POST", path, content, headers or {})


def _stock(names: Names, answering: Answering) -> Any:
    sys.argv = sys.argv[:1]  # KServe reads it when it is imported
    from kserve import ModelRepository, ModelServer  # noqa: PLC0415
    from kserve.model_server import app  # noqa: PLC0415
    from kserve.protocol.rest.server import RESTServer  # noqa: PLC0415

    from serving.model import PackageModel  # noqa: PLC0415

    held = ModelServer(registered_models=ModelRepository(), enable_grpc=False)
    held.register_model(PackageModel(NAME, names, answering))
    RESTServer(
        "kserve.model_server:app", held.dataplane, held.model_repository_extension, http_port=0
    ).create_application()
    return app


def _package_model(names: Names, answering: Answering) -> Any:
    from serving.model import PackageModel  # noqa: PLC0415

    return PackageModel(NAME, names, answering)


def _ask(
    app: Any, method: str, path: str, content: bytes, headers: Mapping[str, str]
) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, content=content, headers=headers)

    return asyncio.run(asked())


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Servers:
    """A real package, loaded once."""
    return Servers(Served(tables.make_package(tmp_path_factory.mktemp("path") / "p", NAME).path))


def outputs(answer: httpx.Response) -> dict[str, list[float]]:
    """Return a v2 answer's outputs as numbers, JSON or bytes."""
    assert answer.status_code == 200, answer.text
    of_json = int(answer.headers.get(LENGTH, len(answer.content)))
    document, raw = json.loads(answer.content[:of_json]), answer.content[of_json:]
    assert (document["id"], document["model_name"], document["model_version"]) == (
        "mine",
        NAME,
        "3",
    )
    found: dict[str, list[float]] = {}
    for output in document["outputs"]:
        kind = np.dtype({"INT64": "<i8", "FP32": "<f4"}[output["datatype"]])
        data = output.get("data")
        if data is None:
            size = output["parameters"]["binary_data_size"]
            data, raw = np.frombuffer(raw[:size], kind), raw[size:]
        values = np.array(data, kind)
        assert values.size == np.prod(output["shape"])
        found[output["name"]] = values.tolist()
    assert not raw
    return found


WANTS: dict[str, dict[str, Any]] = {
    "all": {},
    "one": {"outputs": [{"name": "probability"}]},
    "bytes": BOTH,
    "one as bytes": {"outputs": [{"name": "label", "parameters": {"binary_data": True}}]},
    "one of each": {
        "outputs": [{"name": "label"}, {"name": "probability", "parameters": {"binary_data": True}}]
    },
}


@pytest.mark.parametrize("wanted", WANTS.values(), ids=WANTS.keys())
@pytest.mark.parametrize("as_bytes", [False, True])
def test_v2_answers_are_those_of_kserves_own_server(
    servers: Servers, wanted: dict[str, Any], as_bytes: bool
):
    """In JSON or bytes, asked and answered: the same outputs with the same numbers."""
    document = {**TWO, **wanted}
    if as_bytes:
        content, length = tables.binary(document)
        kind = "application/octet-stream"
        both = servers.ask(V2, content, **{LENGTH: str(length), "content-type": kind})
    else:
        both = servers.ask(V2, json.dumps(document).encode())

    lean, stock = map(outputs, both)

    assert lean == stock
    assert list(lean) == [n["name"] for n in wanted.get("outputs", ())] or len(lean) == 2
    assert (LENGTH in both[0].headers) == (LENGTH in both[1].headers)


def test_v1_answers_are_those_of_kserves_own_server(servers: Servers):
    """Label and probabilities, row by row."""
    lean, stock = (a.json()["predictions"] for a in servers.ask(V1, json.dumps(ONE).encode()))

    assert [p["label"] for p in lean] == [p["label"] for p in stock]
    chances = [np.array([p["probability"] for p in said], np.float32) for said in (lean, stock)]
    np.testing.assert_array_equal(*chances)


def test_the_headers_of_an_answer_are_those_of_kserves_own_server(servers: Servers):
    """Who answered what is said in either, under the id that came."""
    for path, document in ((V1, ONE), (V2, TWO)):
        both = servers.ask(path, json.dumps(document).encode(), **{"x-request-id": "r-1"})
        for answer in both:
            said = {k: v for k, v in answer.headers.items() if k.startswith("x-")}
            assert said == {
                "x-penstock-version": "3",
                "x-penstock-slot": "a",
                "x-request-id": "r-1",
            }


def with_fields(name: str, /, **over: Any) -> dict[str, Any]:
    """Return a v2 body with fields of one tensor replaced."""
    return {"inputs": [{**t, **over} if t["name"] == name else t for t in TWO["inputs"]]}


WRONG: dict[str, dict[str, Any]] = {
    "missing": with_fields("taste", name="tsate"),
    "twice": with_fields("taste", name="user_id"),
    "type": with_fields("taste", datatype="BOOL"),
    "fraction": with_fields("category", data=[1, 1.5, 1, 1]),
    "text": with_fields("category", data=["1", "1", "1", "1"]),
    "null": with_fields("mobile", data=[None, 1, 1, 1]),
    "range": with_fields("category", data=[9, 9, 9, 9]),
    "shape": with_fields("taste", shape=[4, 1]),
    "negative": with_fields("taste", shape=[-4]),
    "too few": with_fields("taste", data=[0.5]),
    "too many": with_fields("taste", data=[0.5] * 5),
    "nested": with_fields("taste", data=[[[0.5]]] * 4),
    "ragged": with_fields("taste", data=[0.5, [0.5], 0.5, 0.5]),
    "endless": with_fields("user_id", data=[2**63, 1, 1, 1]),
    "output": {**TWO, "outputs": [{"name": "score"}]},
    "nothing": {"inputs": []},
}


@pytest.mark.parametrize("document", WRONG.values(), ids=WRONG.keys())
def test_refusals_are_those_of_kserves_own_server(servers: Servers, document: dict[str, Any]):
    """The same status and the same sentence, which names the field."""
    lean, stock = servers.ask(V2, json.dumps(document).encode())

    assert (lean.status_code, lean.json()) == (400, stock.json())
    assert stock.status_code == 400
    assert lean.json()["error"].split(":")[0] in {*CONTRACT.names, "outputs"}


@pytest.mark.parametrize(
    "row", [{"category": "3"}, {"taste": 7}, {"x": 1}, {"mobile": None}, {"user_id": 1.5}]
)
def test_v1_refusals_are_those_of_kserves_own_server(servers: Servers, row: dict[str, Any]):
    """As in v2."""
    lean, stock = servers.ask(V1, json.dumps({"instances": [{**SENT[0], **row}]}).encode())

    assert (lean.status_code, stock.status_code) == (400, 400)
    assert lean.json() == stock.json()
    assert lean.json()["error"].startswith(f"{next(iter(row))}:")


def changed(document: Any) -> st.SearchStrategy[Any]:
    """Return a document with one value anywhere in it replaced by anything."""
    return st.builds(
        _replaced, st.just(document), st.lists(st.integers(0, 99), max_size=5), ANYTHING
    )


ANYTHING = plain_values | st.floats() | st.integers() | st.sampled_from([10**30, [[]], {"name": 1}])


def _replaced(document: Any, way: list[int], value: Any) -> Any:
    if not way or not isinstance(document, dict | list) or not document:
        return value
    keys = list(document) if isinstance(document, dict) else range(len(document))
    key = keys[way[0] % len(keys)]
    copied: Any = document.copy()
    copied[key] = _replaced(document[key], way[1:], value)
    return copied


def check_refused(answer: httpx.Response) -> None:
    """Fail unless a request was answered, or refused in a sentence."""
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert ":" in answer.json()["error"]


@given(changed(ONE) | changed({**TWO, **BOTH, "outputs": [{"name": "label"}]}) | ANYTHING)
def test_no_json_makes_the_server_fail(servers: Servers, document: Any):
    """Valid but for one value, or nothing like a request: answered, or refused with 400."""
    content = json.dumps(document).encode("utf-8", "surrogatepass")

    for path in (V1, V2):
        check_refused(servers.ask_lean(path, content))


BINARY, OF_JSON = tables.binary(TWO)


@given(st.data())
def test_no_bytes_make_the_server_fail(servers: Servers, data: st.DataObject):
    """A binary request with bytes changed, lost or added, and any length: answered or refused."""
    at, count = data.draw(st.integers(0, len(BINARY))), data.draw(st.integers(0, 30))
    content = BINARY[:at] + data.draw(st.binary(max_size=30)) + BINARY[at + count :]
    length = data.draw(
        st.just(OF_JSON) | st.integers(-9, 2 * len(BINARY)) | st.text("0123456789x ")
    )
    headers = {LENGTH: str(length)}

    for path, sent in ((V2, content), (V2, data.draw(st.binary())), (V1, content)):
        check_refused(servers.ask_lean(path, sent, headers))


SAID = ("x-request-id", "x-user-id", "x-rollout-bucket", "traceparent", "x-rollout-arm", "host")


@given(st.dictionaries(st.sampled_from(SAID), st.binary(max_size=300)))
def test_no_header_makes_the_server_fail(servers: Servers, headers: dict[str, bytes]):
    """What the edge or a client says of a request is kept in bounds, never obeyed."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": V1,
        "headers": [(k.encode(), v) for k, v in headers.items()],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(ONE).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(servers.lean(scope, receive, send))

    assert sent[0]["status"] == 200
    assert all(len(value) <= 200 for _, value in sent[0]["headers"])


def test_a_client_that_hangs_up_before_its_body_came_is_not_answered(servers: Servers):
    """Nothing is sent, nothing is logged: there was no request yet."""
    before, sent = len(servers.seen), []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": V1, "headers": []}
    asyncio.run(servers.lean(scope, receive, send))

    assert (sent, len(servers.seen)) == ([], before)


def test_a_body_in_pieces_is_the_same_body(servers: Servers):
    """Pieces are put together, in their order."""
    pieces, sent = [bytes([b]) for b in json.dumps(ONE).encode()], []

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": V1, "headers": []}
    asyncio.run(servers.lean(scope, receive, send))

    assert sent[0]["status"] == 200


STATES = (
    "/",
    f"/v1/models/{NAME}",
    f"/v2/models/{NAME}/ready",
    "/v2/health/live",
    "/v2/health/ready",
)


@pytest.mark.parametrize("path", STATES)
def test_the_states_are_those_of_kserves_own_server(servers: Servers, path: str):
    """Who asks whether we are ready reads the same."""
    lean, stock = (_ask(app, "GET", path, b"", {}) for app in (servers.lean, servers.stock))

    assert (lean.status_code, lean.json()) == (200, stock.json())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", V2),
        ("GET", "/v2/models"),
        ("POST", "/v2/models/other/infer"),
        ("GET", "/v2/models/other"),
        ("POST", f"/v2/models/{NAME}/versions/4/infer"),
        ("GET", f"/v2/models/{NAME}/versions/4/ready"),
    ],
)
def test_all_other_routes_are_handed_on(servers: Servers, method: str, path: str):
    """The lean path answers for its own model and nothing else."""
    assert _ask(servers.lean, method, path, b"", {}).status_code == 418


def test_its_own_version_is_a_route_too(servers: Servers):
    """What is asked of the version that is served is answered as without it."""
    content, of_version = json.dumps(TWO).encode(), f"/v2/models/{NAME}/versions/3"

    assert outputs(servers.ask_lean(f"{of_version}/infer", content)) == outputs(
        servers.ask_lean(V2, content)
    )
    for path in ("", "/ready"):
        both = [f"/v2/models/{NAME}{path}", f"{of_version}{path}"]
        one, two = (_ask(servers.lean, "GET", each, b"", {}).json() for each in both)
        assert one == two


def test_the_metadata_say_which_version_and_what_runs_it(servers: Servers):
    """A client finds versions, a platform, and only the extensions that there are."""
    model = _ask(servers.lean, "GET", f"/v2/models/{NAME}", b"", {}).json()
    server = _ask(servers.lean, "GET", "/v2", b"", {}).json()

    assert (model["versions"], model["platform"]) == (["3"], "onnxruntime_onnx")
    assert server["extensions"] == ["binary_tensor_data"]


def test_a_compressed_body_is_refused_as_one(servers: Servers):
    """415 names the header; a body that says it is plain is read."""
    content = json.dumps(TWO).encode()
    refused = servers.ask_lean(V2, gzip.compress(content), {"content-encoding": "gzip"})
    plain = servers.ask_lean(V2, content, {"content-encoding": "identity"})

    assert (refused.status_code, plain.status_code) == (415, 200)
    assert refused.json()["error"].startswith("content-encoding:")


@pytest.mark.parametrize("came", [b"a b", b"x" * 201, b"a\tb", b"caf\xe9", b"a\x7f"])
def test_an_id_that_is_no_word_is_replaced_and_never_repeated(servers: Servers, came: bytes):
    """Its hash stands for it in answer and log, the same at every server."""
    told = [_told(servers, [(b"x-request-id", came)]) for _ in range(2)]

    ids = {seen.request_id for seen, _ in told}
    assert len(ids) == 1
    (request_id,) = ids
    assert request_id.isalnum()
    assert len(request_id) == 32
    assert all(dict(start["headers"])[b"x-request-id"] == request_id.encode() for _, start in told)


def _told(servers: Servers, headers: list[tuple[bytes, bytes]], **more: Any) -> tuple[Seen, Any]:
    """Return what is told of a request with these raw headers, and the start of its answer."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(ONE).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": V1, "headers": headers, **more}
    asyncio.run(servers.lean(scope, receive, send))
    return servers.seen[-1], sent[0]


def test_a_user_is_kept_whole(servers: Servers):
    """Whatever bytes and however long: two users who begin alike are two, and nobody is none."""
    ann, bob = b"\xc3\xa4" * 150 + b"ann", b"\xc3\xa4" * 150 + b"bob"

    found = [_told(servers, [(b"x-user-id", user)])[0].user for user in (ann, bob, b"")]

    assert found == [ann, bob, None]


def test_what_a_transformer_made_up_is_told(servers: Servers):
    """Its stand-ins and stale features come in headers; log and answer name them."""
    said = [(b"x-rollout-fallback", b"values,"), (b"x-rollout-stale", b"age,income")]

    seen, start = _told(servers, said)

    assert (seen.fallbacks, seen.stale) == (["values"], ["age", "income"])
    assert dict(start["headers"])[b"x-penstock-fallback"] == b"values"
    assert _told(servers, [])[0].fallbacks == []


def test_waiting_for_the_server_is_time_of_the_request(servers: Servers):
    """Its time begins when it was whole, however late its turn came."""
    seen, _ = _told(servers, [], **{BEGUN: time.perf_counter() - 2})

    assert 2000 < seen.latency_ms < 60_000


def test_the_id_in_the_body_names_a_request_that_has_no_other(servers: Servers):
    """A client of the protocol has no header to send: its id finds the prediction."""
    content = json.dumps(TWO).encode()

    first = servers.ask_lean(V2, content).headers["x-request-id"]
    second = servers.ask_lean(V2, content, {"x-request-id": "other"}).headers["x-request-id"]

    assert (first, second) == ("mine", "other")


@pytest.mark.parametrize("failure", [RuntimeError("no"), asyncio.CancelledError()])
def test_an_answer_that_cannot_be_sent_is_told_as_a_failure(
    servers: Servers, failure: BaseException
):
    """Log and metrics know of a request whose answer never left."""
    servers.seen.clear()

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(ONE).encode()}

    async def send(_message: Any) -> None:
        raise failure

    scope = {"type": "http", "method": "POST", "path": V1, "headers": []}
    with pytest.raises(type(failure)):
        asyncio.run(servers.lean(scope, receive, send))

    (seen,) = servers.seen
    assert (seen.status, seen.latency_ms > 0) == (500, True)


def test_where_no_batching_pays_too_many_are_refused_and_others_answered(servers: Servers):
    """A slow model blocks the loop; those who wait count, and who asks how we are is answered."""

    class Slow:
        contract = CONTRACT
        ran = 0

        def infer(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
            time.sleep(0.002)
            self.ran += 1
            return np.zeros((len(columns["taste"]), 2), np.float32)

    slow, before = Slow(), list[int]()
    answering = Answering(slow, version="3")
    batching = Batching(answering.run, most=1, timeout_ms=60_000)
    lean = Path(elsewhere, Names(CONTRACT, None), answering, batching, name=NAME)
    app: Any = Hardened(lean, Endpoint(max_in_flight=8))

    async def ask_all() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:

            async def probe() -> None:
                assert (await client.get("/v2/health/ready")).status_code == 200
                before.append(slow.ran)

            asked = [client.post(V1, json=ONE) for _ in range(50)]
            answers, _ = await asyncio.gather(asyncio.gather(*asked), probe())
            return sorted(answer.status_code for answer in answers)

    assert asyncio.run(ask_all()) == [200] * 8 + [429] * 42
    assert before[0] < 8


@pytest.mark.parametrize("status", [400, 404, 503])
def test_a_refused_look_up_is_the_same_refusal_under_kserves_own_server(
    servers: Servers, status: int
):
    """What the look-up refuses is no failure of the model, whichever server says so."""

    class Refusing:
        def complete(self, batch: Sequence[Asked]) -> None:
            for asked in batch:
                asked.refusal = (status, "card: nobody knows it")

    names = Names(CONTRACT, None)
    answering = Answering(servers.served, version="3", features=Refusing())
    model = _package_model(names, answering)
    asked = asyncio.run(model.preprocess(ONE))
    asked.needs = True

    with pytest.raises(Exception, match="card: nobody knows it") as raised:
        asyncio.run(model.predict(asked))

    kinds = {400: "InvalidInput", 404: "HTTPException", 503: "ModelNotReady"}
    assert type(raised.value).__name__ == kinds[status]


def test_what_was_answered_is_told_once(servers: Servers):
    """Status, latency, columns, labels and where the time went, answered or refused."""
    servers.seen.clear()

    servers.ask_lean(V2, json.dumps(TWO).encode(), {"x-request-id": "good"})
    servers.ask_lean(V1, b"{", {"x-request-id": "bad"})

    good, bad = servers.seen
    assert (good.request_id, good.status, bad.request_id, bad.status) == ("good", 200, "bad", 400)
    assert (good.label is None, bad.label) == (False, None)
    assert set(good.spent_us) == {"read", "queue", "inference", "write"}
    assert sum(good.spent_us.values()) <= good.latency_ms * 1000
    assert min(good.latency_ms, bad.latency_ms) > 0


def test_the_parts_of_the_time_are_in_the_answer(servers: Servers):
    """A header of the standard form says the milliseconds of each part."""
    said = servers.ask_lean(V1, json.dumps(ONE).encode()).headers["server-timing"]

    parts = dict(part.split(";dur=") for part in said.split(", "))
    assert set(parts) == {"read", "queue", "inference", "write"}
    assert all(float(ms) >= 0 for ms in parts.values())
