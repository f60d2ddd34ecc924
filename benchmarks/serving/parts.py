"""What parts of our server cost or gain: the log, batching, warm-up; and a model that is large."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console
from rich.progress import track

from benchmarks.serving import model, servers
from benchmarks.serving.floor import floor
from benchmarks.serving.measure import (
    LOADED,
    OPEN,
    SATURATING,
    Figures,
    Plan,
    disturbed,
    loaded,
    median,
    refused,
)  # fmt: skip
from benchmarks.serving.model import Made
from benchmarks.serving.servers import CORE, Running
from benchmarks.serving.tables import Part, number
from penstock.endpoint import Endpoint

NO_BATCHING_MS = 1e-6
"""A batch that may take no longer holds one request."""

PROTOCOL = "v2 JSON"


def logging(plan: Plan, _console: Console) -> list[Part]:
    """Measure our server with its prediction log and without."""
    made = model.tabular(plan.folder / "tabular-log")
    declared = [
        servers.ours(made, plan.folder, name="with the log"),
        servers.ours(made, plan.folder, name="without", without="unlogged"),
    ]
    closed: dict[str, list[Figures]] = {}
    opened: dict[str, list[Figures]] = {}
    with ExitStack() as stack:
        running = [stack.enter_context(servers.started(s, made, plan.folder)) for s in declared]
        messages = running[0].messages(PROTOCOL, made)
        for _ in track(range(2 * plan.rounds), description="log: capacity"):
            for one in running:
                found = loaded(one, messages, plan, connections=SATURATING)
                closed.setdefault(one.server.name, []).append(found)
        per_s = LOADED * median(closed["with the log"])["per_s"]
        for _ in track(range(2 * plan.rounds), description="log: latency"):
            for one in running:
                found = loaded(one, messages, plan, connections=OPEN, per_s=per_s)
                opened.setdefault(one.server.name, []).append(found)
    rows: list[list[str]] = []
    for name, taken in closed.items():
        full, at_load = median(taken), median(opened[name])
        rows.append([
            name, number(full["per_s"]) + refused(full), number(full["cpu_us"]),
            number(at_load["p50_ms"]), number(at_load["p99_ms"]),
        ])  # fmt: skip
    kept = statistics.median(a["per_s"] / b["per_s"] for a, b in zip(*closed.values(), strict=True))
    return [
        Part(
            title="The prediction log",
            head=("", f"per s, {SATURATING} connections", "CPU µs", "p50 ms", "p99 ms"),
            rows=rows,
            notes=[
                f"With the log {kept:.1%} of the throughput is kept, the median over pairs.",
                f"Latency at {per_s:,.0f} requests a second for both.",
                disturbed(f for taken in (*closed.values(), *opened.values()) for f in taken),
            ],
            figures={"kept": kept, "closed": closed, "open": opened},
        )
    ]


def batching(plan: Plan, _console: Console) -> list[Part]:
    """Measure our server with batching and without, at 1, 8 and 32 connections."""
    on = model.tabular(plan.folder / "tabular-batched")
    off = model.tabular(
        plan.folder / "tabular-single", endpoint=Endpoint(max_batch_ms=NO_BATCHING_MS)
    )
    taken: dict[tuple[str, int], list[Figures]] = {}
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                servers.started(servers.ours(made, plan.folder, name=name), made, plan.folder)
            )
            for name, made in (("together", on), ("one by one", off))
        ]
        turns = [(r, n, one) for r in range(plan.rounds) for n in (1, 8, 32) for one in running]
        for _, n, one in track(turns, description="batching"):
            found = loaded(one, one.messages(PROTOCOL, on), plan, connections=n)
            taken.setdefault((one.server.name, n), []).append(found)
    held = {key: median(rounds) for key, rounds in taken.items()}
    rows = [
        [
            str(n), name, number(f["per_s"]) + refused(f), number(f["cpu_us"]),
            number(f["p50_ms"]), number(f["p99_ms"]),
            f"{f['per_s'] / held['one by one', n]['per_s']:.2f}",
        ]
        for (name, n), f in sorted(held.items(), key=lambda item: item[0][1])
    ]  # fmt: skip
    return [
        Part(
            title="Requests that wait at the same moment, run together or one by one",
            head=(
                "connections", "run", "per s", "CPU µs", "p50 ms", "p99 ms", "to one by one",
            ),
            rows=rows,
            notes=[disturbed(held.values())],
            figures={f"{name}, {n}": f for (name, n), f in held.items()},
        )
    ]  # fmt: skip


def vision(plan: Plan, _console: Console) -> list[Part]:
    """Measure a ResNet-18 on images of 32 pixels beside its raw calls on the same core."""
    made = model.vision(plan.folder / "vision")
    bare: list[dict[str, float]] = []
    taken: dict[tuple[str, str, int], list[Figures]] = {}
    declared = [
        servers.ours(made, plan.folder),
        servers.ours(made, plan.folder, name="ours, no log", without="unlogged"),
    ]
    with ExitStack() as stack:
        running = [stack.enter_context(servers.started(s, made, plan.folder)) for s in declared]
        turns = [
            (one, protocol, n) for protocol in ("v2 binary", "v2 JSON") for n in (1, 4)
            for one in running
        ]  # fmt: skip
        for _ in track(range(plan.rounds), description="vision"):
            bare.append(floor(made, core=CORE))
            for one, protocol, n in turns:
                found = loaded(one, one.messages(protocol, made), plan, connections=n)
                taken.setdefault((one.server.name, protocol, n), []).append(found)
    per_s, cpu_us = (statistics.median(b[k] for b in bare) for k in ("per_s", "cpu_us"))
    rows = [["raw ONNX Runtime", "", "", number(per_s), "1.00", number(cpu_us), "1.00", "", ""]]
    held = {key: median(rounds) for key, rounds in taken.items()}
    rows += [
        [
            name, protocol, str(n), number(f["per_s"]) + refused(f), f"{f['per_s'] / per_s:.2f}",
            number(f["cpu_us"]), f"{f['cpu_us'] / cpu_us:.2f}",
            number(1000 * f["parts_ms"].get("inference", 0.0)), number(f["p99_ms"]),
        ]
        for (name, protocol, n), f in held.items()
    ]  # fmt: skip
    return [
        Part(
            title="A model of half a millisecond: ResNet-18 on images of 32 pixels",
            head=(
                "", "protocol", "connections", "per s", "to raw", "CPU µs", "to raw",
                "inference µs", "p99 ms",
            ),
            rows=rows,
            notes=[disturbed(held.values())],
            figures={"raw": bare, **{", ".join(map(str, k)): f for k, f in held.items()}},
        )
    ]  # fmt: skip


def ready(plan: Plan, console: Console) -> list[Part]:
    """Measure the seconds to ready, and the first request beside those that follow."""
    made = model.tabular(plan.folder / "tabular-ready")
    found: dict[str, list[dict[str, float]]] = {}
    for turn in track(range(max(3, plan.rounds)), description="starts"):
        declared = [
            servers.ours(made, plan.folder / f"start-{turn}"),
            servers.ours(
                made, plan.folder / f"start-{turn}", name="ours, not warmed", without="cold"
            ),
            servers.stock(made, quiet=True),
        ]
        for server in declared:
            try:
                with servers.started(server, made, plan.folder) as running:
                    found.setdefault(server.name, []).append(_first(running, made))
            except RuntimeError as e:
                console.print(f"{server.name} did not start: {e}")
    rows: list[list[str]] = []
    for name, taken in found.items():
        middle = {k: statistics.median(t[k] for t in taken) for k in taken[0]}
        rows.append([
            name, f"{middle['ready_s']:.2f}", number(middle["first_ms"]), number(middle["next_ms"]),
            f"{middle['first_ms'] / middle['next_ms']:.1f}",
        ])  # fmt: skip
    return [
        Part(
            title="From start to ready, and the first request",
            head=("", "s from start to first answer", "first ms", "next ms", "first to next"),
            rows=rows,
            notes=["Each request on a connection of its own; the next is the median of fifty."],
            figures=found,
        )
    ]


def _first(running: Running, made: Made) -> dict[str, float]:
    messages = running.messages(PROTOCOL, made)
    return {
        "ready_s": running.ready_s,
        "first_ms": running.first_ms,
        "next_ms": statistics.median(_asked(running.port, messages[:50])),
    }


def _asked(port: int, messages: Sequence[bytes]) -> list[float]:
    taken: list[float] = []
    for message in messages:
        begun = time.perf_counter()
        servers.ask(port, message)
        taken.append((time.perf_counter() - begun) * 1000)
    return taken
