"""The KServe model: raw rows in, label and probabilities out, v1 and v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from fastapi import Request
from fastapi.responses import JSONResponse
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.dataplane import DataPlane
from numpy.typing import NDArray

from serving.faults import Fault
from serving.logged import CURRENT
from serving.package import Served, parse_rows, refuse_other_than_numbers

OUTPUTS = ("label", "probability")

Payload = dict[str, Any] | InferRequest


class PackageModel(Model):
    """Answers with a package's graph. A call takes about a millisecond and runs in the loop."""

    def __init__(self, name: str, served: Served, *, version: str, fault: Fault | None) -> None:
        """Take a package that is warm and verified: ready from the start."""
        super().__init__(name)
        self._served, self._version, self._fault = served, version, fault
        self.ready = True

    def load(self) -> bool:
        """Do nothing: the package was loaded before the server began."""
        return True

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the v2 metadata of the input."""
        contract = self._served.contract
        return [{"name": contract.feature, "datatype": "FP32", "shape": [-1, contract.width]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the v2 metadata of the outputs."""
        classes = self._served.contract.classes
        return [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probability", "datatype": "FP32", "shape": [-1, classes]},
        ]

    async def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        payload: Payload,
        headers: Mapping[str, str] | None = None,  # noqa: ARG002 - KServe passes it
    ) -> tuple[Payload, NDArray[np.float32]]:
        """Return the request with its rows, checked.

        Raises:
            InvalidInput: Anything about them is wrong; the text names the field.
        """
        try:
            return payload, parse_rows(self._values(payload), self._served.contract)
        except ValueError as e:
            raise InvalidInput(str(e)) from e

    def _values(self, payload: object) -> Any:
        name = self._served.contract.feature
        if isinstance(payload, InferRequest):
            given = [i.name for i in payload.inputs]
            if given != [name]:
                raise ValueError(f"inputs {given} came, one input {name!r} was wanted")
            if unknown := _wanted(payload) - set(OUTPUTS):
                raise ValueError(f"outputs {sorted(unknown)} are not among {list(OUTPUTS)}")
            return _tensor(payload.inputs[0])
        if not isinstance(payload, dict) or "instances" not in payload:
            raise ValueError('the body must be an object with "instances", a list of rows')
        return payload["instances"]

    async def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        payload: tuple[Payload, NDArray[np.float32]],
        headers: Mapping[str, str] | None = None,  # noqa: ARG002 - KServe passes it
    ) -> dict[str, Any] | InferResponse:
        """Return labels and probabilities in the protocol of the request."""
        request, rows_nd = payload
        seen = CURRENT.get()
        fault = self._fault
        if seen is not None:
            seen.features = rows_nd
            if fault is not None and not fault.concerns(mirrored=seen.mirrored, arm=seen.arm):
                fault = None
            if fault is not None:
                await fault.before(seen.request_id)
        probability_nk = softmax(self._served.logits(rows_nd))
        labels = [int(label) for label in probability_nk.argmax(axis=1)]
        if seen is not None:
            if fault is not None:
                classes = self._served.contract.classes
                labels = [fault.label(label, classes, seen.request_id) for label in labels]
            seen.label = labels
            chosen = probability_nk[np.arange(len(labels)), labels]
            seen.probability = [round(float(p), 6) for p in chosen]
        return self._answer(request, labels, probability_nk)

    def _answer(
        self, request: Payload, labels: list[int], probability_nk: NDArray[np.float32]
    ) -> dict[str, Any] | InferResponse:
        if not isinstance(request, InferRequest):
            rows = zip(labels, probability_nk.tolist(), strict=True)
            return {"predictions": [{"label": n, "probability": p} for n, p in rows]}
        label = InferOutput("label", [len(labels)], "INT64")
        label.set_data_from_numpy(np.array(labels, np.int64), binary_data=False)
        probability = InferOutput("probability", list(probability_nk.shape), "FP32")
        probability.set_data_from_numpy(probability_nk, binary_data=False)
        seen = CURRENT.get()
        wanted = _wanted(request) or OUTPUTS
        return InferResponse(
            request.id or (seen.request_id if seen else ""),
            self.name,
            [output for output in (label, probability) if output.name in wanted],
            model_version=self._version,
        )


def _wanted(request: InferRequest) -> set[str]:
    return {output.name for output in request.request_outputs or ()}


def _tensor(given: InferInput) -> NDArray[Any]:
    """Return a v2 input as an array of the shape it states.

    Raises:
        ValueError: Not FP32, not numbers, or not as many as the shape says.
    """
    if given.datatype != "FP32":
        raise ValueError(f"{given.name}: {given.datatype} came, FP32 was wanted")
    if any(size < 0 for size in given.shape):
        raise ValueError(f"{given.name}: shape {given.shape} has a negative size")
    refuse_other_than_numbers(given.data, given.name)
    try:
        with np.errstate(over="ignore"):
            return given.as_numpy()
    except Exception as e:
        raise ValueError(f"{given.name}: {e}") from e


class CarefulDataPlane(DataPlane):
    """KServe's decoding, in which a request that cannot be decoded is the client's mistake."""

    def decode(self, *given: Any, **named: Any) -> Any:
        """Return the decoded request.

        Raises:
            InvalidInput: Decoding failed, in whatever way.
        """
        try:
            return super().decode(*given, **named)
        except InvalidInput:
            raise
        except Exception as e:
            raise InvalidInput(f"the body is not an inference request: {e!r}") from e


async def answer_refusal(_request: Request, refusal: Exception) -> JSONResponse:
    """Answer 400 or 404 without KServe's traceback: any client could fill the log with those."""
    status = 404 if isinstance(refusal, ModelNotFound) else 400
    return JSONResponse({"error": str(refusal)}, status_code=status)


def softmax(logits_nk: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities [n, classes] that sum to one in each row."""
    shifted = np.exp(logits_nk - logits_nk.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
