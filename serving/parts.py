"""Parts: what answers a server's requests and what watches them, made and connected."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.predictions.hashing import read_salt
from serving.answering import Answering
from serving.batching import Batching
from serving.faults import Fault
from serving.features import Features
from serving.instead import StandIn
from serving.metrics import Metrics
from serving.package import Served
from serving.prediction_log import PredictionLog
from serving.reading import Names
from serving.ruling import Ruled, RulesAnswering
from serving.seen import Seen
from serving.tracing import Tracing

ONLINE, SALT = "PENSTOCK_ONLINE", "PENSTOCK_SALT"
"""Environment variables: address of the online store; file with the salt of user hashes."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What answers requests, and what watches them."""

    names: Names
    answering: Answering
    batching: Batching
    log: PredictionLog
    metrics: Metrics
    tracing: Tracing | None
    features: Features | None

    @property
    def told(self) -> list[Callable[[Seen], None]]:
        """What is told of every request that was answered or refused."""
        return [self.log.add, *([] if self.tracing is None else [self.tracing.record])]

    def close(self) -> None:
        """Write what waits, and let go of what is held."""
        self.log.close()
        self.metrics.close()
        if self.tracing is not None:
            self.tracing.close()
        if self.features is not None:
            self.features.close()


def assembled(given: argparse.Namespace, served: Served | Ruled) -> Parts:
    """Return the parts of a server, connected.

    Raises:
        OnlineError: The address of the online store is none.
        ValueError: The endpoint declares rules that do not answer.
    """
    contract, said = served.contract, {"slot": given.slot, "version": given.version}
    log = PredictionLog(given.log, contract, **said, salt=salt(), roll_s=given.log_roll_s)
    metrics = Metrics(contract, **said, digest=served.bundle.digest, runtime=given.runtime, log=log)
    instead, features = StandIn.of(served), None
    if address := os.environ.get(ONLINE):
        features = Features.open(served, address, instead=instead, aged=metrics.observe_age)
        metrics.watch("lookups", lambda: features.outcomes)
        metrics.watch("unknown_entities", lambda: features.unknown)
    answering = answering_of(
        served,
        **said,
        features=features,
        instead=instead,
        fault=None if given.fault is None else Fault.of(given.fault, on=given.fault_on),
        told=metrics.observe_batch,
    )
    endpoint = contract.endpoint
    most = served.batch_most(endpoint.max_batch_ms) if served.batching_pays else 1
    batching = Batching(answering.run, most=most, timeout_ms=endpoint.timeout_ms)
    metrics.watch("queue_depth", lambda: batching.waiting)
    tracing = Tracing.from_environment(workload=contract.workload, **said)
    if tracing is not None:
        metrics.watch("traces", lambda: tracing.counts)
    return Parts(
        # Without a store nothing can be left out, and a request that does so is told what to send.
        names=Names(contract, None if features is None else served.layout),
        answering=answering,
        batching=batching,
        log=log,
        metrics=metrics,
        tracing=tracing,
        features=features,
    )


def answering_of(served: Served | Ruled, **more: Any) -> Answering:
    """Return what answers by a package's model, or by its rules."""
    if isinstance(served, Ruled):
        return RulesAnswering(served, **more)
    return Answering(served, **more)


def salt() -> bytes:
    """Return the salt of user hashes, or one of this process alone where none is named.

    Raises:
        OSError: The file that is named cannot be read.
    """
    named = os.environ.get(SALT)
    if named is not None:
        return read_salt(Path(named))
    logging.getLogger("serving").warning(
        "%s names no file: hashes of users in the prediction log differ from other servers'", SALT
    )
    return os.urandom(32)
