"""Requests made to break the parser: from our description, of broken bytes, and of any JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from penstock import workload as workloads
from penstock.register.contract import contract_of
from penstock.request import Contract, instances, v1_request, v2_request
from serving.openapi import document
from serving.reading import Names, read_v1, read_v2_binary, read_v2_json
from serving.seen import Seen
from tests.packages import DIGITS, body
from tests.serving.conftest import INFER, PREDICT, ROWS, Running
from tests.serving.tables import rows

DESCRIBED = document(Names(DIGITS, None), name="digits", version="3")
CONFORMS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
SEEDED = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


GOOD, BAD = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
ASKED = [(PREDICT, GOOD), (PREDICT, BAD), (INFER, GOOD), (INFER, BAD)]
TOLD = [path for path, said in DESCRIBED["paths"].items() if "get" in said]


def conforms(running: Running, path: str, mode: GenerationMode, checks: list[Any], n: int) -> None:
    """Send n made requests to a route; fail unless each check holds of each answer."""
    (operation,) = schemathesis.openapi.from_dict(DESCRIBED)[path].values()

    with requests.Session() as session:

        @settings(SEEDED, max_examples=n)
        @given(operation.as_strategy(generation_mode=mode))
        def asked(case: schemathesis.Case) -> None:
            answer = case.call(base_url=running.url, session=session)
            case.validate_response(answer, checks=checks)

        asked()


@pytest.mark.parametrize(("path", "mode"), ASKED)
def test_every_answer_to_a_made_request_is_as_described(
    running: Running, path: str, mode: GenerationMode
):
    """Whether it fits our description or not: never a 5xx, and every answer as described.

    What fits the first protocol's schema is answered 200. The second's cannot say that data are
    as many as their shape.
    """
    more = [positive_data_acceptance] if (path, mode) == (PREDICT, GOOD) else []
    conforms(running, path, mode, CONFORMS + more, 30)


@pytest.mark.parametrize("path", TOLD)
def test_what_is_told_of_the_server_is_as_described(running: Running, path: str):
    """Every route that is read answers 200 as our description has it, and takes only GET."""
    conforms(running, path, GOOD, [*CONFORMS, positive_data_acceptance, unsupported_method], 1)


FINE = st.floats(0, 16, width=32)
ANY = st.one_of(st.floats(width=32), st.sampled_from([math.nan, math.inf, -1.0, 17.0]))


@st.composite
def framed(draw: st.DrawFn) -> tuple[bytes, str]:
    """Return a binary request in which any of the lengths may be a lie, and its header."""
    count = draw(st.integers(0, 3))
    held = draw(st.lists(st.one_of(FINE, ANY), max_size=count * 64).map(np.float32))
    raw = held.tobytes() if draw(st.booleans()) else np.zeros((count, 64), np.float32).tobytes()
    sizes = st.one_of(
        st.just(len(raw)), st.integers(-5, 2000), st.sampled_from([2**31, 2**63, 10**30])
    )
    lengths = st.one_of(st.just([count, 64]), st.lists(sizes, max_size=4))
    names = st.one_of(st.just("pixels"), st.text(max_size=4))
    kinds = st.one_of(st.just("FP32"), st.sampled_from(["INT64", "FP64", "BYTES", "BOOL", "FP16"]))
    tensor = st.fixed_dictionaries(
        {"name": names, "shape": lengths, "datatype": kinds},
        optional={"parameters": st.fixed_dictionaries({"binary_data_size": sizes})},
    )
    head: dict[str, Any] = {"inputs": draw(st.lists(tensor, min_size=1, max_size=3))}
    if draw(st.booleans()):
        head["parameters"] = {"binary_data_output": draw(st.sampled_from([True, False, 1, None]))}
    said = json.dumps(head).encode()
    cut = draw(st.sampled_from([None, None, 1, 7]))
    length = draw(st.one_of(st.just(len(said)), st.integers(-3, len(said) + 400)))
    return (said + raw)[: -cut if cut else None], str(length)


@settings(SEEDED, max_examples=250)
@given(framed())
@example((body(ROWS), "99999999999999999999999"))
@example((body(ROWS), "１２"))
def test_a_lie_in_the_binary_framing_is_the_clients_mistake(
    running: Running, made: tuple[bytes, str]
):
    """Whatever lengths, sizes, shapes and types are said: answered, or refused with a sentence."""
    content, length = made
    headers = {"inference-header-content-length": length.encode()}

    answer = running.client.post(INFER, content=content, headers=headers)

    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert list(answer.json()) == ["error"]


def binary(tensors: list[dict[str, Any]], raw: bytes, **more: Any) -> tuple[bytes, dict[str, str]]:
    """Return a binary request as it should be framed."""
    head = json.dumps({"inputs": tensors, **more}).encode()
    return head + raw, {"inference-header-content-length": str(len(head))}


def tensor(shape: list[int], size: int, **over: Any) -> dict[str, Any]:
    """Return the description of a tensor whose bytes follow."""
    parameters = {"binary_data_size": size}
    return {
        "name": "pixels",
        "shape": shape,
        "datatype": "FP32",
        "parameters": parameters,
        **over,
    }


RAW = ROWS.tobytes()
LIES = {
    "cut off": ([tensor([2, 64], len(RAW))], RAW[:-1], "bytes were said"),
    "too much": ([tensor([2, 64], len(RAW))], RAW + b"x", "belong to no tensor"),
    "half a number": ([tensor([2, 64], len(RAW) - 1)], RAW[:-1], "no whole number"),
    "two of the same bytes": ([tensor([2, 64], len(RAW))] * 2, RAW, "pixels: came 2 times"),
    "more than there is": ([tensor([2**40, 64], 2**48)], RAW, "bytes were said"),
    "a size past all memory": ([tensor([2, 64], 2**62)], RAW, "bytes were said"),
    "a shape past all memory": ([tensor([2**60, 64], len(RAW))], RAW, "shape"),
    "a shape past 64 bits": ([tensor([10**30, 64], len(RAW))], RAW, "shape"),
    "a shape of many sizes": ([tensor([1] * 90, len(RAW))], RAW, "shape"),
    "a negative size": ([tensor([2, 64], -8)], RAW, "binary_data_size"),
    "not a number": ([tensor([1, 64], 256)], np.full(64, np.nan, "<f4").tobytes(), "finite"),
    "endless": ([tensor([1, 64], 256)], np.full(64, np.inf, "<f4").tobytes(), "pixels"),
    "another type": ([tensor([2, 64], len(RAW), datatype="FP64")], RAW, "FP32 was wanted"),
    "text": ([tensor([2, 64], len(RAW), datatype="BYTES")], RAW, "FP32 was wanted"),
    "no tensor beside one": ([tensor([2, 64], len(RAW)), 5], RAW, "inputs.1"),
    "no tensor beside two": ([*[tensor([2, 64], len(RAW))] * 2, 5], RAW * 2, "pixels"),
}


@pytest.mark.parametrize(("tensors", "raw", "said"), LIES.values(), ids=LIES.keys())
def test_each_lie_is_named(running: Running, tensors: list[Any], raw: bytes, said: str):
    """The sentence says which length, shape or value is wrong."""
    content, headers = binary(tensors, raw)

    answer = running.client.post(INFER, content=content, headers=headers)

    assert answer.status_code == 400
    assert said in answer.json()["error"]


@settings(SEEDED, max_examples=12)
@given(st.integers(1, 64), st.randoms(use_true_random=False))
def test_bytes_and_json_are_answered_the_same(running: Running, n: int, chance: Any):
    """For any rows a binary request and answer say what JSON says, to the last bit of a float."""
    held = np.array([[chance.uniform(0, 16) for _ in range(64)] for _ in range(n)], np.float32)
    whole = {"binary_data_output": True}
    content, headers = binary([tensor([n, 64], held.nbytes)], held.tobytes(), parameters=whole)

    said = running.client.post(INFER, content=body(held)).json()
    answer = running.client.post(INFER, content=content, headers=headers)

    length = int(answer.headers["inference-header-content-length"])
    first, second = json.loads(answer.content[:length])["outputs"]
    assert (first["parameters"], second["parameters"]) == (
        {"binary_data_size": 8 * n},
        {"binary_data_size": 40 * n},
    )
    raw, outputs = answer.content[length:], {o["name"]: o["data"] for o in said["outputs"]}
    assert np.frombuffer(raw[: 8 * n], "<i8").tolist() == outputs["label"]
    bits = np.array(outputs["probability"], np.float32).tobytes()
    assert raw[8 * n :] == bits


ODD = {
    "half a character in the id": b'{"id": "\\ud800", "inputs": %s}',
    "an id that is no text": b'{"id": 7, "inputs": %s}',
    "an output that is no text": b'{"outputs": [{"name": []}], "inputs": %s}',
    "outputs that are none": b'{"outputs": {"name": "label"}, "inputs": %s}',
    "half a character in an output": b'{"outputs": [{"name": "\\udfff"}], "inputs": %s}',
    "a parameter past all numbers": b'{"parameters": {"binary_data_output": 1e999}, "inputs": %s}',
}


@pytest.mark.parametrize("form", ODD.values(), ids=ODD.keys())
def test_odd_documents_are_no_failure(running: Running, form: bytes):
    """What only a lenient reader takes is answered in valid JSON or refused, never a 500."""
    inputs = json.dumps(json.loads(body(ROWS))["inputs"]).encode()

    answer = running.client.post(INFER, content=form % inputs)

    assert answer.status_code in (200, 400)
    assert answer.json()


CONTRACTS: Mapping[str, Contract] = {
    name: contract_of(workloads.load(name)) for name in ("digits", "credit", "streamrec")
}
WORDS = ["inputs", "instances", "name", "shape", "datatype", "data", "parameters", "outputs", "id"]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([10**30, -(2**63) - 1, 2**63, 1e308, "\ud800"]),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=3)), inner, max_size=4)
    ),
    max_leaves=12,
)


def read(names: Names, content: bytes, length: bytes | None, protocol: str) -> None:
    """Read a request by one of the three readers, which may raise a ValueError and nothing else."""
    seen = Seen({})
    try:
        if length is not None:
            read_v2_binary(names, content, length, seen)
        elif protocol == "v1":
            read_v1(names, content, seen)
        else:
            read_v2_json(names, content, seen)
    except ValueError:
        return


@settings(SEEDED, max_examples=150)
@given(st.sampled_from(sorted(CONTRACTS)), TREES, st.sampled_from(["v1", "v2"]), st.booleans())
def test_any_json_is_read_or_refused(workload: str, tree: Any, protocol: str, framed: bool):
    """For every workload's contract: whatever the JSON is, a reader reads it or says what not."""
    content = json.dumps(tree).encode()
    length = b"%d" % len(content) if framed else None

    read(Names(CONTRACTS[workload], None), content, length, protocol)


EXTREMES: list[Any] = [
    None,
    True,
    "",
    "\ud800",
    [],
    {},
    [[]],
    [None],
    -1,
    0.5,
    2**53 + 1,
    2**63,
    -(2**63) - 1,
    10**30,
    10**400,
    1e308,
    math.nan,
    math.inf,
]


@pytest.mark.parametrize("workload", CONTRACTS)
@pytest.mark.parametrize("request_of", [v1_request, v2_request])
@pytest.mark.parametrize("lenient", [False, True])
def test_a_good_request_with_one_part_replaced_is_read_or_refused(
    workload: str, request_of: Any, lenient: bool
):
    """Anything in the place of any part of a good request is read, or refused with a sentence.

    Also where a NaN elsewhere has it read by Python, which knows endless integers.
    """
    contract = CONTRACTS[workload]
    made = request_of(contract, instances(contract, rows(contract, 2)))
    protocol = "v1" if request_of is v1_request else "v2"
    if lenient:
        made["more"] = math.nan
    for holder, key in list(places(made)):
        kept = holder[key]
        for extreme in EXTREMES:
            holder[key] = extreme
            read(Names(contract, None), json.dumps(made).encode(), None, protocol)
        holder[key] = kept


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Return the places in a document, the first dozen of each list: what holds it, and where."""
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys)[:12]:
        yield tree, key
        yield from places(tree[key])


def test_nothing_of_this_moved_the_server(running: Running):
    """After all of it the process runs, answers, and holds no more memory than a server does."""
    large = b'{"inputs": [' + b'{"name": "a"},' * 40_000
    before = running.memory_mib()
    for _ in range(30):
        assert running.client.post(INFER, content=large).status_code == 400

    assert running.process.poll() is None
    assert running.client.post(INFER, content=body(ROWS)).status_code == 200
    assert running.memory_mib() < before + 64


def test_a_body_of_the_largest_size_is_answered_or_refused(running: Running):
    """One byte more than is taken is 413; a full body of garbage is 400."""
    most = DIGITS.endpoint.max_body_bytes
    with httpx.Client(base_url=running.url) as client:
        assert client.post(INFER, content=b"[" * most).status_code == 400
        assert client.post(INFER, content=b"[" * (most + 1)).status_code == 413
