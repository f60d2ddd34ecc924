"""Small real packages and servers for tests of serving and release."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec
from onnx import TensorProto, helper, numpy_helper

from penstock.bundle import Bundle, Recipe, Summary, write, write_json
from penstock.request import Contract, Feature
from penstock.runtimes.onnxruntime import OnnxModel
from penstock.workload import transform_file
from tests.bundles import NOW
from workloads.digits.transform import request_input


def graph(seed: int) -> onnx.ModelProto:
    """Return one linear layer with seeded weights: [n, 1, 8, 8] to [n, 10]."""
    weights = np.random.default_rng(seed).normal(0, 1, (64, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
    made = helper.make_graph(
        nodes, "linear", [image], [logits], [numpy_helper.from_array(weights, "w")]
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(made, opset_imports=opset, ir_version=10)


PIXELS = Feature(name="pixels", dtype="list<element: float>", length=64, low=0, high=16)
DIGITS = Contract(workload="digits", classes=10, threshold=None, rows=64, features=(PIXELS,))


GOLDEN = np.random.default_rng(1).integers(0, 17, (3, 64)).astype(np.float32)
"""Raw images whose answers the packages hold."""


def table(rows: np.ndarray) -> pa.Table:
    """Return raw images [n, 64] as a request's rows."""
    return pa.table({"pixels": pa.array(list(rows), PIXELS.arrow)})


def make_package(
    path: Path,
    *,
    seed: int = 7,
    golden_shift: float = 0.0,
    contract: Contract = DIGITS,
    runtimes: Mapping[str, Any] | None = None,
    more: Callable[[Path], object] | None = None,
) -> Bundle:
    """Write a package of a linear model.

    Args:
        golden_shift: Makes its golden answers wrong.
        runtimes: Golden answers of other runtimes, as ``golden.json`` has them.
        more: Writes further files into the folder.
    """

    def make(folder: Path) -> Summary:
        if more is not None:
            more(folder)
        onnx.save(graph(seed), folder / "model.onnx")
        logits = OnnxModel(folder / "model.onnx").run(request_input(table(GOLDEN))) + golden_shift
        requests = [
            {"instance": {"pixels": r.tolist()}, "logits": a.tolist()}
            for r, a in zip(GOLDEN, logits, strict=True)
        ]
        golden = {"tolerance": 1e-3, "requests": requests}
        others = {} if runtimes is None else {"runtimes": dict(runtimes)}
        write_json(folder / "golden.json", golden | others)
        write_json(folder / "serving.json", contract.to_dict())
        shutil.copy(transform_file("digits"), folder / "transform.py")
        return Summary("pass", "made for a test")

    recipe = Recipe(kind="package", workload="digits", settings={"seed": seed})
    return write(path, recipe, make=make, now=NOW)


def keys(folder: Path, *, name: str = "key") -> tuple[Path, Path]:
    """Write a private and a public key to sign packages with; return their files."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def body(rows: np.ndarray, **over: Any) -> bytes:
    """Return a v2 request of raw rows, with fields of its input replaced."""
    tensor = {
        "name": "pixels",
        "shape": list(rows.shape),
        "datatype": "FP32",
        "data": rows.ravel().tolist(),
        **over,
    }
    return json.dumps({"id": "r", "inputs": [tensor]}).encode()


def free_port() -> int:
    """Return a loopback port nobody uses now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def predictor(
    package: Path, log: Path, *extra: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the real server on a package and yield it with its port, once it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "serving.predictor", "--bundle", str(package)]
    command += ["--model-name", "digits", "--version", "3", "--log", str(log), "--port", str(port)]
    log.mkdir(parents=True, exist_ok=True)
    with (log / "server.log").open("wb") as output:
        process = subprocess.Popen([*command, *extra], stdout=output, stderr=output)
    try:
        wait_for(lambda: (log / "ready.json").exists() or process.poll() is not None, 60)
        wait_for(lambda: listens(port) or process.poll() is not None, 10)
        yield process, port
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def listens(port: int) -> bool:
    """Return whether somebody accepts connections on a loopback port."""
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def wait_for(true: Any, seconds: float) -> None:
    """Wait until something is true; fail the test when it does not become so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Return whether a process runs; one that ended and waits to be collected does not."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (ProcessLookupError, FileNotFoundError):
        return False


def records(log: Path) -> list[dict[str, Any]]:
    """Return the prediction log's complete lines."""
    return [
        json.loads(line)
        for path in sorted(log.glob("predictions-*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
