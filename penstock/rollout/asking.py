"""Asking through the edge: does it send users where a table says, does a slot answer right."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from penstock.bundle import Bundle, BundleError, read
from penstock.release import EVERYWHERE
from penstock.request import Contract, v1_request
from penstock.rollout.admin import Inside, sent
from penstock.rollout.routing import MARKET, PROBE
from penstock.rollout.table import TrafficTable, bucket_of

DIGITS = 1e-5
"""What is lost of a probability when it is written down."""


SETTLE_S = 0.05
"""A slot whose count of requests stands still for this long is asked no more."""

QUIET_S = 1.0
"""How long it may take until it does: requests on their way, an owner's probe."""


Answered = tuple[int, bytes, Mapping[str, str]]
"""Status, body, and headers by their names in lower case."""


class NoAnswer(RuntimeError):
    """Nobody answered; the text says why."""


def ask(
    folder: Path, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Answered:
    """Return status, body and headers of what the edge answers the owner of this home.

    Raises:
        NoAnswer: Nobody answers.
    """
    connection = Inside(folder)
    said = {"content-type": "application/json", **(headers or {})}
    try:
        connection.request("POST" if body else "GET", path, body or None, said)
        answer = connection.getresponse()
        held = answer.read()
    except (OSError, http.client.HTTPException) as e:
        raise NoAnswer(f"the edge at {folder} does not answer: {e}") from e
    finally:
        connection.close()
    return answer.status, held, {k.lower(): v for k, v in answer.getheaders()}


def misled(folder: Path, table: TrafficTable, model: str) -> str:
    """Return what is wrong with where one user of each arm is sent; empty where nothing is."""
    for user in _one_of_each(table):
        wanted = table.slot_for(bucket_of(table.salt, user))
        told = {"x-user-id": user}
        if table.market != EVERYWHERE:
            told[MARKET] = table.market
        try:
            status, _, headers = ask(folder, f"/v2/models/{model}/ready", headers=told)
        except NoAnswer as e:
            return str(e)
        slot = headers.get("x-penstock-slot", "nobody")
        if status != 200 or slot != wanted:
            return f"a user of slot {wanted} was answered {status} by {slot}"
    return ""


def _one_of_each(table: TrafficTable) -> Iterator[str]:
    """Yield a user of the challenger, where it has any, and one of the champion."""
    names = [f"penstock-probe-{n}" for n in range(2000)]
    yield from {table.slot_for(bucket_of(table.salt, name)): name for name in names}.values()


def still_asked(admin: str, slots: Collection[str]) -> str:
    """Return which slots are still sent requests that no table sends there; empty where none is.

    Raises:
        EnvoyError: Envoy does not say.
    """
    end = time.monotonic() + QUIET_S
    before = sent(admin)
    while True:
        time.sleep(SETTLE_S)
        now = sent(admin)
        loud = [slot for slot in sorted(slots) if now.get(slot, 0) != before.get(slot, 0)]
        if not loud or time.monotonic() > end:
            return f"slot {' and '.join(loud)} is still sent requests" if loud else ""
        before = now


WRONG = "gives wrong golden answers"
"""What is said of a slot that answers, and otherwise than its package says."""


def golden(folder: Path, slot: str, package: Path, model: str) -> str:
    """Return what is wrong with a slot's answers to its package's golden requests.

    The requests are in the slot's prediction log, as those of a probe.
    """
    try:
        bundle = read(package, kind="package")
    except (BundleError, OSError) as e:
        return f"the package of slot {slot} cannot be read: {e}"
    asks = partial(ask, folder, headers={PROBE: slot})
    return golden_of(asks, slot, bundle, model)


def golden_of(asks: Callable[[str, bytes], Answered], slot: str, bundle: Bundle, model: str) -> str:
    """Return what is wrong with the answers of whoever is asked to a package's golden requests.

    Probabilities are compared: of logits that lie within the package's tolerance, those of softmax
    do too.
    """
    try:
        contract = Contract.from_dict(bundle.json("serving.json"))
        held = bundle.json("golden.json")
    except (BundleError, OSError, KeyError) as e:
        return f"the package of slot {slot} cannot be read: {e}"
    requests, tolerance = held["requests"], float(held["tolerance"])
    for begin in range(0, len(requests), contract.rows):
        part = requests[begin : begin + contract.rows]
        if wrong := _wrong(asks, slot, contract, part, model, tolerance):
            return wrong
    return "" if requests else f"the package of slot {slot} has no golden requests"


def _wrong(
    asks: Callable[[str, bytes], Answered],
    slot: str,
    contract: Contract,
    requests: Sequence[Mapping[str, Any]],
    model: str,
    tolerance: float,
) -> str:
    body = json.dumps(v1_request(contract, [r["instance"] for r in requests])).encode()
    try:
        status, said, headers = asks(f"/v1/models/{model}:predict", body)
    except NoAnswer as e:
        return str(e)
    if status != 200:
        return f"slot {slot} answered golden requests with {status}"
    if standing_in := headers.get("x-penstock-fallback"):
        return f"slot {slot} answered golden requests by {standing_in}, not by its model"
    told_nk = np.array([row["probability"] for row in json.loads(said)["predictions"]])
    logits_nk = np.array([r["logits"] for r in requests], np.float64)
    grown_nk = np.exp(logits_nk - logits_nk.max(axis=1, keepdims=True))
    apart = np.abs(told_nk - grown_nk / grown_nk.sum(axis=1, keepdims=True)).max()
    if apart <= tolerance + DIGITS:
        return ""
    return f"slot {slot} {WRONG}: {apart:.2g} apart, {tolerance:g} allowed"
