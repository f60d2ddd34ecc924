"""What ``penstock controller`` and ``release start --queue`` take, print and answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.ledger import Actor, Stage
from penstock.rollout import folding
from penstock.rollout.opening import QUEUED, queue
from tests.bundles import NOW
from tests.packages import free_port, wait_for
from tests.people import person
from tests.rollout.adapters import published
from tests.rollout.adapters.fakeserver import TOKEN
from tests.rollout.controlled.test_places import written
from tests.rollout.controlled.world import LEASE, World, world

EVERYTHING = ["controller", "--places"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a world whose ledger is the home's."""
    published.need()
    with world(tmp_path, monkeypatch) as made:
        monkeypatch.setenv("PENSTOCK_LEDGER", f"sqlite:///{tmp_path / 'ledger.db'}")
        yield made


def places(place: World) -> Path:
    """Write the file of places of a world."""
    held = place.cluster.place
    return written(
        place.folder,
        edges=json.dumps(list(held.edges)),
        predictions=json.dumps(place.where.predictions),
        copied_s="0.05",
    )


def kubeconfig(place: World) -> Path:
    """Write a kubeconfig of the fake API server."""
    path = place.folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": place.cluster.fake.url}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_first_objects_are_printed_for_kubectl(tmp_path: Path):
    """As one List, without an API server or a ledger; of the workloads that are named, or all."""
    written(tmp_path, "a.toml", "digits")
    written(tmp_path, "b.toml", "credit")
    for names, kinds in (([], 11), (["digits"], 5), (["credit"], 6)):
        said = CliRunner().invoke(app, [*EVERYTHING, str(tmp_path), "--first", *names])
        assert said.exit_code == 0, said.output
        found = json.loads(said.output)
        assert (found["kind"], len(found["items"])) == ("List", kinds)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["streamrec"], "streamrec has no place; there are digits"),
        (["--listen", "8090"], "HOST:PORT was wanted"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT was wanted"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_done(
    tmp_path: Path, more: list[str], said: str
):
    """In one sentence, by what was wrong."""
    found = CliRunner().invoke(app, [*EVERYTHING, str(written(tmp_path)), *more])
    assert said in str(found.exception)


def test_once_is_one_round_with_its_exit_code(place: World):
    """0 done, 1 a workload failed and why, 6 another one leads."""
    call = [*EVERYTHING, str(places(place)), "--once", "--kubeconfig", str(kubeconfig(place))]
    done = CliRunner().invoke(app, call)
    assert (done.exit_code, place.slots().seen("a").version) == (0, "1"), done.output

    place.cluster.fake.store.remove(place.cluster.main)
    failed = CliRunner().invoke(app, call)
    assert failed.exit_code == 1
    assert "digits: Missing: HTTPRoute models/digits is not there" in failed.stderr

    spec = {"spec": {"holderIdentity": "another", "leaseDurationSeconds": 600}}
    place.cluster.fake.edit(LEASE.path, spec)
    other = CliRunner().invoke(app, call)
    assert (other.exit_code, other.stderr) == (6, "another replica leads\n")


def test_a_wanted_release_is_queued_by_the_ledger_alone(
    place: World, monkeypatch: pytest.MonkeyPatch
):
    """From anywhere, by who is enrolled; the controller opens it at its next round, and once."""
    ann = Actor.create(place.folder / "ann.pem", name="ann")
    monkeypatch.setenv("PENSTOCK_KEY", str(place.folder / "ann.pem"))
    ledger = place.ledger()
    named: dict[str, Any] = {"name": "ann", "roles": ["operator"], "actor": person(), "now": NOW}
    ledger.enrol(public_key=ann.public_key, **named)
    for _ in range(2):
        said = CliRunner().invoke(app, ["release", "start", "digits", "2", "--queue"])
        assert said.exit_code == 0, said.output
        assert "version 2 is queued in all" in said.output
    refused = CliRunner().invoke(app, ["release", "start", "digits", "1", "--queue"])
    assert "version 1 serves all already" in str(refused.exception)
    assert [e.version for e in ledger.entries("digits") if e.kind == QUEUED] == [2]
    assert not (place.folder / "home" / "serving").exists(), "no server of this machine is asked"

    held = place.replica()
    place.step(held)

    entries = ledger.entries("digits")
    ledger.close()
    assert [s.release for s in folding.active(entries)] == ["digits/2/all/1"]
    assert queue(entries) == []


def test_what_is_queued_and_has_no_way_to_go_is_refused_with_what_to_do(place: World):
    """A version that was never let into STAGING."""
    place.register(3)
    said = CliRunner().invoke(app, ["release", "start", "digits", "3", "--queue"])
    assert "version 3 is in NONE" in str(said.exception)
    assert str(Stage.STAGING) in str(said.exception)


def test_a_process_leads_answers_probes_and_ends_when_told(place: World):
    """As a Deployment runs it: SIGTERM gives the lease back, and the exit code is 0."""
    port = free_port()
    call = [sys.executable, "-c", "from penstock.cli.main import main; main()"]
    call += [*EVERYTHING, str(places(place)), "--kubeconfig", str(kubeconfig(place))]
    call += ["--listen", f"127.0.0.1:{port}", "--every", "0.2", "digits"]
    log = place.folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(call, stdout=out, stderr=out, env=dict(os.environ))
    try:
        wait_for(lambda: answered(port, "/readyz") == 200, 60)
        wait_for(lambda: place.slots().seen("a").state == "ready", 60)
        assert answered(port, "/livez") == 200
        spec = place.cluster.fake.store.read(LEASE.path)["spec"]
        assert spec["holderIdentity"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert place.cluster.fake.store.read(LEASE.path)["spec"]["holderIdentity"] == ""
    assert "ended" in log.read_text()


def answered(port: int, path: str) -> int:
    """Return the status of a probe, 0 where nobody answers."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).status_code
    except httpx.HTTPError:
        return 0
