"""The whole path of a request: Envoy, features, model; as multiples of the model's raw call."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.serving import model, servers, store, watch
from benchmarks.serving.floor import floor
from benchmarks.serving.measure import (
    OPEN,
    SATURATING,
    Figures,
    Plan,
    disturbed,
    loaded,
    median,
    refused,
)  # fmt: skip
from benchmarks.serving.model import NAME, Made
from benchmarks.serving.servers import CORE, Running, Server
from benchmarks.serving.store import Stored
from benchmarks.serving.tables import Part, number
from penstock.rollout import envoy
from penstock.rollout.table import TrafficTable

STEADY_PER_S = 500.0
Way = tuple[str, str]
"""Where features come from, and by which way a request comes."""

DIRECT, THROUGH = "directly", "through Envoy"


def measured(plan: Plan, console: Console) -> list[Part]:
    """Measure features sent, from SQLite and from Redis, directly and through Envoy."""
    with ExitStack() as stack:
        made, stores, redis_pid = _stores(plan, console, stack)
        bare = floor(made, core=CORE)
        running: dict[str, Running] = {}
        edges: dict[str, tuple[int, int]] = {}
        for source, server in _servers(made, stores, plan).items():
            running[source] = stack.enter_context(servers.started(server, made, plan.folder))
            folder = plan.folder / f"edge-{source}"
            edges[source] = stack.enter_context(edge(folder, running[source].port))
        taken: dict[Way, list[tuple[Figures, Figures, Figures]]] = {}
        turns = [(s, way) for _ in range(plan.rounds) for s in running for way in (DIRECT, THROUGH)]
        for source, way in track(turns, description="path"):
            pid, port = edges[source] if way == THROUGH else (None, running[source].port)
            others = [one for one in (pid, redis_pid if source == "Redis" else None) if one]
            taken.setdefault((source, way), []).append(
                _asked(running[source], made, plan, port, others)
            )
    held = {
        key: tuple(median([one[i] for one in rounds]) for i in range(3))
        for key, rounds in taken.items()
    }
    return [_path_part(bare["us"], held), _breakdown(held)]


def _stores(
    plan: Plan, console: Console, stack: ExitStack
) -> tuple[Made, dict[str, Stored], int | None]:
    """Return the package with the stores that hold its features; and Redis's process."""
    plain = model.tabular(plan.folder / "tabular")
    stores = {"SQLite": store.in_sqlite(plan.folder / "sqlite", plain.rows_nd)}
    pid = None
    try:
        pid, port = stack.enter_context(store.redis_server(plan.folder))
        stores["Redis"] = store.in_redis(plan.folder / "redis", plain.rows_nd, port)
    except LookupError as e:
        console.print(str(e))
    made = model.scalars(
        plan.folder / "scalars", names=store.NAMES, transform=store.TRANSFORM,
        layout=stores["SQLite"].layout,
    )  # fmt: skip
    return made, stores, pid


def _servers(made: Made, stores: dict[str, Stored], plan: Plan) -> dict[str, Server]:
    """Return a server for each source of features."""

    def server(name: str, build: servers.Build, address: str | None) -> Server:
        held = {} if address is None else {"PENSTOCK_ONLINE": address}
        found = servers.ours(made, plan.folder, name=name, environment=held)
        return replace(found, asked={"v1 JSON": build})

    found = {"sent": server("sent", store.sent, None)}
    for name, one in stores.items():
        found[name] = server(name, partial(store.looked_up, made), one.address)
    return found


def _asked(
    running: Running, made: Made, plan: Plan, port: int, others: list[int]
) -> tuple[Figures, Figures, Figures]:
    """Return figures of one connection, of a steady rate, and of saturation."""
    messages = running.messages("v1 JSON", made)
    ask = partial(loaded, running, messages, plan, port=port, others=others)
    return (
        ask(connections=1),
        ask(connections=OPEN, per_s=STEADY_PER_S),
        ask(connections=SATURATING),
    )


@contextmanager
def edge(folder: Path, port: int) -> Iterator[tuple[int, int]]:
    """Run the Envoy of our data plane before a predictor, on its core; yield its pid and port."""
    folder.mkdir(parents=True)
    outside = watch.free_port()
    made = envoy.Edge(
        folder=folder, port=outside, model=NAME, slots={"a": port, "b": watch.free_port()}
    )
    table = TrafficTable(
        sequence=1, salt="bench", champion="a", challenger=None, buckets=0, mirror=None
    )
    envoy.prepare(made, table)
    with (folder / "envoy.log").open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(CORE), *envoy.command(made)], cwd=folder,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        _wait(outside, process)
        yield process.pid, outside
    finally:
        process.terminate()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    request = f"GET /v2/models/{NAME}/ready HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
    end = time.monotonic() + 20
    said = ""
    while time.monotonic() < end and process.poll() is None:
        try:
            status, body = servers.ask(port, request)
        except OSError as e:
            said = str(e)
        else:
            if status == 200:
                return
            said = f"{status} {body[:200]!r}"
        time.sleep(0.1)
    raise RuntimeError(f"no slot answers through Envoy: {said or process.poll()}")


def _path_part(bare_us: float, held: dict[Way, tuple[Figures, ...]]) -> Part:
    rows: list[list[str]] = []
    for (source, way), (one, steady, full) in held.items():
        total_us = one["cpu_us"] + sum(one["others_cpu_us"])
        rows.append([
            source, way, number(one["p50_ms"]), f"{one['p50_ms'] * 1000 / bare_us:.0f}",
            number(one["cpu_us"]), number(total_us), f"{total_us / bare_us:.0f}",
            number(steady["p50_ms"]), number(steady["p99_ms"]),
            number(full["per_s"]) + refused(full),
        ])  # fmt: skip
    return Part(
        title="The whole path, as multiples of the raw call",
        head=(
            "features", "asked", "p50 ms, alone", "to raw", "server CPU µs", "all CPU µs",
            "to raw", f"p50 ms at {STEADY_PER_S:g}/s", f"p99 ms at {STEADY_PER_S:g}/s",
            f"per s, {SATURATING} connections",
        ),
        rows=rows,
        notes=[
            f"A raw call of the model takes {bare_us:.1f} µs.",
            f"{model.FEATURES} numbers in {store.VIEWS} views, v1 JSON: sent, or looked up.",
            "Alone: one client that asks again when it is answered.",
            "All CPU holds Envoy's and Redis's; all three share the server's core.",
            disturbed(f for figures in held.values() for f in figures),
        ],
        figures={" ".join(key): figures for key, figures in held.items()},
    )  # fmt: skip


def _breakdown(held: dict[Way, tuple[Figures, ...]]) -> Part:
    """Return what the server says of its parts, one client asking alone."""
    names = list(dict.fromkeys(n for figures in held.values() for n in figures[0]["parts_ms"]))
    rows: list[list[str]] = []
    for (source, way), (one, _, _) in held.items():
        parts_us = {n: 1000 * one["parts_ms"].get(n, 0.0) for n in names}
        rest_us = 1000 * one["p50_ms"] - sum(parts_us.values())
        rows.append([source, way, *(number(v) for v in parts_us.values()), number(rest_us)])
    return Part(
        title="Where its time goes, in µs, as the response header server-timing says",
        head=("features", "asked", *names, "outside: network, HTTP, client"),
        rows=rows,
    )
