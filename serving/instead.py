"""Stand-ins: what answers where a look-up or a model cannot, as the endpoint declares."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.endpoint import Instead
from penstock.request import Contract
from serving.reading import Asked, Names

if TYPE_CHECKING:
    from penstock.online import Layout

KEPT = 20_000
"""Rows whose last answers are kept, a few megabytes; the oldest make room."""

Rules = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float64]]
Why = Literal["lookup", "failed"]
Question = tuple[Any, ...]
"""What one row asks: its entities, and a digest of what it holds besides."""

FAILED = "failed"
"""A release counts a model that was stood in for as one that failed: such a stand-in says so."""

LOG = logging.getLogger("serving")


class Package(Protocol):
    """What is told of a package here; :class:`serving.package.Served` tells it."""

    @property
    def contract(self) -> Contract: ...  # noqa: D102
    @property
    def layout(self) -> Layout | None: ...  # noqa: D102
    @property
    def rules(self) -> Rules | None: ...  # noqa: D102


class StandIn:
    """Answers for one model from its last answers, or by its workload's rules."""

    def __init__(
        self,
        rules: Rules | None,
        names: Names,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what may stand in, and try it.

        Args:
            rules: The package's, None where it has none.
            names: What a request holds, and what of it is looked up.
            clock: Seconds that never go back.

        Raises:
            ValueError: The endpoint declares rules, and there are none, or they fail.
        """
        self._rules, self._names, self._clock = rules, names, clock
        self._contract = names.contract
        endpoint = self._contract.endpoint
        self._declared = {"lookup": endpoint.lookup, "failed": endpoint.failed}
        every = {*endpoint.lookup, *endpoint.failed}
        self._keeps = Instead.CACHED in every
        self._kept_s = endpoint.cached_for.total_seconds()
        self._kept: dict[Question, tuple[float, list[float]]] = {}
        if Instead.RULES in every:
            self._try_rules()

    @classmethod
    def of(cls, served: Package) -> StandIn:
        """Return the stand-in of a package.

        Raises:
            ValueError: As the constructor.
        """
        return cls(served.rules, Names(served.contract, served.layout))

    def remember(self, asked: Asked) -> None:
        """Keep a good answer for a while; one that something stood in for is none."""
        if not self._keeps or asked.probability_nk is None or asked.seen.fallbacks:
            return
        now_s, kept = self._clock(), self._kept
        for question, row in zip(
            self._questions(asked), asked.probability_nk.tolist(), strict=True
        ):
            kept.pop(question, None)  # the newest are last
            kept[question] = (now_s, row)
        while len(kept) > KEPT or now_s - next(iter(kept.values()))[0] > self._kept_s:
            del kept[next(iter(kept))]

    def answer(self, asked: Asked, why: Why) -> bool:
        """Answer in the first declared way that can, and return whether one could."""
        return any(self.stand_in(way, asked, why) for way in self._declared[why])

    def stand_in(self, way: Instead, asked: Asked, why: Why = "lookup") -> bool:
        """Answer in one way and note it; return False where it cannot."""
        probability_nk = None
        if way is Instead.CACHED:
            probability_nk = self._cached(asked)
        elif way is Instead.RULES:
            probability_nk = self._by_rules(asked)
        if probability_nk is None:
            return False
        asked.probability_nk = probability_nk
        asked.seen.fallbacks.append(f"{FAILED}:{way.value}" if why == FAILED else way.value)
        return True

    def _cached(self, asked: Asked) -> NDArray[np.float64] | None:
        """Return the last answers to the same questions, None if one is missing or too old."""
        oldest_s = self._clock() - self._kept_s
        found = [self._kept.get(question) for question in self._questions(asked)]
        young = [row for at_s, row in filter(None, found) if at_s >= oldest_s]
        return np.array(young) if len(young) == asked.rows else None

    def _questions(self, asked: Asked) -> list[Question]:
        """Return what each row asks.

        Who asks is no part of it: one clerk asks about many clients, and many about one.
        """
        names = sorted(name for name in asked.columns if self._was_sent(name, asked))
        parts = [_bytes_of_rows(asked.columns[name], asked.rows) for name in names]
        # A join key is told by its name too: a request may hold them in any order.
        keys = sorted(asked.keys)
        who = zip(*(asked.keys[key] for key in keys), strict=True) if keys else [()] * asked.rows
        if not parts:
            return [(*one, b"") for one in who]
        begun = hashlib.blake2b(",".join([*keys, "", *names]).encode(), digest_size=16)
        held = np.concatenate(parts, axis=1)
        return [(*one, _digest(begun, held[at].tobytes())) for at, one in enumerate(who)]

    def _was_sent(self, name: str, asked: Asked) -> bool:
        """Return whether a column is the client's own, and no looked-up value or server's clock."""
        if asked.needs and name in self._names.looked_up:
            return False
        at_us = round(asked.seen.at * 1e6)
        return name != self._names.time or not (asked.columns[name] == at_us).all()

    def _by_rules(self, asked: Asked) -> NDArray[np.float64] | None:
        # A request may hold nothing but join keys; they tell how many rows there are.
        keys = {name: np.array(values) for name, values in asked.keys.items()}
        try:
            return self._ruled({**keys, **asked.columns}, asked.rows)
        except Exception:
            LOG.exception("the rules failed for request %s", asked.seen.request_id)
            return None

    def _ruled(self, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.float64]:
        assert self._rules is not None
        probability_nk = np.asarray(self._rules(columns), np.float64)
        if probability_nk.shape != (rows, self._contract.classes):
            raise ValueError(
                f"rules gave shape {probability_nk.shape} for {rows} rows; "
                f"{(rows, self._contract.classes)} was wanted."
            )
        if not (probability_nk >= 0).all() or not np.allclose(probability_nk.sum(axis=1), 1):
            raise ValueError("rules gave rows that are no probabilities; each sums to 1.")
        return probability_nk

    def _try_rules(self) -> None:
        """Ask the rules as they are asked at the worst of times: with nothing but a key.

        Raises:
            ValueError: They do not answer.
        """
        workload = self._contract.workload
        if self._rules is None:
            raise ValueError(
                f"the endpoint of {workload!r} declares rules, and its package carries none; write "
                f"workloads/{workload}/rules.py and register the model again."
            )
        try:
            self._ruled({"nothing": np.zeros(2, np.int64)}, 2)
        except Exception as e:
            raise ValueError(
                f"the rules of {workload!r} do not answer where every column is missing: {e}"
            ) from e


def _bytes_of_rows(column: NDArray[Any], rows: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(column).reshape(rows, -1).view(np.uint8)


def _digest(begun: hashlib.blake2b, row: bytes) -> bytes:
    held = begun.copy()
    held.update(row)
    return held.digest()
