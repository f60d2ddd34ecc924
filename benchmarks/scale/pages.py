"""Tables and a plot of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale import rounds
from benchmarks.serving.tables import Part, number
from penstock.stats import cost
from penstock.stats.utilisation import cost_per_thousand

Figures = dict[str, Any]

LEASE_S = 30.0
"""A controller that is silent for longer loses its leases."""

EVERY_S = 2.0
"""Between two rounds of a controller on a cluster."""

CORE_HOUR, GB_MONTH, GPU_HOUR = 0.04, 0.023, 3.0
"""Prices, dollars: a core, 10⁹ bytes of an object store, a GPU. Put your own here."""

BUSY, KEPT_DAYS = 0.7, 90.0
STANDBY = 0.5
"""Cost of the version that stands by, over that of the champion."""

CPU_US = {
    "our server, 32 connections": 75.2,
    "through Envoy, features sent": 611.0,
    "through Envoy, features of Redis": 802.0,
}
"""CPU of one request with all that works for it, of docs/measurements/serving.md, one row each."""

GPU_PER_HOUR = 50_000.0
"""Answers of a large model on one GPU, as an example: nothing was measured on a GPU."""


def controller(found: Sequence[Figures]) -> Part:
    """Return the table of rounds."""
    rows = [
        [
            f["database"], number(f["releases"]), number(f["past"]), number(f["entries"]),
            number(f["ms_each"]), number(f["bare_ms_each"]), number(f["round_s"]),
            number(1000 * EVERY_S / f["ms_each"]), number(f["start_s"]), number(f["memory_mb"]),
        ]
        for f in found
    ]  # fmt: skip
    reads, statements = found[0]["reads_each"], found[0]["statements_each"]
    note = (
        "A look is one release at one round, while a step soaks. Beside it, one bare read of its "
        f"workload's rows. Each look asks the ledger {reads:g} times, with {statements:g} "
        "statements. Start: until the whole chain is audited, once a process."
    )
    return Part(
        title="A controller's round",
        head=(
            "ledger", "releases", "past ones of each", "entries", "CPU ms a look",
            "bare read, ms", "round, s", f"looks in {EVERY_S:g} s", "start, s", "memory, MB",
        ),
        rows=rows,
        notes=[note],
    )  # fmt: skip


def costliest(found: Sequence[rounds.Named]) -> Part:
    """Return the table of where a round's time goes."""
    rows = [[f"`{name}`", number(calls), f"{share:.0%}"] for name, calls, share in found]
    return Part(
        title="Where a round's time goes",
        head=("function", "calls", "share, with all it calls"),
        rows=rows,
    )


def evidence(found: Sequence[Figures]) -> Part:
    """Return the table of evidence."""
    rows = [
        [
            f["form"], number(f["rows"]), number(f["mb"]), number(f["rows_per_s"]),
            number(f["to_arrow"]), number(f["to_duckdb"]), number(f["join_cpu_s"]),
            number(f["judge_cpu_s"]), number(f["peak_mb"]), number(f["bytes_a_row"]),
            number(f["bytes_a_user"]),
        ]
        for f in found
    ]  # fmt: skip
    note = (
        "CPU time of one thread. Each row is read once; join and judge take all rows of the "
        "release at each look. Arrow reads the same columns and does nothing with them; DuckDB "
        "counts, per user and version, requests, failures and the longest. Ten requests a user; "
        "memory is the most that was held, reading included."
    )
    return Part(
        title="Evidence",
        head=(
            "log", "rows", "MB", "rows a second, read", "CPU to Arrow", "CPU to DuckDB",
            "join, s a look", "judge, s a look", "memory, MB", "bytes a row", "bytes a user",
        ),
        rows=rows,
        notes=[note],
    )  # fmt: skip


def storage(found: Sequence[Figures]) -> Part:
    """Return the table of bytes."""
    rows = [
        [
            f["workload"] + ("" if f["real"] else ", drawn"), number(f["each"]),
            number(f["rows"]), number(f["journal_mb"]), number(f["parquet_mb"]),
            number(f["bare_mb"]), number(f["journal_to_bare"]), number(f["parquet_to_bare"]),
        ]
        for f in found
    ]  # fmt: skip
    note = (
        "A prediction is one row. Rows are those of the training snapshot; drawn: from what the "
        "contract allows, where the data are not here. Bare: ids of 16 bytes, a time, the "
        "features as numbers, label and probability, not compressed."
    )
    return Part(
        title="Storage of a million predictions",
        head=(
            "workload", "rows a request", "rows measured", "journal, MB", "Parquet, MB",
            "bare columns, MB", "journal to bare", "Parquet to bare",
        ),
        rows=rows,
        notes=[note],
    )  # fmt: skip


def ledger(found: Figures) -> Part:
    """Return the table of appends."""
    entries: int = found["entries"]
    databases: dict[str, dict[str, float]] = {
        name: took for name, took in found.items() if isinstance(took, dict)
    }
    rows = [
        [
            name, number(entries / took["append"]), number(entries / took["bare append"]),
            number(took["append"] / took["bare append"]), number(1e6 * took["verify"] / entries),
        ]
        for name, took in databases.items()
    ]  # fmt: skip
    note = (
        f"{entries:,} entries by one writer, each chained, signed and in a transaction of its own. "
        f"A signature takes {found['signature_us']:.0f} µs. A write that waits for the disk took "
        f"{found['sync_ms']:.2f} ms here; PostgreSQL ran without that wait."
    )
    return Part(
        title="The ledger",
        head=("database", "appends a second", "bare inserts a second", "to bare", "verify, µs"),
        rows=rows,
        notes=[note],
    )


def costs(bytes_each: float) -> Part:
    """Return the table of what a thousand predictions cost, by formula.

    Args:
        bytes_each: Of a prediction in the log's Parquet.
    """
    kept = cost.stored_per_thousand(bytes_each, kept_days=KEPT_DAYS, gb_month=GB_MONTH)
    rows: list[list[str]] = []
    for name, cpu_us in CPU_US.items():
        per_hour = cost.answers_per_hour(cpu_us, busy=BUSY)
        one = cost_per_thousand(CORE_HOUR, per_hour)
        rows.append([name, number(per_hour), _dollars(one), _dollars((1 + STANDBY) * one + kept)])
    gpu = cost_per_thousand(GPU_HOUR, GPU_PER_HOUR)
    rows.append(["a large model on a GPU; *not measured*", number(GPU_PER_HOUR), _dollars(gpu), ""])
    note = (
        f"Prices are parameters: ${CORE_HOUR:g} an hour of a core, ${GB_MONTH:g} a month of 10⁹ "
        f"bytes, ${GPU_HOUR:g} an hour of a GPU. Cores are {BUSY:.0%} busy, and the standby costs "
        f"{STANDBY:.0%} of the champion. The log's {bytes_each:.0f} bytes a prediction, kept "
        f"{KEPT_DAYS:g} days, are {_dollars(kept)} of each."
    )
    return Part(
        title="A thousand predictions",
        head=("way", "an hour of one core or GPU", "$ per 1,000", "$ with standby and log"),
        rows=rows,
        notes=[note],
    )


def _dollars(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.1e}"


def plot(path: Path, found: Sequence[Figures]) -> None:
    """Draw CPU of a look over the releases that a workload has behind it, ours and a bare read."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "scale"
    from matplotlib import pyplot as plt

    alone = [f for f in found if f["database"] == "SQLite"]
    by_past = sorted((f for f in alone if f["releases"] == 10), key=lambda f: f["past"])
    by_size = sorted((f for f in alone if f["past"] == 10), key=lambda f: f["releases"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    past = [f["past"] for f in by_past]
    left.plot(past, [f["ms_each"] for f in by_past], "o-", label="a look")
    left.plot(past, [f["bare_ms_each"] for f in by_past], "s--", label="one bare read of its rows")
    left.set(xscale="log", yscale="log", xlabel="releases behind it", ylabel="CPU ms")
    left.legend()
    sizes = [f["releases"] for f in by_size]
    right.plot(sizes, [f["round_s"] for f in by_size], "o-", label="a round")
    right.axhline(EVERY_S, color="C1", linestyle="--", label="between two rounds")
    right.axhline(LEASE_S, color="C3", linestyle=":", label="a lease")
    right.set(xscale="log", yscale="log", xlabel="active releases", ylabel="seconds")
    right.legend()
    figure.suptitle("What one controller handles", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
