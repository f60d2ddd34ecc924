"""The tabular model behind every server: CPU per request, capacity, latency at 70 % of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks.serving import model, servers
from benchmarks.serving.floor import floor
from benchmarks.serving.load import CORE as CLIENT_CORE
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
from benchmarks.serving.servers import CORE, Running, Server
from benchmarks.serving.tables import Part, number

OURS = "ours"
Key = tuple[str, str]
"""Server and protocol."""


def declared(made: Made, plan: Plan, console: Console) -> list[Server]:
    """Return every server that is to be had, ours first."""
    found = [
        servers.ours(made, plan.folder, name=OURS),
        servers.raw(made),
        servers.stock(made, quiet=False),
        servers.stock(made, quiet=True),
    ]
    for name in plan.rivals:
        try:
            found.append(servers.rival(name, made, plan.rivals_home, plan.folder))
        except LookupError as e:
            console.print(str(e))
    return found


def compared(plan: Plan, console: Console) -> list[Part]:
    """Measure all, by turns, and return three tables."""
    made = model.tabular(plan.folder / "tabular")
    bare = floor(made, core=CORE)
    with ExitStack() as stack:
        running: list[Running] = []
        for server in declared(made, plan, console):
            try:
                running.append(stack.enter_context(servers.started(server, made, plan.folder)))
            except RuntimeError as e:
                console.print(f"{server.name} is left out: {e}")
        capacity = _capacity(running, made, plan)
        latency = _latency(running, made, plan, capacity)
        same = _same_rate(running[0], made, plan, latency)
        checked = _checked(running[0], made, plan, capacity)
    return [
        _costs(bare, capacity, checked),
        _at_load(latency),
        _beside(latency, same),
    ]


def _keys(running: list[Running]) -> Iterator[tuple[Running, str]]:
    return ((one, protocol) for one in running for protocol in one.server.asked)


def _capacity(running: list[Running], made: Made, plan: Plan) -> dict[Key, dict[int, Figures]]:
    """Return closed loops' figures by number of connections."""
    taken: dict[tuple[str, str, int], list[Figures]] = {}
    turns = [
        (*key, n) for _ in range(plan.rounds) for key in _keys(running) for n in (1, SATURATING)
    ]
    for one, protocol, n in track(turns, description="capacity"):
        found = loaded(one, one.messages(protocol, made), plan, connections=n)
        taken.setdefault((one.server.name, protocol, n), []).append(found)
    result: dict[Key, dict[int, Figures]] = {}
    for (name, protocol, n), rounds in taken.items():
        result.setdefault((name, protocol), {})[n] = median(rounds)
    return result


def _latency(
    running: list[Running], made: Made, plan: Plan, capacity: dict[Key, dict[int, Figures]]
) -> dict[Key, Figures]:
    """Return open loops' figures, each at 70 % of its own capacity."""
    taken: dict[Key, list[Figures]] = {}
    turns = [key for _ in range(plan.rounds) for key in _keys(running)]
    for one, protocol in track(turns, description="latency at 70 %"):
        key = (one.server.name, protocol)
        per_s = LOADED * capacity[key][SATURATING]["per_s"]
        messages = one.messages(protocol, made)
        taken.setdefault(key, []).append(loaded(one, messages, plan, connections=OPEN, per_s=per_s))
    return {key: median(rounds) for key, rounds in taken.items()}


def _counterpart(key: Key) -> str:
    """Return our protocol that stands beside a server's own."""
    return key[1] if key[1] in ("v1 JSON", "v2 JSON", "v2 binary") else "v1 JSON"


def _same_rate(
    own: Running, made: Made, plan: Plan, latency: dict[Key, Figures]
) -> dict[Key, Figures]:
    """Return ours under each other server's load of 70 %."""
    result: dict[Key, Figures] = {}
    others = [key for key in latency if key[0] != OURS]
    for key in track(others, description="ours at their load"):
        messages = own.messages(_counterpart(key), made)
        per_s = latency[key]["asked_per_s"]
        rounds = [
            loaded(own, messages, plan, connections=OPEN, per_s=per_s) for _ in range(plan.rounds)
        ]
        result[key] = median(rounds)
    return result


def _checked(own: Running, made: Made, plan: Plan, capacity: dict[Key, dict[int, Figures]]) -> str:
    """Return what wrk says of our capacity, beside what our own generator says."""
    if shutil.which("wrk") is None:
        return "wrk is not installed, so the load generator was not held against it."
    script = plan.folder / "request.lua"
    head, _, body = own.messages("v2 JSON", made)[0].partition(b"\r\n\r\n")
    path = head.split(b" ")[1].decode()
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = [[{body.decode()}]]\n'
        'wrk.headers["content-type"] = "application/json"\n'
    )
    said = _wrk(script, f"http://127.0.0.1:{own.port}{path}", plan.seconds)
    ours = capacity[OURS, "v2 JSON"][SATURATING]["per_s"]
    return (
        f"wrk, which costs next to nothing, got {number(said)} requests a second from ours in v2 "
        f"JSON at {SATURATING} connections; our own generator {number(ours)}."
    )


def _wrk(script: Path, url: str, seconds: float) -> float | None:
    command = ["taskset", "-c", str(CLIENT_CORE), "wrk", "-t1", f"-c{SATURATING}"]
    done = subprocess.run(
        [*command, f"-d{max(1, round(seconds))}s", "-s", str(script), url],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    return float(found[1]) if found else None


def _costs(bare: dict[str, float], capacity: dict[Key, dict[int, Figures]], checked: str) -> Part:
    rows: list[list[str]] = []
    for key, by_connections in capacity.items():
        full, one = by_connections[SATURATING], by_connections[1]
        own = capacity[OURS, _counterpart(key)][SATURATING]
        rows.append([
            key[0], key[1], number(full["cpu_us"]), number(one["cpu_us"]),
            number(full["per_s"]) + refused(full), number(one["per_s"]),
            f"{full['cpu_us'] / own['cpu_us']:.2f}", f"{own['per_s'] / full['per_s']:.2f}",
        ])  # fmt: skip
    return Part(
        title="Cost of a request, and capacity",
        head=(
            "server", "protocol", f"CPU µs, {SATURATING} connections", "CPU µs, 1",
            f"per s, {SATURATING} connections", "per s, 1", "its CPU to ours",
            "our capacity to its",
        ),
        rows=rows,
        notes=[
            f"A raw call of the model takes {bare['us']:.1f} µs.",
            "A protocol of a server's own stands beside our v1.",
            checked,
            disturbed(f for one in capacity.values() for f in one.values()),
        ],
        figures={"raw_us": bare["us"], **_named(capacity)},
    )  # fmt: skip


def _at_load(latency: dict[Key, Figures]) -> Part:
    rows = [
        [
            *key, number(f["asked_per_s"]), number(f["per_s"]) + refused(f), number(f["p50_ms"]),
            number(f["p99_ms"]), number(f["p999_ms"]), number(f["late_p99_ms"]),
        ]
        for key, f in latency.items()
    ]  # fmt: skip
    return Part(
        title="Latency at 70 % of each server's own capacity",
        head=(
            "server", "protocol", "asked per s", "answered per s", "p50 ms", "p99 ms", "p99.9 ms",
            "generator late, p99 ms",
        ),
        rows=rows,
        notes=[
            "Requests come independently of each other; latency counts from when each was due.",
            disturbed(latency.values()),
        ],
        figures=_named(latency),
    )  # fmt: skip


def _beside(latency: dict[Key, Figures], same: dict[Key, Figures]) -> Part:
    rows = [
        [
            *key, number(latency[key]["asked_per_s"]), number(latency[key]["p50_ms"]),
            number(own["p50_ms"]), number(latency[key]["p99_ms"]), number(own["p99_ms"]),
            f"{latency[key]['p99_ms'] / own['p99_ms']:.1f}",
        ]
        for key, own in same.items()
    ]  # fmt: skip
    return Part(
        title="Latency under the same load: 70 % of the other server's capacity",
        head=(
            "server", "protocol", "per s", "its p50 ms", "our p50 ms", "its p99 ms", "our p99 ms",
            "its p99 to ours",
        ),
        rows=rows,
        figures=_named(same),
    )  # fmt: skip


def _named(held: dict[Key, Any]) -> dict[str, Any]:
    return {f"{name}, {protocol}": figures for (name, protocol), figures in held.items()}
