"""Forwarding: a request whose features were looked up is answered by the predictor of its slot.

What goes over the wire is the protocol's v2 in bytes, whatever the client spoke.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.endpoint import Endpoint
from penstock.request import Contract
from serving.batching import Batching
from serving.deciding import decided
from serving.features import Features
from serving.hop import Answer, Hop, Unreachable
from serving.instead import StandIn
from serving.reading import Asked
from serving.seen import Seen
from serving.tensors import Tensor, tensors
from serving.writing import Headers

LENGTH = b"inference-header-content-length"

DOWN = "the predictor does not answer; try again"
GARBLED = "the predictor's answer cannot be read; the request id finds more in its log"
FAILED = "the request failed; its id finds the reason in the transformer's log"

OURS = frozenset({b"x-penstock-fallback", b"x-penstock-stale"})
"""Headers that say of a request what both processes have a part in."""

WHO = frozenset({b"x-penstock-version", b"x-penstock-slot"})
"""Headers that say which server answers, of what version."""

LOG = logging.getLogger("serving")


@dataclass(slots=True)
class Outcome:
    """What came of one request, besides what stands in it."""

    headers: Headers
    """``x-penstock-…``: the predictor's own, or those that it had last where it gave none."""

    version: str = ""
    answered: bool = False
    """Whether the predictor answered, and so has the request on record; else we must."""

    retry_after: bytes | None = None


class Forwarding:
    """Looks up, then asks the predictor; degrades as the endpoint declares where either fails."""

    def __init__(
        self,
        contract: Contract,
        hop: Hop,
        *,
        name: str,
        features: Features | None,
        instead: StandIn | None,
    ) -> None:
        """Take the parts.

        Args:
            name: Of the model, here and at the predictor.
        """
        endpoint: Endpoint = contract.endpoint
        self.version = ""
        """Of the model: the predictor says it with each answer."""

        self._told: Headers = []
        self._hop, self._features, self._instead = hop, features, instead
        self._threshold = contract.threshold
        self._down = False
        self._infer, self._ready = f"/v2/models/{name}/infer", f"/v2/models/{name}/ready"
        self._types = {f.name: f.datatype for f in contract.features}
        self._lookups = Batching(self._look_up, most=contract.rows, timeout_ms=endpoint.timeout_ms)

    async def ready(self) -> bool:
        """Return whether the predictor is."""
        return (await self.standing())[0]

    async def standing(self) -> tuple[bool, Headers]:
        """Return whether the predictor is ready, and what it says of who it is."""
        try:
            said = await self._hop.ask("GET", self._ready)
        except Unreachable:
            return False, []
        return said.status == 200, [(k, v) for k, v in said.headers.items() if k in WHO]

    async def answer(self, asked: Asked, headers: dict[bytes, bytes]) -> Outcome:
        """Fill in the answer, or why there is none."""
        if asked.needs:
            begun_s = time.perf_counter()
            asked.begun_s = asked.begun_s or begun_s  # only the lean route notes it
            await self._lookups.answer(asked)
            asked.seen.spent_us["features"] = (time.perf_counter() - begun_s) * 1e6
        outcome = Outcome([*self._told], self.version)
        if asked.refusal is None and asked.probability_nk is None:
            outcome = await self._ask(asked, headers)
        if asked.probability_nk is not None and asked.labels is None:  # something stood in
            self._note(asked, asked.probability_nk)
        return outcome

    def _note(self, asked: Asked, probability_nk: NDArray[Any]) -> None:
        labels = decided(probability_nk, threshold=self._threshold)
        rows: list[list[float]] = probability_nk.tolist()
        asked.labels = asked.seen.label = labels
        chosen = [round(row[label], 6) for row, label in zip(rows, labels, strict=True)]
        asked.seen.probability = chosen

    async def _ask(self, asked: Asked, headers: dict[bytes, bytes]) -> Outcome:
        begun_s = time.perf_counter()
        try:
            sent = forwarded(headers, asked.seen)
            answer = await self._hop.ask("POST", self._infer, *self._request(asked, sent))
        except Unreachable as e:
            if not self._down:  # once an outage
                LOG.warning("request %s: the predictor gave %s", asked.seen.request_id, e)
            self._down = True
            if self._instead is None or not self._instead.answer(asked, why="failed"):
                asked.refusal = (503, DOWN)
            return Outcome([*self._told], self.version)
        self._down = False
        asked.seen.spent_us["inference"] = (time.perf_counter() - begun_s) * 1e6
        return self._taken(asked, answer)

    def _look_up(self, batch: Sequence[Asked]) -> None:
        try:
            assert self._features is not None  # without them a request is told what to send
            self._features.complete(batch)
        except Exception:
            LOG.exception("requests %s failed", ", ".join(a.seen.request_id for a in batch))
            for asked in batch:
                asked.refusal = asked.refusal or (500, FAILED)

    def _request(self, asked: Asked, headers: Headers) -> tuple[Headers, bytes]:
        """Return headers and body of what the predictor is sent."""
        raw: list[bytes] = []
        inputs: list[dict[str, Any]] = []
        for name, datatype in self._types.items():
            held = asked.columns[name]
            raw.append(held.tobytes())
            size = {"binary_data_size": len(raw[-1])}
            inputs.append(
                {
                    "name": name,
                    "shape": list(held.shape),
                    "datatype": datatype,
                    "parameters": size,
                }
            )
        document = {"inputs": inputs, "parameters": {"binary_data_output": True}}
        head = orjson.dumps(document)
        kind = (b"content-type", b"application/octet-stream")
        return [*headers, kind, (LENGTH, b"%d" % len(head))], b"".join([head, *raw])

    def _taken(self, asked: Asked, answer: Answer) -> Outcome:
        said = answer.headers
        ours = [(k, v) for k, v in said.items() if k.startswith(b"x-penstock-") and k not in OURS]
        found = Outcome(ours, said.get(b"x-penstock-version", b"").decode("latin-1"), answered=True)
        if found.version:  # what is refused at its door says nothing
            self.version, self._told = found.version, [one for one in ours if one[0] in WHO]
        _merge(asked.seen, said)
        if answer.status != 200:
            asked.refusal = (answer.status, _sentence(answer.body))
            found.retry_after = said.get(b"retry-after")
            return found
        try:
            _read(asked, answer)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            LOG.warning("request %s: the predictor's answer: %r", asked.seen.request_id, e)
            asked.refusal = (502, GARBLED)
        else:
            if self._instead is not None:
                self._instead.remember(asked)
        return found


def forwarded(headers: dict[bytes, bytes], seen: Seen) -> Headers:
    """Return what the predictor must know of a request besides its rows."""
    passed = [(name, headers[name]) for name in _PASSED if name in headers]
    passed.append((b"x-request-id", seen.request_id.encode("latin-1", "replace")))
    if seen.mirrored:  # the edge may have said so by the host alone, which is the predictor's here
        passed.append((b"x-rollout-shadow", b"1"))
    if seen.fallbacks:
        passed.append((b"x-rollout-fallback", ",".join(seen.fallbacks).encode()))
    if seen.stale:
        passed.append((b"x-rollout-stale", ",".join(seen.stale).encode()))
    return passed


_PASSED = (
    b"x-user-id",
    b"x-rollout-bucket",
    b"x-rollout-arm",
    b"x-rollout-market",
    b"traceparent",
    b"tracestate",
)


def _merge(seen: Seen, said: dict[bytes, bytes]) -> None:
    """Add what the predictor says of the request to what is known here."""
    fallbacks, stale = (said.get(name, b"").decode("latin-1") for name in sorted(OURS))
    seen.fallbacks += [one for one in fallbacks.split(",") if one and one not in seen.fallbacks]
    seen.stale = (*seen.stale, *(one for one in stale.split(",") if one and one not in seen.stale))


def _sentence(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return GARBLED


def _read(asked: Asked, answer: Answer) -> None:
    """Take labels and probabilities.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: They are not there, or not of every row.
    """
    of_json = int(answer.headers[LENGTH])
    document = orjson.loads(answer.body[:of_json])
    held = tensors({"inputs": document["outputs"]}, answer.body[of_json:])
    label_n, probability_nk = _numbers(held["label"], "<i8"), _numbers(held["probability"], "<f4")
    if not len(label_n) == len(probability_nk) == asked.rows:
        raise ValueError(f"{len(label_n)} answers came to {asked.rows} rows")
    asked.labels, asked.probability_nk = label_n.tolist(), probability_nk


def _numbers(given: Tensor, kind: str) -> NDArray[Any]:
    if isinstance(given.data, list):
        raise ValueError(f"{given.name}: bytes were asked for")  # noqa: TRY004 - what came is wrong
    return np.frombuffer(given.data, kind).reshape(given.shape)
