"""Every server that is measured: how it is started, and how it is asked."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving import model, watch
from benchmarks.serving.environments import ROOT, environment, last_line, run
from benchmarks.serving.model import Made
from benchmarks.serving.rivals.network import MODEL

CORE = 0
"""Of the server; the load generator has the other one."""

START_S, POLL_S = 90, 0.01
RIVALS = "benchmarks.serving.rivals"
ALTERED = "benchmarks.serving.altered"

Build = Callable[[Any], bytes]
"""From a row to a whole request."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """One server, not started."""

    name: str
    command: Sequence[str]
    port: int
    asked: Mapping[str, Build]
    """Of each protocol it speaks, a request of one row."""

    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    ready: Path | None = None
    """A file that appears when it is ready; without one it is ready when it answers."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers."""

    server: Server
    pid: int
    ready_s: float
    """From its start to its first right answer."""

    first_ms: float
    """Of that answer alone, on a connection of its own."""

    port: int

    def messages(self, protocol: str, made: Made) -> list[bytes]:
        """Return requests that are sent in turns."""
        build = self.server.asked[protocol]
        return [build(row) for row in made.rows_nd]


def ours(
    made: Made, folder: Path, *, name: str = "ours", without: str = "",
    environment: Mapping[str, str] | None = None,
) -> Server:  # fmt: skip
    """Return our predictor on a package, its log below a folder.

    Args:
        without: A part that is left out, of :mod:`benchmarks.serving.altered`.
    """
    port = watch.free_port()
    log = folder / name.replace(" ", "-")
    module = [ALTERED, without] if without else ["serving.predictor"]
    command = [sys.executable, "-m", *module, "--bundle", str(made.package), "--log", str(log)]
    command += ["--model-name", model.NAME, "--version", "1", "--port", str(port)]
    return Server(
        name=name,
        command=command,
        port=port,
        asked={"v1 JSON": model.v1, "v2 JSON": model.v2_json, "v2 binary": model.v2_binary},
        environment=environment or {},
        ready=log / "ready.json",
    )


def raw(made: Made) -> Server:
    """Return an ASGI application by hand."""
    port = watch.free_port()
    return Server(
        name="raw ASGI + ONNX Runtime",
        command=[sys.executable, "-m", f"{RIVALS}.raw", str(port)],
        port=port,
        asked={"v1 JSON": model.v1, "v2 JSON": model.v2_json, "v2 binary": model.v2_binary},
        environment={MODEL: str(made.graph)},
    )


def stock(made: Made, *, quiet: bool) -> Server:
    """Return KServe's own server, with its access log or without."""
    port = watch.free_port()
    return Server(
        name="KServe, access log off" if quiet else "KServe, stock",
        command=[
            sys.executable, "-m", f"{RIVALS}.stock", str(port), *(["quiet"] if quiet else []),
        ],
        port=port,
        asked={"v1 JSON": model.v1, "v2 JSON": model.v2_json, "v2 binary": model.v2_binary},
        environment={MODEL: str(made.graph)},
    )  # fmt: skip


def rival(name: str, made: Made, home: Path, scratch: Path) -> Server:
    """Return another server, in its environment below ``home``.

    Raises:
        LookupError: Its environment cannot be made; the text says why.
    """
    binaries = environment(name, home) / "bin"
    port = watch.free_port()
    held = {MODEL: str(made.graph), "PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "True"}
    if name == "mlflow":
        return _mlflow(made, binaries, scratch / "mlflow-model", port, held)
    if name == "mlserver":
        folder = scratch / "mlserver"
        run([binaries / "python", "-m", f"{RIVALS}.seldon", folder, port], held)
        command = [str(binaries / "mlserver"), "start", str(folder)]
        return Server(
            name="MLServer", command=command, port=port, environment=held,
            asked={"v2 JSON": model.v2_json},
        )  # fmt: skip
    if name == "litserve":
        return Server(
            name="LitServe", command=[str(binaries / "python"), "-m", f"{RIVALS}.lit", str(port)],
            port=port, environment=held,
            asked={"its own JSON": lambda row: model.inputs("/predict", row)},
        )  # fmt: skip
    command = [str(binaries / "bentoml"), "serve", f"{RIVALS}.bento:Tabular"]
    return Server(
        name="BentoML", command=[*command, "--host", "127.0.0.1", "--port", str(port)],
        port=port, environment={**held, "BENTOML_HOME": str(scratch / "bento")},
        asked={"its own JSON": lambda row: model.inputs("/predict", row)},
    )  # fmt: skip


def _mlflow(made: Made, binaries: Path, folder: Path, port: int, held: Mapping[str, str]) -> Server:
    run([binaries / "python", "-m", f"{RIVALS}.mlflow_model", folder, made.rows_nd.shape[1]], held)
    command = [str(binaries / "mlflow"), "models", "serve", "-m", str(folder)]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    return Server(
        name="mlflow models serve", command=command, port=port,
        # It starts uvicorn by its name, which has to be the environment's.
        environment={**held, "PATH": f"{binaries}:{os.environ['PATH']}"},
        asked={"its own JSON": lambda row: model.inputs("/invocations", row)},
    )  # fmt: skip


@contextmanager
def started(server: Server, made: Made, folder: Path, *, core: int = CORE) -> Iterator[Running]:
    """Run a server on one core until it has answered rightly, and stop it at the end.

    Raises:
        RuntimeError: It ended, or gave no answer or a wrong one.
    """
    output = folder / f"{server.name.replace(' ', '-').replace(',', '')}.log"
    begun = time.perf_counter()
    with output.open("wb") as to:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *server.command],
            env={**os.environ, **server.environment}, cwd=ROOT, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=to, stderr=to,
        )  # fmt: skip
    try:
        protocol, build = next(iter(server.asked.items()))
        answer, first_ms = _first_answer(process, server, build(made.rows_nd[0]), output)
        ready_s = time.perf_counter() - begun
        if not _holds(json.loads(answer), made):
            raise RuntimeError(f"{server.name} answered {protocol} wrongly: {answer[:300]!r}")
        yield Running(
            server=server, pid=process.pid, ready_s=ready_s, first_ms=first_ms, port=server.port
        )
    finally:
        _stop(process)


def _first_answer(
    process: subprocess.Popen[bytes], server: Server, request: bytes, output: Path
) -> tuple[bytes, float]:
    end = time.monotonic() + START_S
    said = "it is not ready"
    while time.monotonic() < end and process.poll() is None:
        if server.ready is not None and not server.ready.exists():
            time.sleep(POLL_S)
            continue
        begun = time.perf_counter()
        try:
            status, answer = ask(server.port, request)
        except (OSError, http.client.HTTPException) as e:
            said = str(e)
        else:
            if status == 200:
                return answer, (time.perf_counter() - begun) * 1000
            said = f"{status} {answer[:300]!r}"
        time.sleep(POLL_S)
    ended = process.poll()
    why = said if ended is None else f"ended with {ended}: {last_line(output.read_text())}"
    raise RuntimeError(f"{output.stem} does not answer: {why}")


def ask(port: int, request: bytes, *, timeout_s: float = 10) -> tuple[int, bytes]:
    """Send one whole request on a connection of its own; return status and body."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(*first.split(" ")[:2], body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _holds(answer: Any, made: Made) -> bool:
    """Return whether an answer holds the network's probability, or its logit, of the first row."""
    from benchmarks.serving.rivals.network import Network

    rows = made.rows_nd[:1].reshape(1, *made.input_shape)
    wanted = [float(made.first()[0]), float(Network(str(made.graph)).logits(rows)[0, 0])]
    return any(abs(one - w) < 1e-4 for one in _leaves(answer) for w in wanted)


def _leaves(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    elif isinstance(value, float):
        yield value


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it started."""
    pids = watch.tree(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
