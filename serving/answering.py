"""Answering: what was asked goes through features, model and decision; several requests at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.request import Contract
from serving.deciding import decided
from serving.faults import Fault, RehearsedError
from serving.hardened import FAILED
from serving.reading import Asked

LOG = logging.getLogger("serving")

NO_FEATURES = "features cannot be looked up now; try again"


class Model(Protocol):
    """What computes logits; :class:`serving.package.Served` is one."""

    contract: Contract

    def infer(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return logits [n, classes] for the columns of all features."""
        ...


class Looking(Protocol):
    """What looks features up; :class:`serving.features.Features` does."""

    def complete(self, batch: Sequence[Asked]) -> None:
        """Fill the columns of those that need it, or refuse them, or answer in another way."""
        ...


class Standing(Protocol):
    """What stands in for a model; :class:`serving.instead.StandIn` does."""

    def remember(self, asked: Asked) -> None:
        """Keep a good answer."""
        ...

    def answer(self, asked: Asked, why: str) -> bool:
        """Answer in the model's place and return True, or return False."""
        ...


class Answering:
    """Answers requests with one transform and one call of the model, however many they are."""

    def __init__(
        self,
        served: Model,
        *,
        version: str,
        slot: str = "a",
        features: Looking | None = None,
        instead: Standing | None = None,
        fault: Fault | None = None,
        told: Callable[[int], None] | None = None,
    ) -> None:
        """Take the parts.

        Args:
            fault: A deliberate one, to rehearse.
            told: Told how many rows each call of the model had.
        """
        self.version, self.fault = version, fault
        self.headers = (
            (b"x-penstock-version", version.encode()),
            (b"x-penstock-slot", slot.encode()),
        )
        """Of every answer: who gives it."""

        self._served, self._features, self._instead = served, features, instead
        self._told = told
        self._classes = served.contract.classes
        self._threshold = served.contract.threshold

    async def rehearse(self, asked: Asked) -> None:
        """Delay or fail a request that the fault concerns. Nothing stands in: it is to be seen."""
        fault = self._concerned(asked)
        if fault is None:
            return
        try:
            await fault.before(asked.seen.request_id)
        except RehearsedError:  # told without its traceback: there is nothing to find
            LOG.warning("request %s failed: rehearsed", asked.seen.request_id)
            asked.refusal = (500, FAILED)

    def run(self, batch: Sequence[Asked]) -> None:
        """Fill in the answers of a batch, or why there is none. Never raises."""
        if self._features is not None:
            self._complete(batch)
        try:
            # Those that had to be refused, or were answered without the model, are done.
            left = [a for a in batch if a.refusal is None and a.probability_nk is None]
            if left:
                self._answer(left)
        except Exception:
            LOG.exception("requests %s failed", _ids(batch))
            for asked in batch:
                if asked.probability_nk is None:
                    asked.refusal = asked.refusal or (500, FAILED)
        for asked in batch:
            if asked.refusal is not None:
                continue
            try:
                self._note(asked)
            except Exception:
                LOG.exception("request %s failed", asked.seen.request_id)
                asked.refusal = (500, FAILED)

    def _complete(self, batch: Sequence[Asked]) -> None:
        needing = [asked for asked in batch if asked.needs]
        if not needing:
            return
        begun = time.perf_counter()
        assert self._features is not None
        try:
            self._features.complete(needing)
        except Exception:
            LOG.exception("features of requests %s cannot be looked up", _ids(needing))
            for asked in needing:
                self._without_features(asked)
        spent_us = (time.perf_counter() - begun) * 1e6
        for asked in needing:
            asked.seen.spent_us["features"] = spent_us

    def _without_features(self, asked: Asked) -> None:
        """Let something stand in for a look-up that failed in no way it knows, or refuse."""
        if asked.refusal is not None or asked.probability_nk is not None:
            return
        try:
            stood_in = self._instead is not None and self._instead.answer(asked, why="lookup")
        except Exception:
            LOG.exception("nothing stands in for request %s", asked.seen.request_id)
            stood_in = False
        if not stood_in:
            asked.refusal = (503, NO_FEATURES)

    def _answer(self, batch: Sequence[Asked]) -> None:
        begun = time.perf_counter()
        try:
            probability_nk = self._probabilities(batch)
        except Exception as e:  # noqa: BLE001 - whatever a model raises is its failure
            self._failed(batch, e)
            return
        labels = decided(probability_nk, threshold=self._threshold)
        chosen = _of(probability_nk, labels)
        spent_us = (time.perf_counter() - begun) * 1e6
        at = 0
        for asked in batch:
            end = at + asked.rows
            asked.probability_nk, asked.labels = probability_nk[at:end], labels[at:end]
            asked.seen.probability = chosen[at:end]
            asked.seen.spent_us["inference"] = spent_us
            at = end
            if self._instead is not None:
                self._instead.remember(asked)

    def _probabilities(self, batch: Sequence[Asked]) -> NDArray[np.float64]:
        if len(batch) == 1:
            columns: Mapping[str, NDArray[Any]] = batch[0].columns
        else:
            first = batch[0].columns
            columns = {name: np.concatenate([a.columns[name] for a in batch]) for name in first}
        logits_nk = self._served.infer(columns)
        if self._told is not None:
            self._told(len(logits_nk))
        return softmax(logits_nk)

    def _failed(self, batch: Sequence[Asked], why: Exception) -> None:
        """Ask for each request alone, so that only those fail whose own rows the model refuses."""
        if len(batch) > 1:
            for asked in batch:
                self._answer([asked])
            return
        (asked,) = batch
        LOG.error("request %s failed", asked.seen.request_id, exc_info=why)
        if self._instead is None or not self._instead.answer(asked, why="failed"):
            asked.refusal = (500, FAILED)

    def _note(self, asked: Asked) -> None:
        """Note what is answered, whoever answered it."""
        seen, probability_nk = asked.seen, asked.probability_nk
        assert probability_nk is not None
        if asked.labels is None or seen.probability is None:
            asked.labels = decided(probability_nk, threshold=self._threshold)
            seen.probability = _of(probability_nk, asked.labels)
        if (fault := self._concerned(asked)) is not None:
            if fault.turns(seen.request_id):
                asked.probability_nk = probability_nk = probability_nk[::-1]
                asked.labels = decided(probability_nk, threshold=self._threshold)
            told = [fault.label(n, self._classes, seen.request_id) for n in asked.labels]
            asked.labels, seen.probability = told, _of(probability_nk, told)
        seen.label = asked.labels

    def _concerned(self, asked: Asked) -> Fault | None:
        fault, seen = self.fault, asked.seen
        if fault is None or not fault.concerns(
            mirrored=seen.mirrored, arm=seen.arm, columns=asked.columns
        ):
            return None
        return fault


def _of(probability_nk: NDArray[Any], labels: Sequence[int]) -> list[float]:
    rows: list[list[float]] = probability_nk.tolist()
    return [round(row[label], 6) for row, label in zip(rows, labels, strict=True)]


def _ids(batch: Sequence[Asked]) -> str:
    return ", ".join(asked.seen.request_id for asked in batch)


def softmax(logits_nk: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities [n, classes] that sum to one in each row.

    Raises:
        FloatingPointError: A row has no largest logit, so there is nothing to decide by.
    """
    logits = logits_nk.astype(np.float64)
    largest = logits.max(axis=1, keepdims=True)
    if not np.isfinite(largest).all():
        raise FloatingPointError("the model gave a value that is no finite number.")
    shifted = np.exp(logits - largest)
    return shifted / shifted.sum(axis=1, keepdims=True)
