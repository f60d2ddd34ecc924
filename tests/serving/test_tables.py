"""Laws of a served table: right in both protocols, by the threshold, under replayed traffic."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock import workload as workloads
from penstock.bundle import Bundle
from penstock.register.contract import contract_of
from penstock.request import instances, request_input, v1_request, v2_request
from penstock.runtimes.onnxruntime import OnnxModel
from penstock.stats import metrics
from serving.package import NotServable, Served, batches
from tests.packages import predictor, records, wait_for
from tests.serving import tables
from workloads.streamrec.simulator import START

NAME = "streamrec"
CONTRACT = contract_of(workloads.load(NAME))
ROWS = tables.rows(CONTRACT, 20, seed=5)
SENT = instances(CONTRACT, ROWS)
V1, V2 = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"


class Server:
    """A running predictor and what a test needs of it."""

    def __init__(self, port: int, log: Path, package: Bundle) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url)
        self.log, self.package = log, package


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One real server for the module."""
    folder = tmp_path_factory.mktemp("tables")
    package = tables.make_package(folder / "package", NAME)
    with predictor(package.path, folder / "log", "--model-name", NAME) as (_, port):
        held = Server(port, folder / "log", package)
        yield held
        held.client.close()


def simulated_rows(rows: pa.Table) -> pa.Table:
    """Return rows whose users and hours the simulation has, so that the truth of them is known."""
    hours = np.arange(len(rows)) % 24
    stamp_n = int(START.timestamp()) * 1_000_000 + hours * 3_600_000_000
    for name, values in (
        ("user_id", pa.array(np.arange(len(rows)))),
        ("item_id", pa.array(np.arange(len(rows)))),
        ("event_timestamp", pa.array(stamp_n, pa.timestamp("us", tz="UTC"))),
    ):
        rows = rows.set_column(rows.column_names.index(name), name, values)
    return rows


def outputs(answer: httpx.Response) -> dict[str, Any]:
    """Return a v2 answer's tensors."""
    assert answer.status_code == 200, answer.text
    return {o["name"]: o["data"] for o in answer.json()["outputs"]}


def test_both_protocols_answer_what_the_gate_would_decide(server: Server):
    """Label and probability are those of the package's graph, of the same rows and threshold."""
    logits = OnnxModel(server.package.file("model.onnx")).run(
        request_input(workloads.part(NAME, "transform"))(ROWS)
    )
    decided = metrics.decisions(logits, threshold=CONTRACT.threshold).tolist()

    two = outputs(server.client.post(V2, json=v2_request(CONTRACT, SENT)))
    one = server.client.post(V1, json=v1_request(CONTRACT, SENT)).json()["predictions"]

    assert two["label"] == [p["label"] for p in one] == decided
    assert 0 < sum(decided) < len(decided)
    assert decided != logits.argmax(axis=1).tolist()
    probability = np.reshape(two["probability"], (len(ROWS), 2))
    np.testing.assert_allclose(probability, metrics.probabilities(logits), atol=1e-6)
    assert [p["probability"] for p in one] == probability.tolist()


def test_the_metadata_names_every_input(server: Server):
    """A client can read what to send: name, type and shape of every feature."""
    said = server.client.get(f"/v2/models/{NAME}").json()

    assert [t["name"] for t in said["inputs"]] == CONTRACT.names
    assert {t["name"]: t["datatype"] for t in said["inputs"]}["event_timestamp"] == "INT64"
    assert {t["name"]: t["datatype"] for t in said["inputs"]}["user_clicks_24h"] == "FP64"


def without(name: str) -> dict[str, Any]:
    """Return a v2 body that lacks a feature."""
    held = v2_request(CONTRACT, SENT)
    return {"inputs": [t for t in held["inputs"] if t["name"] != name]}


def with_fields(name: str, /, **over: Any) -> dict[str, Any]:
    """Return a v2 body with fields of one tensor replaced."""
    held = v2_request(CONTRACT, SENT[:1])
    return {"inputs": [{**t, **over} if t["name"] == name else t for t in held["inputs"]]}


BAD = {
    "missing": (without("taste"), "taste: is missing"),
    "unknown": (with_fields("taste", name="tsate"), "taste: is missing"),
    "twice": (with_fields("taste", name="user_id"), "user_id: came 2 times"),
    "type": (with_fields("taste", datatype="BOOL"), "taste: BOOL came"),
    "fraction as a whole number": (
        with_fields("category", data=[1.5]),
        "category: 1.5 came as INT64",
    ),
    "null as a whole number": (
        with_fields("category", data=[None]),
        "category: null came as INT64",
    ),
    "range": (with_fields("category", data=[9]), "category: 9 came, 0 to 7"),
    "shape": (with_fields("taste", shape=[1, 1]), "taste: shape [1, 1] came, [n] was wanted"),
    "length": (with_fields("taste", shape=[2], data=[0.5, 0.5]), "taste: 2 rows came"),
    "seconds": (with_fields("event_timestamp", data=[1_795_275_405]), "microseconds"),
}


@pytest.mark.parametrize(("document", "said"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_refused_with_the_feature(
    server: Server, document: dict[str, Any], said: str
):
    """Whatever is wrong gives 400 and a sentence that names the feature."""
    answer = server.client.post(V2, json=document)

    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_the_log_keeps_features_by_name(server: Server):
    """Every value is found under its feature, as it was sent; a missing one as null.

    Of a feature that the endpoint declares hashed, the value is not to be found.
    """
    body = v2_request(CONTRACT, SENT[:2])
    server.client.post(V2, json=body, headers={"x-request-id": "kept"})

    wait_for(lambda: any(r["request_id"] == "kept" for r in records(server.log)), 5)
    (seen,) = [r for r in records(server.log) if r["request_id"] == "kept"]
    sent = {name: [row[name] for row in SENT[:2]] for name in CONTRACT.names}
    assert "user_id" in CONTRACT.endpoint.hashed
    assert {**seen["features"], "user_id": sent["user_id"]} == sent
    assert not set(sent["user_id"]) & set(seen["features"]["user_id"])


def test_visitors_are_answered_and_their_clicks_follow(server: Server, tmp_path: Path):
    """Traffic made of a holdout by the contract gets no refusal, and each answer has an outcome."""
    held = simulated_rows(ROWS)
    pq.write_table(held, tmp_path / "holdout.parquet")
    contract = server.package.file("serving.json")
    command = [sys.executable, "-m", "penstock.rollout.traffic", "--url", server.url]
    command += ["--model", NAME, "--rows", str(tmp_path / "holdout.parquet"), "--label", "clicked"]
    command += ["--contract", str(contract), "--out", str(tmp_path), "--seconds", "1"]

    command += ["--rate", "40", "--markets", "us=0.6,eu=0.4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    seen, known = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("client", "outcomes")
    )
    assert len(seen) > 20
    assert {(answer["status"], answer["market"]) for answer in seen} <= {(200, "us"), (200, "eu")}
    assert [r["request_id"] for r in known] == [r["request_id"] for r in seen]
    assert {r["label"] for r in known} == {0, 1}
    assert len({r["row"] for r in known}) > 1, "the best row was always the same one"


def test_every_batch_up_to_the_most_rows_is_warmed():
    """Sizes double up to the contract's most, which is among them."""
    assert batches(1) == [1]
    assert batches(512)[-2:] == [256, 512]
    assert all(b <= 100 for b in batches(100))


def test_golden_rows_that_break_the_contract_never_serve(tmp_path: Path):
    """A package whose golden requests its own contract refuses is no package to serve."""
    made = tables.make_package(tmp_path / "package", NAME)
    features = made.json("serving.json")["features"]
    narrow = [{**f, "high": -1} if f["name"] == "user_id" else f for f in features]
    refused = tables.altered(made, tmp_path / "narrow", "serving.json", features=narrow)

    with predictor(refused.path, tmp_path / "log", "--model-name", NAME) as (process, _):
        assert process.wait(30) == 1

    assert "golden request 1 breaks" in (tmp_path / "log" / "server.log").read_text()


def test_a_package_without_golden_requests_never_serves(tmp_path: Path):
    """Nothing shows that it would be right."""
    made = tables.make_package(tmp_path / "package", NAME)

    with pytest.raises(NotServable, match="no golden requests"):
        Served(tables.altered(made, tmp_path / "empty", "golden.json", requests=[]).path)
