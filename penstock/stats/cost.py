"""What predictions, their log and their monitoring cost, from prices that the caller names. Pure.

What a thousand answers of a machine cost is :func:`penstock.stats.utilisation.cost_per_thousand`.
"""

from __future__ import annotations

from dataclasses import dataclass

MONTH_DAYS = 30.0
HOUR_S, DAY_S = 3600.0, 86_400.0


def answers_per_hour(cpu_us: float, *, cores: float = 1.0, busy: float = 1.0) -> float:
    """Return how many answers cores give in an hour.

    Args:
        cpu_us: Processor microseconds of one answer, with all that works for it.
        busy: Share of the cores' time that is worked; the rest is kept for peaks.

    >>> round(answers_per_hour(72.0, busy=0.7))
    35000000

    Raises:
        ValueError: No time, no cores, or a share that is none.
    """
    if not (cpu_us > 0 and cores > 0 and 0 < busy <= 1):
        raise ValueError(
            f"{cpu_us} µs on {cores} cores, {busy} of the time; give more than 0 of each, and a "
            "share of at most 1."
        )
    return cores * busy * HOUR_S * 1e6 / cpu_us


def stored_per_thousand(bytes_each: float, *, kept_days: float, gb_month: float) -> float:
    """Return what the records of a thousand predictions cost until they are removed.

    Args:
        bytes_each: Of one prediction's record.
        gb_month: Price of 10⁹ bytes for thirty days.

    >>> stored_per_thousand(100, kept_days=90, gb_month=0.02)
    6e-06

    Raises:
        ValueError: One of them is negative.
    """
    _at_least_0(bytes=bytes_each, days=kept_days, price=gb_month)
    return round(1000 * bytes_each / 1e9 * kept_days / MONTH_DAYS * gb_month, 15)


def kept_share(error_share: float, *, of_successes: float = 0.01, of_errors: float = 1.0) -> float:
    """Return the share of requests that a sampled log keeps; errors are worth more than successes.

    >>> round(kept_share(0.002), 5)
    0.01198

    Raises:
        ValueError: A share is none.
    """
    for share in (error_share, of_successes, of_errors):
        if not 0 <= share <= 1:
            raise ValueError(f"{share} is no share; give one from 0 to 1.")
    return (1 - error_share) * of_successes + error_share * of_errors


def bytes_per_s(events_per_s: float, *, bytes_each: float, every_s: float = 1.0) -> float:
    """Return the bytes that come in a second, where one event in ``every_s`` is told of its second.

    A million events a second of 1,000 bytes are a gigabyte; told once a minute, a sixtieth of it.

    >>> round(bytes_per_s(1e6, bytes_each=1000, every_s=60) / 1e6, 1)
    16.7

    Raises:
        ValueError: One of them is negative, or there is no time between two.
    """
    _at_least_0(events=events_per_s, bytes=bytes_each)
    if not every_s > 0:
        raise ValueError(f"every {every_s} s; give more than 0.")
    return events_per_s * bytes_each / every_s


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a service for metrics asks."""

    ingest_million: float
    """A million points."""

    gb: float
    """10⁹ bytes kept."""

    query: float
    """One query of a dashboard."""

    def __post_init__(self) -> None:
        _at_least_0(ingest=self.ingest_million, storage=self.gb, query=self.query)


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What monitoring costs, by what for."""

    points: float
    queries: float
    ingest: float
    storage: float
    asking: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.ingest + self.storage + self.asking


def monitoring(
    *, series: int, every_s: float, days: float, queries: float, prices: Prices,
    bytes_a_point: float = 8.0,
) -> Bill:  # fmt: skip
    """Return what so many series cost.

    Args:
        series: Lines that are drawn: metrics times the label values that each has.
        every_s: Seconds between two points of one series.
        days: How long it goes on, and how long points are kept.
        queries: Of dashboards and rules in that time.

    Raises:
        ValueError: One of them is negative, or there is no time between two points.
    """
    _at_least_0(series=series, days=days, queries=queries, bytes=bytes_a_point)
    if not every_s > 0:
        raise ValueError(f"a point every {every_s} s; give more than 0.")
    points = series * days * DAY_S / every_s
    return Bill(
        points=points,
        queries=queries,
        ingest=points / 1e6 * prices.ingest_million,
        storage=points * bytes_a_point / 1e9 * prices.gb,
        asking=queries * prices.query,
    )


def _at_least_0(**given: float) -> None:
    for name, value in given.items():
        if not value >= 0:
            raise ValueError(f"{name} {value}; give at least 0.")
