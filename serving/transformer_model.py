"""The transformer as a model of KServe's SDK, which any of KServe's own servers runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from fastapi import HTTPException
from kserve import InferResponse

from serving.answering import Answering
from serving.forwarding import Forwarding
from serving.hardened import RETRY_AFTER_S
from serving.model import PackageModel
from serving.reading import Asked, Names
from serving.writing import answer_headers


class TransformerModel(PackageModel):
    """Answers with its predictor's answers, and is ready when the predictor is."""

    def __init__(self, name: str, names: Names, forwarding: Forwarding) -> None:
        """Take what looks up and asks."""
        super().__init__(name, names, cast("Answering", forwarding))
        self._forwarding = forwarding

    async def healthy(self) -> bool:
        """Return whether the predictor is ready."""
        return await self._forwarding.ready()

    async def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        payload: Asked,
        headers: Mapping[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """Return the predictor's answer in the protocol of the request.

        Raises:
            HTTPException: There is none; with the predictor's status, where it gave one.
        """
        given = {k.encode("latin-1"): v.encode("latin-1") for k, v in (headers or {}).items()}
        outcome = await self._forwarding.answer(payload, given)
        held = [*outcome.headers, *answer_headers(payload.seen)]
        said = {name.decode(): value.decode("latin-1") for name, value in held}
        if payload.refusal is not None:
            status, sentence = payload.refusal
            if status in (429, 503):
                said["retry-after"] = (outcome.retry_after or b"%d" % RETRY_AFTER_S).decode()
            raise HTTPException(status, sentence, said)
        if response_headers is not None:
            response_headers.update(said)
        answer = self._answer(payload)
        if isinstance(answer, InferResponse):
            answer.model_version = outcome.version
        return answer
