"""Probe: start the real server on a package, ask it over HTTP, end it; report what was seen."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock import workload as workloads
from penstock.processes import die_with_parent
from penstock.request import Contract, Feature

PREDICTOR = (sys.executable, "-m", "serving.predictor")
"""Command of the real server; the library never imports it."""

READY_S, ANSWER_S, END_S = 60.0, 10.0, 10.0
"""How long to wait until a server is ready, until it answers, until it ends."""

TIMED = 100
"""Requests whose latency is measured."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one request."""

    status: int
    """Of HTTP; 0 when nothing came."""

    document: Any
    ms: float = 0.0


@dataclass(kw_only=True)
class Seen:
    """Everything observed of one server; None and empty where it was not reached."""

    ready_s: float | None = None
    said: str = ""
    """The server's last line, when it was never ready."""

    metadata: Answer | None = None
    v1: list[Answer] = field(default_factory=list[Answer])
    v2: list[Answer] = field(default_factory=list[Answer])
    batch: Answer | None = None
    bad: Answer | None = None
    after: Answer | None = None
    timed_ms: list[float] = field(default_factory=list[float])
    exit_code: int | None = None


def observe(
    package: Path,
    contract: Contract,
    golden: Mapping[str, Any],
    log: Path,
    *,
    command: Sequence[str],
    ready_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Seen:
    """Start the server, send what a judge wants to know, end it; what fails there is only seen.

    Args:
        golden: The package's ``golden.json``.
        log: Empty folder for what the server writes.
        ready_s: How long to wait until it is ready.
    """
    seen, name = Seen(), contract.workload
    with _serving(package, name, log, command) as (process, port):
        begun = clock()
        while seen.ready_s is None and process.poll() is None and clock() - begun < ready_s:
            if (log / "ready.json").exists():
                seen.ready_s = clock() - begun
            time.sleep(0.02)
        if seen.ready_s is not None:
            _ask(Client(port, clock), name, contract, golden, seen)
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                seen.exit_code = process.wait(END_S)
        elif (code := process.poll()) is not None:
            lines = (log / "server.log").read_text("utf-8", "replace").strip().splitlines()
            seen.said = lines[-1] if lines else f"it ended with {code} and said nothing"
    return seen


@contextmanager
def _serving(
    package: Path, name: str, log: Path, command: Sequence[str]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Yield the server's process and its port on loopback; afterwards it does not run any more."""
    arguments = ["--bundle", str(package.resolve()), "--model-name", name, "--version", "0"]
    with socket.socket() as listening, (log / "server.log").open("wb") as output:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        arguments += ["--fd", str(listening.fileno()), "--log", str(log)]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=workloads.root(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[listening.fileno()],
            # The only other threads are onnxruntime's, which hold no lock of Python's.
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
        port = listening.getsockname()[1]
    try:
        yield process, port
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


class Client:
    """Asks one loopback server over one connection."""

    def __init__(self, port: int, clock: Callable[[], float]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
        self._clock = clock

    def ask(self, path: str, document: object = None) -> Answer:
        """Return the answer to a GET, or to a POST of a document; status 0 when none came."""
        begun = self._clock()
        try:
            if document is None:
                self._connection.request("GET", path)
            else:
                headers = {"Content-Type": "application/json"}
                self._connection.request("POST", path, json.dumps(document), headers)
            came = self._connection.getresponse()
            said = json.loads(came.read())
        except (OSError, http.client.HTTPException, ValueError) as e:
            self._connection.close()
            return Answer(status=0, document=repr(e))
        return Answer(status=came.status, document=said, ms=(self._clock() - begun) * 1000)

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def _ask(
    client: Client,
    name: str,
    contract: Contract,
    golden: Mapping[str, Any],
    seen: Seen,
) -> None:
    """Send everything once; a server that stopped answering is asked nothing more."""
    one, two = f"/v1/models/{name}:predict", f"/v2/models/{name}/infer"
    requests = golden["requests"]
    try:
        seen.metadata = client.ask(f"/v2/models/{name}")
        for request in requests:
            seen.v1.append(client.ask(one, v1_body(contract, [request])))
            seen.v2.append(client.ask(two, v2_body(contract, [request])))
            if not seen.v2[-1].status:
                return
        seen.batch = client.ask(two, v2_body(contract, requests))
        seen.bad = client.ask(two, {"inputs": "not a list of tensors"})
        seen.after = client.ask(two, v2_body(contract, requests[:1]))
        for number in range(TIMED if requests else 0):
            answer = client.ask(two, v2_body(contract, [requests[number % len(requests)]]))
            if answer.status != 200:
                return
            seen.timed_ms.append(answer.ms)
    finally:
        client.close()


def v1_body(contract: Contract, requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a v1 request of golden rows."""
    rows = [request["instance"] for request in requests]
    if contract.plain:
        rows = [row[contract.names[0]] for row in rows]
    return {"instances": rows}


def v2_body(contract: Contract, requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a v2 request of golden rows: one tensor a feature."""
    return {"inputs": [_tensor(feature, requests) for feature in contract.features]}


def _tensor(feature: Feature, requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [request["instance"][feature.name] for request in requests]
    return {
        "name": feature.name,
        "shape": [len(requests), *feature.shape[1:]],
        "datatype": feature.datatype,
        "data": values if feature.length is None else [v for row in values for v in row],
    }
