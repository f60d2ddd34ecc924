"""Laws of the monitor stage: one bundle with its verdict first, made of the champion's own log."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from penstock import monitor
from penstock.bundle import Bundle, read
from penstock.ledger import REGISTERED, Ledger
from penstock.predictions.keep import keep
from penstock.predictions.place import Place
from penstock.stage import Refused, parse
from tests.ledger.steps import ALL_THE_WAY
from tests.monitor import world
from tests.monitor.world import T0
from tests.people import person
from tests.predictions import logs

NOW = T0 + timedelta(hours=1)
USUAL = world.clients(800, seed=3)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """An empty ledger, named by the environment."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("PENSTOCK_LEDGER", url)
    held = Ledger(url)
    held.append(
        workload="credit", version=9, kind="note", body={"text": ""}, actor=person(), now=T0
    )
    yield held
    held.close()


@pytest.fixture
def champion(ledger: Ledger, package: Bundle) -> Bundle:
    """A version that serves everybody."""
    body = {
        "package": str(package.path),
        "digest": package.digest,
        "fingerprint": package.fingerprint,
    }
    ledger.append(workload="credit", version=1, kind=REGISTERED, body=body, actor=person(), now=T0)
    for stage in ALL_THE_WAY:
        ledger.move(workload="credit", version=1, to=stage, reason="test", actor=person(), now=T0)
    return package


def ran(out: Path, predictions: str, *, outcomes: str = "", hours: int = 1) -> str:
    return monitor.run(
        workload="credit", predictions=predictions, outcomes=outcomes, hours=hours, out=out, now=NOW
    )


def test_the_bundle_opens_with_its_verdict(
    champion: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """First line of the report, of the summary and of what is printed; and it says whose it is."""
    address = world.log(tmp_path / "log", world.asked(world.clients(800, seed=3, richer=3)))

    named = ran(tmp_path / "out", address)

    bundle = read(tmp_path / "out", kind="monitor")
    assert named == str(champion.path)
    assert bundle.manifest["inputs"] == {"package": champion.fingerprint}
    markdown = bundle.file("report.md").read_text().splitlines()
    assert markdown[0].startswith("# Something is worse: drift: credit\\_limit ")
    page = bundle.file("report.html").read_text()
    assert page.count("<svg") == 1
    assert "credit_limit: training rows and now" in page
    assert "<script" not in page
    said = parse(capsys.readouterr().out)
    assert said is not None
    assert (said.stage, said.outcome) == ("monitor", "fail")
    assert "800 requests" in said.line


def test_the_same_log_gives_the_same_bytes(champion: Bundle, tmp_path: Path):
    address = world.log(tmp_path / "log", world.asked(USUAL))
    outcomes = world.outcomes(tmp_path / "outcomes.jsonl", USUAL)

    for name in ("one", "two"):
        ran(tmp_path / name, address, outcomes=outcomes)

    one, two = (read(tmp_path / name) for name in ("one", "two"))
    assert (one.fingerprint, one.digest) == (two.fingerprint, two.digest)


def test_a_kept_verdict_is_of_the_very_same_log(
    champion: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A store of finished steps does not answer for requests that it never saw."""
    monkeypatch.setenv("PENSTOCK_STORE", str(tmp_path / "store"))
    folder = tmp_path / "log"
    world.log(folder, world.asked(USUAL))
    ran(tmp_path / "before", str(folder))
    late = world.asked(world.clients(400, seed=5, richer=9))
    world.log(folder, [{**r, "request_id": f"late{n}"} for n, r in enumerate(late)])

    ran(tmp_path / "after", str(folder))

    before, after = (read(tmp_path / name) for name in ("before", "after"))
    assert before.summary.outcome != "fail"
    assert after.summary.outcome == "fail"


def test_the_log_is_named_by_the_environment_where_nobody_names_one(
    champion: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PENSTOCK_PREDICTIONS", raising=False)
    with pytest.raises(ValueError, match="no prediction log is named"):
        ran(tmp_path / "none", "")

    address = world.log(tmp_path / "log", world.asked(USUAL))
    monkeypatch.setenv("PENSTOCK_PREDICTIONS", address)
    ran(tmp_path / "out", "")

    assert "800 requests" in read(tmp_path / "out").summary.line


def test_nobody_serves_so_nothing_is_watched(ledger: Ledger, tmp_path: Path):
    with pytest.raises(Refused, match="no version of credit serves everybody"):
        ran(tmp_path / "out", str(tmp_path))
    assert not (tmp_path / "out").exists()


def test_no_hours_are_refused(champion: Bundle, tmp_path: Path):
    with pytest.raises(ValueError, match="look at one hour or more"):
        ran(tmp_path / "out", str(tmp_path), hours=0)


def test_without_a_ledger_nobody_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PENSTOCK_LEDGER", raising=False)
    with pytest.raises(ValueError, match="PENSTOCK_LEDGER is not set"):
        ran(tmp_path / "out", str(tmp_path))


def test_without_a_log_the_verdict_is_an_error_and_is_written(champion: Bundle, tmp_path: Path):
    """The step goes on, so that the decision can say why nothing is decided."""
    ran(tmp_path / "out", str(tmp_path / "nowhere"))

    bundle = read(tmp_path / "out", kind="monitor")
    assert bundle.summary.outcome == "error"
    assert bundle.file("report.md").read_text().startswith("# Could not look: rows: nothing was")
    assert bundle.json("signals.json")["performance"]["outcome"] == "unknown"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an empty bucket in moto's S3 on loopback, which the environment names."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = fs.S3FileSystem(
        endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True
    )
    client.create_dir("watched")
    yield "s3://watched"
    server.stop()


def test_a_log_and_outcomes_in_an_object_store(champion: Bundle, tmp_path: Path, store: str):
    """The same requests, copied away by their server, give the same numbers."""
    local = world.log(tmp_path / "log", world.asked(USUAL))
    outcomes = world.outcomes(tmp_path / "outcomes.jsonl", USUAL)
    ran(tmp_path / "here", local, outcomes=outcomes)
    shutil.copytree(tmp_path / "log", tmp_path / "kept")
    keep(tmp_path / "kept", now=logs.T0 + 4_000, to=Place.at(f"{store}/predictions"))
    place = Place.at(store)
    with place.fs.open_output_stream("watched/outcomes.jsonl") as out:
        out.write(Path(outcomes).read_bytes())

    ran(tmp_path / "there", f"{store}/predictions", outcomes=f"{store}/outcomes.jsonl")

    here, there = (read(tmp_path / n).json("signals.json") for n in ("here", "there"))
    assert there["performance"] == here["performance"]
    assert there["drift"] == here["drift"]
    assert there["errors"] == []


def test_what_pods_lost_is_known_in_a_store_too(champion: Bundle, tmp_path: Path, store: str):
    """A copy without half of its records is no evidence, wherever it lies."""
    world.log(tmp_path / "log", world.asked(USUAL))
    counted = {"written": len(USUAL), "dropped": len(USUAL), "failed": 0}
    (tmp_path / "log" / "counters.json").write_text(json.dumps(counted))

    keep(tmp_path / "log", now=logs.T0 + 4_000, to=Place.at(f"{store}/predictions"))
    ran(tmp_path / "there", f"{store}/predictions")

    (said,) = read(tmp_path / "there").json("signals.json")["errors"]
    assert said.startswith("log: ")
    assert "records lost" in said


@pytest.mark.parametrize("where", ["folder", "store"])
def test_outcomes_may_be_a_folder_of_files(
    champion: Bundle, tmp_path: Path, store: str, where: str
):
    """As a release reads them: what comes later is in a file of its own."""
    log = world.log(tmp_path / "log", world.asked(USUAL))
    file = Path(world.outcomes(tmp_path / "all.jsonl", USUAL))
    lines = file.read_bytes().splitlines(keepends=True)
    ran(tmp_path / "one", log, outcomes=str(file))
    address = str(tmp_path / "outcomes") if where == "folder" else f"{store}/outcomes"
    place = Place.at(address)
    for name, part in (("1.jsonl", lines[:300]), ("2.jsonl", lines[300:]), ("NOTE", [b"x"])):
        place.fs.create_dir(place.root)
        with place.fs.open_output_stream(f"{place.root}/{name}") as out:
            out.write(b"".join(part))

    ran(tmp_path / "two", log, outcomes=address)

    one, two = (read(tmp_path / n).json("signals.json")["performance"] for n in ("one", "two"))
    assert one == two
    assert one["outcome"] != "unknown"
