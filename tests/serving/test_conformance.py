"""The protocol, judged from outside: published schemas and other people's clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from jsonschema import Draft202012Validator
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.errors import BadRequestError, NotFoundError
from open_inference.openapi.types import (
    InferenceErrorResponse,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
)
from tritonclient.utils import InferenceServerException

from penstock import workload as workloads
from penstock.register.contract import contract_of
from penstock.request import instances, v1_request, v2_request
from penstock.runtimes.onnxruntime import OnnxModel
from serving.openapi import document
from serving.reading import Names
from tests.packages import DIGITS, body, table
from tests.serving.conftest import INFER, PREDICT, ROWS, Running
from tests.serving.tables import rows
from workloads.digits.transform import request_input


@pytest.fixture(scope="module")
def right(running: Running) -> tuple[list[int], np.ndarray]:
    """What the package's own graph says: labels, and probabilities [2, 10]."""
    logits = OnnxModel(running.package / "model.onnx").run(request_input(table(ROWS)))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return logits.argmax(axis=1).tolist(), shifted / shifted.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def published(running: Running) -> Iterator[OpenInferenceClient]:
    """The client generated from the protocol's own document."""
    with httpx.Client() as client:
        yield OpenInferenceClient(base_url=running.url, httpx_client=client)


def test_the_published_client_reads_health_and_metadata(published: OpenInferenceClient):
    """Live, ready, server and model metadata are as the protocol's document has them."""
    published.check_server_liveness()
    published.check_server_readiness()
    published.check_model_readiness("digits")
    server, model = published.read_server_metadata(), published.read_model_metadata("digits")

    assert (model.name, [t.name for t in model.inputs or ()]) == ("digits", ["pixels"])
    assert [(t.name, t.datatype, t.shape) for t in model.outputs or ()] == [
        ("label", "INT64", [-1]),
        ("probability", "FP32", [-1, 10]),
    ]
    assert server.name
    assert server.version


def test_the_published_client_gets_answers_and_refusals(
    published: OpenInferenceClient, right: tuple[list[int], np.ndarray]
):
    """An inference by the document's own classes is answered, and a wrong one refused by them."""
    request = InferenceRequest.parse_raw(body(ROWS))

    answer = published.model_infer("digits", request=request)

    assert (answer.id, answer.model_name, answer.model_version) == ("r", "digits", "3")
    outputs = {o.name: o for o in answer.outputs}
    assert outputs["label"].data.__root__ == right[0]
    found = np.reshape(outputs["probability"].data.__root__, (2, 10))
    np.testing.assert_allclose(found, right[1], atol=1e-5)
    with pytest.raises(NotFoundError):
        published.check_model_readiness("letters")
    with pytest.raises(BadRequestError):
        published.model_infer("digits", request=InferenceRequest.parse_raw(body(ROWS, name="x")))


READ = {
    "/v2": (MetadataServerResponse, "ServerMetadataResponse"),
    "/v2/models/digits": (MetadataModelResponse, "ModelMetadataResponse"),
    "/v2/health/live": (None, "ServerLiveResponse"),
    "/v2/health/ready": (None, "ServerReadyResponse"),
    "/v2/models/digits/ready": (None, "ModelReadyResponse"),
    "/v2/models": (None, "ListModelsResponse"),
}


@pytest.mark.parametrize("path", READ)
def test_what_is_read_has_the_published_form_without_a_null(running: Running, path: str):
    """Published classes and KServe's accept it, and no field is null, which no schema allows."""
    from kserve.protocol.rest import v2_datamodels  # noqa: PLC0415 - takes seconds

    answer = running.client.get(path)
    published, kserves = READ[path]

    assert answer.status_code == 200
    assert "null" not in answer.text
    if published is not None:
        published.parse_raw(answer.content)
    getattr(v2_datamodels, kserves).model_validate_json(answer.content)


def test_an_answer_has_the_form_that_kserve_has(running: Running):
    """The lean path's answer is one that the stock server's own class accepts, fields and all."""
    from kserve.protocol.rest.v2_datamodels import InferenceResponse as Kserves  # noqa: PLC0415

    answer = running.client.post(INFER, content=body(ROWS))

    InferenceResponse.parse_raw(answer.content)
    said = Kserves.model_validate_json(answer.content).model_dump(exclude_none=True)
    assert said == json.loads(answer.content)


REFUSED = {
    "another model": ("/v2/models/letters/infer", body(ROWS), 404),
    "no model": ("/v2/models", body(ROWS), 405),
    "no json": (INFER, b"{", 400),
    "no inputs": (INFER, b"{}", 400),
    "another type": (INFER, body(ROWS, datatype="BYTES"), 400),
    "an old protocol's model": ("/v1/models/letters:predict", b'{"instances": [[1]]}', 404),
    "no instances": (PREDICT, b"{}", 400),
    "another version": ("/v2/models/digits/versions/4/infer", body(ROWS), 404),
    "another model without inputs": ("/v2/models/letters/infer", b"{}", 404),
    "an unknown option": (INFER, b'{"parameters": {"timeout": 9}, ' + body(ROWS)[1:], 400),
}


@pytest.mark.parametrize(("path", "content", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_every_refusal_is_the_published_error(
    running: Running, path: str, content: bytes, status: int
):
    """Whoever refuses, the lean path or the stock server behind it, the form is one."""
    answer = running.client.post(path, content=content)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert InferenceErrorResponse.parse_raw(answer.content).error


@pytest.fixture(scope="module")
def nvidia(running: Running) -> Iterator[triton.InferenceServerClient]:
    """NVIDIA's client."""
    client = triton.InferenceServerClient(f"127.0.0.1:{running.port}")
    yield client
    client.close()


def test_nvidias_client_reads_health_and_metadata(nvidia: triton.InferenceServerClient):
    """It finds the server live, the model ready, another not, and the tensors as declared."""
    assert nvidia.is_server_live()
    assert nvidia.is_server_ready()
    assert nvidia.is_model_ready("digits")
    assert not nvidia.is_model_ready("letters")
    assert nvidia.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert nvidia.is_model_ready("digits", "3")
    assert not nvidia.is_model_ready("digits", "4")
    assert nvidia.get_model_metadata("digits", "3")["versions"] == ["3"]
    (tensor,) = nvidia.get_model_metadata("digits")["inputs"]
    assert tensor == {"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}


@pytest.mark.parametrize("sent", [True, False], ids=["bytes", "json"])
@pytest.mark.parametrize("wanted", [True, False, None], ids=["bytes", "json", "all"])
def test_nvidias_client_is_answered_in_every_form(
    nvidia: triton.InferenceServerClient,
    right: tuple[list[int], np.ndarray],
    sent: bool,
    wanted: bool | None,
):
    """JSON or bytes, there and back, in all combinations: the same labels and probabilities."""
    tensor = triton.InferInput("pixels", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=sent)
    outputs = None
    if wanted is not None:
        names = ("probability", "label")
        outputs = [triton.InferRequestedOutput(name, binary_data=wanted) for name in names]

    found = nvidia.infer("digits", [tensor], outputs=outputs, request_id="n-1")

    assert found.as_numpy("label").tolist() == right[0]
    np.testing.assert_allclose(found.as_numpy("probability"), right[1], atol=1e-5)
    assert found.get_response()["id"] == "n-1"


def test_nvidias_client_is_given_the_outputs_it_asks_for(nvidia: triton.InferenceServerClient):
    """One output, in bytes beside one in JSON, and a sentence for one that does not exist."""
    tensor = triton.InferInput("pixels", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS)

    def ask(*outputs: tuple[str, bool]) -> triton.InferResult:
        wanted = [triton.InferRequestedOutput(n, binary_data=b) for n, b in outputs]
        return nvidia.infer("digits", [tensor], outputs=wanted)

    mixed = ask(("label", False), ("probability", True))
    assert mixed.as_numpy("label").shape == (2,)
    assert mixed.as_numpy("probability").shape == (2, 10)
    assert ask(("label", True)).as_numpy("probability") is None
    with pytest.raises(InferenceServerException, match="'score' is not among"):
        ask(("score", True))


def test_kserves_client_is_answered(running: Running, right: tuple[list[int], np.ndarray]):
    """KServe's own client asks both protocols, and whether server and model are ready."""
    from kserve import InferenceRESTClient, RESTConfig  # noqa: PLC0415 - takes seconds
    from kserve.protocol.infer_type import InferInput, InferRequest  # noqa: PLC0415

    tensor = InferInput("pixels", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=False)

    async def ask(protocol: str, data: Any) -> Any:
        client = InferenceRESTClient(RESTConfig(protocol=protocol))
        try:
            assert await client.is_server_live(running.url)
            assert protocol == "v1" or await client.is_server_ready(running.url)
            assert await client.is_model_ready(running.url, "digits")
            return await client.infer(running.url, data, model_name="digits")
        finally:
            await client.close()

    two = asyncio.run(ask("v2", InferRequest("digits", [tensor])))
    one = asyncio.run(ask("v1", {"instances": ROWS.tolist()}))

    assert {o.name: o.data for o in two.outputs}["label"] == right[0]
    assert [p["label"] for p in one["predictions"]] == right[0]


def validator(described: dict[str, Any], name: str) -> Draft202012Validator:
    """Return what judges a document by one of our schemas."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_what_we_say_of_ourselves_is_what_we_do(running: Running):
    """Requests and answers of both protocols are as our own description has them."""
    described = running.client.get("/openapi.json").json()
    one, two = {"instances": ROWS.tolist()}, json.loads(body(ROWS))

    assert described == document(Names(DIGITS, None), name="digits", version="3")
    for path, asked, kind in ((PREDICT, one, "V1"), (INFER, two, "V2")):
        validator(described, f"{kind}Request").validate(asked)
        answer = running.client.post(path, json=asked)
        validator(described, f"{kind}Response").validate(answer.json())
        refused = running.client.post(path, json={})
        validator(described, "Error").validate(refused.json())
        said = described["paths"][path]["post"]["responses"]["200"]["headers"]
        assert {name for name, one in said.items() if one["required"]} <= set(answer.headers)


@pytest.mark.parametrize("workload", ["digits", "credit", "streamrec"])
def test_a_description_takes_what_the_contract_takes(workload: str):
    """Rows of the workload fit its schemas; one field missing or of another kind does not."""
    contract = contract_of(workloads.load(workload))
    described = document(Names(contract, None), name="m", version="1")
    held = instances(contract, rows(contract, 3))
    one, two = v1_request(contract, held), v2_request(contract, held)

    v1, v2 = validator(described, "V1Request"), validator(described, "V2Request")
    assert v1.is_valid(one)
    assert v2.is_valid(two)
    assert not v1.is_valid({"instances": []})
    assert not v2.is_valid({**two, "inputs": [{**two["inputs"][0], "datatype": "BOOL"}]})
    for name in contract.names:
        rest = [{n: v for n, v in row.items() if n != name} for row in held]
        texts = [{**row, name: "7"} for row in held]
        assert not v1.is_valid({"instances": rest})
        assert not v1.is_valid({"instances": texts})
