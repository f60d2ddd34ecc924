"""The KServe model: raw rows in, label and probabilities out, v1 and v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from fastapi import Request
from fastapi.responses import JSONResponse
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.dataplane import DataPlane
from numpy.typing import NDArray

from penstock.request import Feature
from serving.faults import Fault
from serving.logged import CURRENT
from serving.package import Served
from serving.reading import (
    Numbers,
    from_instances,
    from_tensors,
    refuse_other_names,
    refuse_other_than_numbers,
)

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
        """Return the v2 metadata of the inputs, each with the type it is best sent as."""
        return [
            {"name": feature.name, "datatype": feature.datatype, "shape": feature.shape}
            for feature in self._served.contract.features
        ]

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
    ) -> tuple[Payload, pa.Table]:
        """Return the request with its rows, checked.

        Raises:
            InvalidInput: Anything about them is wrong; the text names the field.
        """
        try:
            return payload, self._rows(payload)
        except ValueError as e:
            raise InvalidInput(str(e)) from e

    def _rows(self, payload: object) -> pa.Table:
        contract = self._served.contract
        if isinstance(payload, InferRequest):
            names = [given.name for given in payload.inputs]
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{repeated[0]}: came {names.count(repeated[0])} times")
            refuse_other_names(names, contract)
            if unknown := _wanted(payload) - set(OUTPUTS):
                raise ValueError(f"outputs {sorted(unknown)} are not among {list(OUTPUTS)}")
            features = {feature.name: feature for feature in contract.features}
            tensors = {given.name: _tensor(given, features[given.name]) for given in payload.inputs}
            return from_tensors(tensors, contract)
        if not isinstance(payload, dict) or "instances" not in payload:
            raise ValueError('the body must be an object with "instances", a list of rows')
        return from_instances(payload["instances"], contract)

    async def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        payload: tuple[Payload, pa.Table],
        headers: Mapping[str, str] | None = None,  # noqa: ARG002 - KServe passes it
    ) -> dict[str, Any] | InferResponse:
        """Return labels and probabilities in the protocol of the request."""
        request, rows = payload
        seen = CURRENT.get()
        fault = self._fault
        if seen is not None:
            seen.features = rows
            if fault is not None and not fault.concerns(mirrored=seen.mirrored, arm=seen.arm):
                fault = None
            if fault is not None:
                await fault.before(seen.request_id)
        contract = self._served.contract
        probability_nk = softmax(self._served.logits(rows))
        labels = decided(probability_nk, threshold=contract.threshold)
        if seen is not None:
            if fault is not None:
                labels = [fault.label(n, contract.classes, seen.request_id) for n in labels]
            seen.label = labels
            chosen = probability_nk[np.arange(len(labels)), labels]
            seen.probability = [round(float(p), 6) for p in chosen]
        return self._answer(request, labels, probability_nk.astype(np.float32))

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


def _tensor(given: InferInput, feature: Feature) -> Numbers:
    """Return a v2 input as an array of the shape it states.

    Raises:
        ValueError: Not the type, not numbers, or not as many as the shape says.
    """
    allowed = ("FP32",) if feature.length is not None else ("FP32", "FP64", "INT64")
    if given.datatype not in allowed:
        raise ValueError(f"{given.name}: {given.datatype} came, {' or '.join(allowed)} was wanted")
    if any(size < 0 for size in given.shape):
        raise ValueError(f"{given.name}: shape {given.shape} has a negative size")
    kinds = refuse_other_than_numbers(given.data, feature)
    if given.datatype == "INT64" and not kinds <= {int}:
        raise ValueError(f"{given.name}: fractions or nulls came as INT64; send them as FP64")
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


def softmax(logits_nk: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities [n, classes] that sum to one in each row."""
    logits = logits_nk.astype(np.float64)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def decided(probability_nk: NDArray[np.float64], *, threshold: float | None) -> list[int]:
    """Return the label of each row: as the gate decided, which scipy keeps out of this image."""
    if threshold is None:
        return probability_nk.argmax(axis=1).tolist()
    return (probability_nk[:, 1] >= threshold).astype(np.int64).tolist()
