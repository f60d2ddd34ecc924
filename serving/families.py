"""Families: what a scrape is made of, from the plain numbers that a serving process keeps."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

LATENCY_MS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0)
"""Upper bounds of the latency histogram: from a tabular model's answer to the longest wait."""

PART_US = (10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 1e5, 1e6)
BATCH_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
AGE_S = (1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0)

PROTOCOLS = ("v1", "v2", "grpc")
ARMS = ("champion", "challenger", "fallback", "standby", "probe")
OTHER = "other"
"""Of a label whose value is none that we know, such as an arm that a client made up."""

NONE = "none"
"""Of a label whose value nobody said, or nobody read."""

Request = tuple[str, int, str | None, bool]
"""What requests are counted by: protocol, HTTP status, arm, whether it is a mirrored copy."""


@dataclass(frozen=True)
class Watched:
    """A metric whose number another part keeps."""

    said: str
    label: str = ""
    rises: bool = False
    """Whether it only ever rises: a counter."""


WATCHED: Mapping[str, Watched] = {
    "queue_depth": Watched("Requests that wait for the model."),
    "in_flight": Watched("Requests that are worked on."),
    "log_records": Watched(
        "Records of the prediction log, by what became of them.", "outcome", True
    ),
    "lookups": Watched("Entities that were looked up, by what came of it.", "outcome", True),
    "traces": Watched("Requests by what became of their spans.", "outcome", True),
    "unknown_entities": Watched("Entities that the online store does not know.", "view", True),
}
"""A callable of each returns a number or, where there is a label, numbers by its values."""


class Histogram:
    """Counts by bucket. The last bucket has no bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Start empty; the bounds rise, and a value at a bound counts below it."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self, per: float) -> tuple[list[tuple[str, float]], float]:
        """Return cumulative buckets and the sum, in units of which one holds ``per`` of ours."""
        names = [*(repr(bound / per) for bound in self.bounds), "+Inf"]
        reached, found = 0, []
        # A copy: the event loop may add to it between two of its numbers.
        for name, count in zip(names, list(self.counts), strict=True):
            reached += count
            found.append((name, float(reached)))
        return found, self.total / per


def requests(held: Sequence[tuple[Request, int]]) -> Metric:
    """Return how many requests came, by all that they are counted by."""
    labels = ["protocol", "status", "arm", "mirrored"]
    family = CounterMetricFamily("penstock_requests", "Requests that came.", labels=labels)
    for (protocol, status, arm, mirrored), count in held:
        said = str(status) if status else OTHER
        family.add_metric([protocol, said, arm or NONE, str(mirrored).lower()], count)
    return family


def errors(held: Sequence[tuple[Request, int]]) -> Metric:
    """Return errors by kind; each is there from the start, so that a first error is a rise."""
    counts = {
        (kind, copied): 0 for kind in ("client", "busy", "server") for copied in (False, True)
    }
    for (_, status, _, mirrored), count in held:
        if (kind := _kind(status)) is not None:
            counts[kind, mirrored] += count
    said = "Requests that were not answered: by the client's mistake, for want of room, by ours."
    family = CounterMetricFamily("penstock_errors", said, labels=["kind", "mirrored"])
    for (kind, mirrored), count in counts.items():
        family.add_metric([kind, str(mirrored).lower()], count)
    return family


def _kind(status: int) -> str | None:
    """Return the kind of error that a status is, None for an answer.

    >>> [_kind(status) for status in (200, 404, 429, 503, 500)]
    [None, 'client', 'busy', 'busy', 'server']
    """
    if status in (429, 503):
        return "busy"
    if 400 <= status < 500:
        return "client"
    return None if 100 <= status < 400 else "server"


def gauge(name: str, said: str, values: Mapping[str, float], *, label: str = "") -> Metric:
    """Return numbers that rise and fall, by the label's value, which is empty without a label."""
    family = GaugeMetricFamily(f"penstock_{name}", said, labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([key] if label else [], value)
    return family


def counter(name: str, said: str, values: Mapping[str, float], *, label: str) -> Metric:
    """Return numbers that only rise, by the label's value."""
    family = CounterMetricFamily(f"penstock_{name}", said, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def histogram(
    name: str, said: str, held: Mapping[str, Histogram], *, label: str = "", per: float = 1.0
) -> Metric:
    """Return histograms by the label's value, in units of which one holds ``per`` of theirs."""
    family = HistogramMetricFamily(f"penstock_{name}", said, labels=[label] if label else [])
    for key, one in held.items():
        buckets, total = one.buckets(per)
        family.add_metric([key] if label else [], buckets, total)
    return family


def watched(name: str, read: float | Mapping[str, float]) -> Metric:
    """Return a metric of ``WATCHED``, of what was read.

    Raises:
        TypeError, ValueError: That is not a number.
    """
    declared = WATCHED[name]
    values = read if isinstance(read, Mapping) else {"": read}
    numbers = {str(key): float(value) for key, value in values.items()}
    if declared.rises:
        return counter(name, declared.said, numbers, label=declared.label)
    return gauge(name, declared.said, numbers, label=declared.label)
