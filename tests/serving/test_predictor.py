"""Laws of the predictor, on the real server: right, guarded, logged, ready only when right."""

from __future__ import annotations

import argparse
import gc
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from penstock.bundle import MANIFEST
from penstock.runtimes.onnxruntime import OnnxModel
from serving.answering import Answering
from serving.batching import Batching
from serving.faults import Fault, share_of
from serving.hardened import Receive, Scope, Send
from serving.metrics import Metrics
from serving.package import NotServable, Served
from serving.path import Path as LeanPath
from serving.predictor import _ready, arguments, check_digest, listening, loaded
from serving.reading import Names
from serving.warming import Unanswered, warm
from tests.packages import DIGITS, body, make_package, predictor, records, running, table, wait_for
from workloads.digits.transform import request_input

ROWS = np.random.default_rng(3).integers(0, 17, (2, 64)).astype(np.float32)
INFER = "/v2/models/digits/infer"


class Server:
    """A running predictor and what a test needs of it."""

    def __init__(self, port: int, log: Path, package: Path) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}")
        self.log, self.package = log, package


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One real server for the module: KServe takes seconds to import."""
    folder = tmp_path_factory.mktemp("serving")
    made = make_package(folder / "package")
    with predictor(made.path, folder / "log") as (_, port):
        held = Server(port, folder / "log", made.path)
        yield held
        held.client.close()


def test_both_protocols_answer_what_the_graph_answers(server: Server):
    """v1 and v2 give the label and probabilities of the package's own graph."""
    logits = OnnxModel(server.package / "model.onnx").run(request_input(table(ROWS)))

    two = server.client.post(INFER, content=body(ROWS)).json()
    one = server.client.post("/v1/models/digits:predict", json={"instances": ROWS.tolist()}).json()

    outputs = {o["name"]: o["data"] for o in two["outputs"]}
    assert outputs["label"] == logits.argmax(axis=1).tolist()
    assert [p["label"] for p in one["predictions"]] == outputs["label"]
    np.testing.assert_allclose(
        np.reshape(outputs["probability"], (2, 10)).sum(axis=1), 1, atol=1e-5
    )
    assert two["model_version"] == "3"
    assert "null" not in json.dumps(two)


BAD = {
    "no json": (b"{", "body"),
    "no inputs": (b'{"inputs": []}', "pixels: is missing"),
    "wrong name": (body(ROWS, name="image"), "pixels: is missing"),
    "wrong type": (body(ROWS, datatype="INT32"), "FP32 was wanted"),
    "wrong shape": (body(ROWS, shape=[2, 63]), "pixels"),
    "too wide": (body(np.zeros((1, 65), np.float32)), "[n, 64] was wanted"),
    "out of range": (body(ROWS + 100), "0 to 16 are allowed"),
    "too many rows": (body(np.zeros((65, 64), np.float32)), "1 to 64"),
    "text": (body(ROWS, data=["3"] * 128), "text came, numbers were wanted"),
    "truth values": (body(ROWS, data=[True] * 128), "a truth value came"),
    "not finite": (body(ROWS, data=[float("nan")] * 128), "not a finite number"),
    "too large for a float": (body(ROWS, data=[10**400] * 128), "pixels"),
    "negative size": (body(ROWS, shape=[-1, 64]), "negative size"),
    "endless nesting": (b"[" * 60_000, "body"),
    "no text": (b'{"inputs": "\xff"}', "body"),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_refused_with_the_field_and_the_wish(
    server: Server, content: bytes, said: str
):
    """Whatever is wrong gives 400 and a sentence that names it, never a 500."""
    answer = server.client.post(INFER, content=content)

    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_an_unreadable_binary_request_is_the_clients_mistake(server: Server):
    """A binary request that KServe fails to decode gives 400: no client can make a model fail."""
    for said in ("junk", "2", "-5", "99999999"):
        headers = {"inference-header-content-length": said}
        answer = server.client.post(INFER, content=b"{}", headers=headers)

        assert answer.status_code == 400
        assert "error" in answer.json()


def test_any_header_the_edge_sends_is_survived(server: Server):
    """A bucket that is no number is no bucket; the request is answered and logged."""
    for number, bucket in enumerate([b"\xb2", b"9" * 5000, b"-1", b"", b"0x1f"]):
        headers = {"x-rollout-bucket": bucket, "x-request-id": f"odd-{number}".encode()}
        assert server.client.post(INFER, content=body(ROWS), headers=headers).status_code == 200

    odd = set(map("odd-{}".format, range(5)))
    wait_for(lambda: odd <= {r["request_id"] for r in records(server.log)}, 5)
    assert {r["bucket"] for r in records(server.log) if r["request_id"] in odd} == {None}


def test_every_answer_names_version_slot_and_request(server: Server):
    """Answered or refused, the headers say who answered what; a missing id is made."""
    given = server.client.post(INFER, content=body(ROWS), headers={"x-request-id": "mine"})
    made = server.client.post(INFER, content=b"{")

    assert given.headers["x-request-id"] == "mine"
    assert made.headers["x-request-id"]
    for answer in (given, made):
        assert (answer.headers["x-penstock-version"], answer.headers["x-penstock-slot"]) == (
            "3",
            "a",
        )


def test_only_the_outputs_asked_for_are_sent(server: Server):
    """A client may name the outputs it wants; one that does not exist is refused."""
    document = json.loads(body(ROWS))

    def ask(name: str) -> httpx.Response:
        return server.client.post(INFER, json={**document, "outputs": [{"name": name}]})

    assert [o["name"] for o in ask("label").json()["outputs"]] == ["label"]
    assert ask("score").status_code == 400


def test_ready_says_how_it_became_so(server: Server):
    """Seconds, process, port and the warmth of every batch size are on file."""
    said = json.loads((server.log / "ready.json").read_text())

    assert said["port"] == server.client.base_url.port
    assert (said["version"], said["golden"]) == ("3", 3)
    assert said["seconds"] > 0
    assert [w["batch"] for w in said["warmth"]] == [1, 2, 4, 8, 16, 32, 64]
    assert all(w["steady_ms"] > 0 and w["rounds"] <= 50 for w in said["warmth"])


def test_a_large_body_is_refused(server: Server):
    """A body over the limit is not read, whether or not it says how long it is."""
    large = b"x" * (2 << 20)

    def pieces() -> Iterator[bytes]:
        yield from (large[i : i + 65536] for i in range(0, len(large), 65536))

    for content in (large, pieces()):
        try:
            assert server.client.post(INFER, content=content).status_code == 413
        except httpx.TransportError:
            continue  # the server hung up on a client that went on sending


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/models/digits/unload",
        "/v2/repository/index",
        "/v2/models/digits/versions/4/infer",
        "/docs",
        "/v1/models/digits:explain",
    ],
)
def test_what_nobody_needs_is_closed(server: Server, path: str):
    """The calls that unload models or describe the server to strangers do not exist."""
    assert server.client.post(path).status_code == 404
    assert server.client.get("/v2/models/digits/ready").status_code == 200


def test_headers_are_not_echoed(server: Server):
    """No route gives a caller's headers back."""
    secret = {"authorization": "Bearer secret"}

    answer = server.client.post("/v1/models/digits:explain", json={"instances": []}, headers=secret)

    assert answer.status_code == 404
    assert "secret" not in str(answer.headers)


def test_every_request_is_in_the_log(server: Server):
    """Answered, refused and mirrored requests each leave one record with what the edge said."""
    edge = {"x-user-id": "u-1", "x-rollout-bucket": "5", "x-rollout-arm": "champion"}
    server.client.post(INFER, content=body(ROWS), headers={**edge, "x-request-id": "good"})
    server.client.post(INFER, content=b"{", headers={"x-request-id": "bad"})
    shadow = {"x-request-id": "copy", "host": "digits-shadow:80"}
    server.client.post(INFER, content=body(ROWS), headers=shadow)

    def found() -> dict[str, dict[str, object]]:
        return {r["request_id"]: r for r in records(server.log)}

    wait_for(lambda: {"good", "bad", "copy"} <= found().keys(), 5)
    good, bad, copy = (found()[name] for name in ("good", "bad", "copy"))
    assert (good["status"], good["bucket"], good["arm"]) == (200, 5, "champion")
    assert len(str(good["user"])) == 32
    assert "u-1" not in str(good)
    assert good["features"] == {"pixels": ROWS.tolist()}
    assert (bad["status"], bad["label"]) == (400, None)
    assert (good["mirrored"], copy["mirrored"]) == (False, True)


def scraped(log: Path) -> str:
    """Return what a server's metrics port says."""
    port = json.loads((log / "ready.json").read_text())["metrics_port"]
    return httpx.get(f"http://127.0.0.1:{port}/metrics").text


def test_every_request_is_counted(server: Server):
    """Answered, refused by the contract and refused at the door: all on the metrics port."""
    server.client.post(INFER, content=body(ROWS), headers={"x-rollout-arm": "probe"})
    server.client.post(INFER, content=b"{")
    server.client.post("/v2/repository/index")

    said = scraped(server.log)

    for sample in (
        'penstock_requests_total{arm="probe",mirrored="false",protocol="v2",status="200"} 1.0',
        'status="400"}',
        'status="404"}',
        "penstock_ready 1.0",
        "penstock_batch_rows_count",
        "penstock_queue_depth 0.0",
        "penstock_in_flight 0.0",
        'penstock_log_records_total{outcome="dropped"} 0.0',
    ):
        assert sample in said


def test_the_server_describes_itself(server: Server):
    """Its own routes, and what they take, are one document that anybody may read."""
    said = server.client.get("/openapi.json").json()

    assert {INFER, "/v1/models/digits:predict"} <= said["paths"].keys()


def test_a_user_has_one_hash_under_one_salt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two servers that share the salt call the same user the same; without it nobody can."""
    made = make_package(tmp_path / "package")
    (tmp_path / "salt").write_bytes(b"thirty-two bytes of great secrecy")
    (tmp_path / "salt").chmod(0o600)
    told: list[str] = []
    for number, salt in enumerate((tmp_path / "salt", tmp_path / "salt", None)):
        log = tmp_path / str(number)
        if salt is None:
            monkeypatch.delenv("PENSTOCK_SALT")
        else:
            monkeypatch.setenv("PENSTOCK_SALT", str(salt))
        with predictor(made.path, log) as (_, port):
            url = f"http://127.0.0.1:{port}{INFER}"
            httpx.post(url, content=body(ROWS), headers={"x-user-id": "u-1"})
        told += [record["user"] for record in records(log)]

    assert told[0] == told[1] != told[2]
    assert "PENSTOCK_SALT names no file" in (tmp_path / "2" / "server.log").read_text()


def test_an_altered_model_never_serves(tmp_path: Path):
    """A byte changed after packaging stops the server before it listens, with the reason."""
    made = make_package(tmp_path / "package")
    model = made.path / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")

    with predictor(made.path, tmp_path / "log") as (process, _):
        assert process.wait(30) == 1

    assert "was altered" in (tmp_path / "log" / "server.log").read_text()


def test_a_wrong_golden_answer_never_serves(tmp_path: Path):
    """A package that does not answer as recorded is refused, however whole its files are."""
    made = make_package(tmp_path / "package", golden_shift=0.5)

    with predictor(made.path, tmp_path / "log") as (process, _):
        assert process.wait(30) == 1

    assert "answered otherwise" in (tmp_path / "log" / "server.log").read_text()
    assert not (tmp_path / "log" / "ready.json").exists()


def test_faults_break_users_only_and_stop_lets_requests_finish(tmp_path: Path):
    """A live fault spares copies; a request in flight at the stop is answered; the log is whole."""
    made = make_package(tmp_path / "package")
    live = {"x-rollout-arm": "challenger"}
    with predictor(made.path, tmp_path / "log", "--fault", "latency") as (process, port):
        url = f"http://127.0.0.1:{port}{INFER}"
        started = time.monotonic()
        httpx.post(url, content=body(ROWS), headers={"host": "x-shadow", **live})
        spared = time.monotonic() - started
        answers: list[int] = []
        inside = threading.Thread(
            target=lambda: answers.append(
                httpx.post(url, content=body(ROWS), headers=live).status_code
            )
        )
        inside.start()
        time.sleep(0.04)
        process.send_signal(signal.SIGTERM)
        inside.join()
        process.wait(20)

    seen = records(tmp_path / "log")
    assert answers == [200]
    assert spared < 1
    assert [r["latency_ms"] > 100 for r in seen] == [False, True]


def test_a_failing_model_tells_its_log_and_not_its_client(tmp_path: Path):
    """A real exception gives 500 without its text, and a log line that names the request."""
    made = make_package(tmp_path / "package")
    hit = next(
        name for name in map(str, range(100)) if share_of(name) < Fault.of("errors", on="all").share
    )
    faults = ("--fault", "errors", "--fault-on", "all")
    with predictor(made.path, tmp_path / "log", *faults) as (_, port):
        url = f"http://127.0.0.1:{port}{INFER}"
        answer = httpx.post(url, content=body(ROWS), headers={"x-request-id": hit})

    (seen,) = records(tmp_path / "log")
    server_log = (tmp_path / "log" / "server.log").read_text()
    assert answer.status_code == 500
    assert "rehearsed" not in answer.text.lower()
    assert (seen["request_id"], seen["status"], seen["label"]) == (hit, 500, None)
    assert f"request {hit} failed" in server_log
    assert "REHEARSAL" in server_log
    assert "Traceback" not in server_log
    assert "Warning" not in server_log


def test_a_wrong_answer_is_the_next_class_for_the_chosen_requests(tmp_path: Path):
    """The accuracy fault changes what users are told, and what the log says they were told."""
    made = make_package(tmp_path / "package")
    right = OnnxModel(made.path / "model.onnx").run(request_input(table(ROWS))).argmax(axis=1)
    hit, spared = (
        next(
            name
            for name in map(str, range(100))
            if (share_of(name) < Fault.of("accuracy", on="all").share) == wrong
        )
        for wrong in (True, False)
    )
    faults = ("--fault", "accuracy", "--fault-on", "all")
    with predictor(made.path, tmp_path / "log", *faults) as (_, port):
        url = f"http://127.0.0.1:{port}{INFER}"
        for name in (hit, spared):
            httpx.post(url, content=body(ROWS), headers={"x-request-id": name})

    told = {r["request_id"]: r["label"] for r in records(tmp_path / "log")}
    assert told == {hit: ((right + 1) % 10).tolist(), spared: right.tolist()}


PARENT = """
import socket, subprocess, sys, time
held = socket.create_server(("127.0.0.1", 0))
command = [sys.executable, "-m", "serving.predictor", "--model-name", "digits", "--version", "3"]
command += ["--bundle", sys.argv[1], "--log", sys.argv[2], "--fd", str(held.fileno())]
print(subprocess.Popen(command, pass_fds=[held.fileno()]).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("moment", ["while it loads", "while it serves"])
def test_a_server_dies_with_its_parent(tmp_path: Path, moment: str):
    """Whenever the supervisor is killed, no server stays behind holding its port."""
    made = make_package(tmp_path / "package")
    log = tmp_path / "log"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(made.path), str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    wait_for((log if moment == "while it loads" else log / "ready.json").exists, 60)
    time.sleep(0.5)

    parent.kill()
    parent.wait()

    wait_for(lambda: not running(child), 10)


def test_a_stop_while_it_loads_is_obeyed_at_once(tmp_path: Path):
    """A server that is told to end before it is ready ends, and never announces itself."""
    made = make_package(tmp_path / "package")
    log = tmp_path / "log"
    command = [sys.executable, "-m", "serving.predictor", "--model-name", "digits"]
    command += ["--version", "3", "--bundle", str(made.path), "--log", str(log), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(log.exists, 60)
    time.sleep(0.3)

    process.send_signal(signal.SIGTERM)

    assert process.wait(5) == 0
    assert not (log / "ready.json").exists()


def test_a_port_that_is_taken_is_named(tmp_path: Path):
    """The sentence says which, so that whoever started two servers finds the other."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        given = argparse.Namespace(fd=None, host="127.0.0.1", port=held.getsockname()[1])

        with pytest.raises(NotServable, match=f"port {given.port} cannot be listened on"):
            listening(given)
        with pytest.raises(OSError, match=f"metrics port {given.port} cannot be listened on"):
            Metrics(DIGITS, slot="a", version="3").serve(given.port)


def test_readiness_needs_no_disk(capsys: pytest.CaptureFixture[str]):
    """Where ready.json cannot be written the server goes on, and says so if anybody can hear."""
    given = argparse.Namespace(log=Path("/dev/full"), version="3")
    parts = SimpleNamespace(metrics=Metrics(DIGITS, slot="a", version="3"))
    served = SimpleNamespace(warmth=[])
    held = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with socket.create_server(("127.0.0.1", 0)) as listens:
            _ready(given, parts, served, 3, listens, 1)  # pyright: ignore[reportArgumentType]
    finally:
        gc.unfreeze()
        for number, handler in held.items():
            signal.signal(number, handler)

    assert "ready, and ready.json cannot be written" in capsys.readouterr().err


def test_another_package_than_the_registered_one_never_serves(tmp_path: Path):
    """Neither one that lies there from the start, nor one that is put there while it loads."""
    made = make_package(tmp_path / "package")

    check_digest(made, made.digest)
    check_digest(made, None)
    with pytest.raises(NotServable, match="registered was"):
        check_digest(made, "sha256:" + 64 * "0")


def test_the_first_request_of_each_form_finds_the_way_warm(tmp_path: Path):
    """Before it is ready a server has answered each form; one that cannot never serves."""
    served = Served(make_package(tmp_path / "package").path)
    rows = [{"pixels": row.tolist()} for row in ROWS]
    asked: list[tuple[str, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append((scope["path"], len(scope["headers"])))
        await lean(scope, receive, send)

    answering = Answering(served, version="3")
    batching = Batching(answering.run, most=1, timeout_ms=60_000)
    lean = LeanPath(app, Names(DIGITS, None), answering, batching, name="digits")
    warm(app, DIGITS, rows, name="digits")

    assert set(asked) == {("/v1/models/digits:predict", 0), (INFER, 0), (INFER, 1)}
    with pytest.raises(Unanswered, match="0 to 16 are allowed"):
        warm(app, DIGITS, [{"pixels": [99.0] * 64}], name="digits")


def test_a_server_whose_way_is_not_warm_never_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The model alone may be warm and right, and a client's request be refused all the same."""

    def refused(*_given: object, **_named: object) -> None:
        raise Unanswered("a golden request was refused")

    monkeypatch.setattr("serving.predictor.warm", refused)
    made = make_package(tmp_path / "package")
    given = arguments(
        ["--bundle", str(made.path), "--model-name", "digits", "--version", "3", "--port", "0",
         "--log", str(tmp_path / "log")]
    )  # fmt: skip

    with pytest.raises(NotServable, match="golden request was refused"):
        loaded(given)


@pytest.mark.parametrize(("host", "heard"), [((), "127.0.0.1"), (("--host", "0.0.0.0"), "0.0.0.0")])
def test_only_who_says_so_is_heard_from_elsewhere(host: tuple[str, ...], heard: str):
    """On a machine it listens on loopback; a pod says 0.0.0.0, or nothing would reach it."""
    given = arguments(
        ["--bundle", "b", "--model-name", "digits", "--version", "3", "--port", "0",
         "--log", "log", *host]
    )  # fmt: skip

    with listening(given) as made:
        assert made.getsockname()[0] == heard


def test_a_socket_that_strangers_hear_is_refused(tmp_path: Path):
    """An inherited socket on another address than loopback never serves."""
    made = make_package(tmp_path / "package")
    command = [sys.executable, "-m", "serving.predictor", "--model-name", "digits"]
    command += ["--version", "3", "--bundle", str(made.path), "--log", str(tmp_path / "log")]
    with socket.create_server(("0.0.0.0", 0)) as held:
        fd = held.fileno()
        done = subprocess.run(
            [*command, "--fd", str(fd)], pass_fds=[fd], capture_output=True, text=True, check=False
        )

    assert done.returncode == 1
    assert "not on loopback" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_package_without_its_manifest_is_no_package(tmp_path: Path):
    """A folder that looks like a package but has no manifest never serves."""
    made = make_package(tmp_path / "package")
    (made.path / MANIFEST).unlink()

    with predictor(made.path, tmp_path / "log") as (process, _):
        assert process.wait(30) == 1

    assert "not a bundle" in (tmp_path / "log" / "server.log").read_text()
