"""The KServe model: the same answers as the lean path's, under any of KServe's own servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InferenceError, InvalidInput, ModelNotReady
from kserve.protocol.infer_type import RequestedOutput

from serving.answering import Answering
from serving.metadata import inputs, outputs
from serving.reading import Asked, Names, of_instances, of_tensors
from serving.seen import Seen
from serving.tensors import OUTPUTS, tensors
from serving.writing import answer_headers, answer_of

Payload = dict[str, Any] | InferRequest


class PackageModel(Model):
    """Answers with a package's model, one request at a time, in the loop's own thread."""

    def __init__(self, name: str, names: Names, answering: Answering) -> None:
        """Take a package that is warm and verified: ready from the start."""
        super().__init__(name, return_response_headers=True)
        self._names, self._answering = names, answering
        self.ready = True

    def load(self) -> bool:
        """Do nothing: the package was loaded before the server began."""
        return True

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the v2 metadata of the inputs, each with the type it is best sent as."""
        return inputs(self._names)

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the v2 metadata of the outputs."""
        return outputs(self._names)

    async def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, payload: Payload, headers: Mapping[str, str] | None = None
    ) -> Asked:
        """Return the request, read.

        Raises:
            InvalidInput: Anything about it is wrong; the text names the field.
        """
        given = {k.encode("latin-1"): v.encode("latin-1") for k, v in (headers or {}).items()}
        try:
            return _read(self._names, payload, Seen(given))
        except ValueError as e:
            raise InvalidInput(str(e)) from e

    async def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        payload: Asked,
        headers: Mapping[str, str] | None = None,  # noqa: ARG002 - KServe passes it
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """Return labels and probabilities in the protocol of the request.

        Raises:
            InferenceError: The model failed, and nothing stands in for it.
            ModelNotReady: Features could not be looked up, and nothing stands in for them.
            InvalidInput, HTTPException: The look-up refused it, as for an entity nobody knows.
        """
        answering = self._answering
        if answering.fault is not None:
            await answering.rehearse(payload)
        if payload.refusal is None:
            answering.run([payload])
        if response_headers is not None:
            said = [*answering.headers, *answer_headers(payload.seen)]
            response_headers.update({k.decode(): v.decode("latin-1") for k, v in said})
        if payload.refusal is not None:
            raise self._refusal(*payload.refusal)
        return self._answer(payload)

    def _refusal(self, status: int, sentence: str) -> Exception:
        """Return what KServe answers with the status, or with its own for one like it."""
        if status == 400:
            return InvalidInput(sentence)
        if status == 500:
            return InferenceError(sentence)
        if status == 503:
            return ModelNotReady(self.name, sentence)
        return HTTPException(status, sentence)

    async def postprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        result: dict[str, Any] | InferResponse,
        headers: Mapping[str, str] | None = None,  # noqa: ARG002 - KServe passes it
        response_headers: dict[str, str] | None = None,  # noqa: ARG002 - KServe passes it
    ) -> dict[str, Any] | InferResponse:
        """Return the answer as it is."""
        return result

    def _answer(self, asked: Asked) -> dict[str, Any] | InferResponse:
        labels, probability_nk = answer_of(asked)
        if asked.protocol == "v1":
            rows = zip(labels, probability_nk.tolist(), strict=True)
            return {"predictions": [{"label": n, "probability": p} for n, p in rows]}
        label = InferOutput("label", [len(labels)], "INT64", np.array(labels, np.int64))
        probability = InferOutput("probability", list(probability_nk.shape), "FP32", probability_nk)
        wanted = [name for name in OUTPUTS if not asked.outputs or name in asked.outputs]
        return InferResponse(
            asked.id or asked.seen.request_id,
            self.name,
            [label, probability],
            model_version=self._answering.version,
            requested_outputs=[
                RequestedOutput(name, {"binary_data": name in asked.binary}) for name in wanted
            ],
        )


def _read(names: Names, payload: object, seen: Seen) -> Asked:
    if isinstance(payload, InferRequest):
        document = {
            "id": payload.id,
            "inputs": [_input(given) for given in payload.inputs],
            "outputs": [
                {"name": one.name, "parameters": one.parameters}
                for one in payload.request_outputs or ()
            ],
            "parameters": payload.parameters,
        }
        return of_tensors(names, tensors(document, b""), document, seen)
    return of_instances(names, payload if isinstance(payload, dict) else {}, seen)


def _input(given: InferInput) -> dict[str, Any]:
    """Return an input as JSON has it, however KServe received it.

    Raises:
        ValueError: Its bytes are not as its type and shape say.
    """
    data = given.data
    try:
        held = data if isinstance(data, list) and data else given.as_numpy().ravel().tolist()
        values = [v.decode() if isinstance(v, bytes) else v for v in held]
    except (InvalidInput, TypeError, ValueError) as e:
        raise ValueError(f"{given.name}: {e}") from e
    return {
        "name": given.name,
        "shape": list(given.shape),
        "datatype": given.datatype,
        "data": values,
    }


async def answer_refusal(_request: Request, refusal: Exception) -> JSONResponse:
    """Answer 404 without KServe's traceback: any client could fill the log with those."""
    return JSONResponse({"error": str(refusal)}, status_code=404)
