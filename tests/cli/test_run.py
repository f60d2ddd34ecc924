"""Laws of a whole run, on real parts: it resumes, releases, rolls back, and leaves nothing behind.

The tests of this module share one home and go through it in order, as its user would.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from filelock import FileLock
from onnx import TensorProto, helper, numpy_helper

from penstock.bundle import Bundle, Recipe, Summary, write, write_json
from penstock.ledger import REGISTERED, Actor, Ledger, Stage, champion, serving_order, stage_of
from penstock.register.mlflow import MlflowRegistry
from penstock.rollout import folding
from penstock.rollout.plane import Plane
from penstock.workload import transform_file
from tests import bundles
from tests.packages import DIGITS, free_port, wait_for
from workloads.digits.transform import training_input

pytestmark = pytest.mark.timeout(600)

STAGES = (
    "features",
    "datachecks",
    "train",
    "export",
    "quantize",
    "equivalence",
    "gate",
    "register",
)


class Home:
    """A home, and the command run in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = free_port()
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "MLFLOW_"))}
        self.environment = {**keep, "PENSTOCK_HOME": str(path), "COLUMNS": "160"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command."""
        command = [str(Path(sys.executable).parent / "penstock"), *arguments]
        return subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def penstock(self, *arguments: str) -> tuple[int, str]:
        """Run the command to its end and return exit code and output."""
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=400)
        return process.returncode, said

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run the digits workload."""
        return self.penstock("run", "digits", "--port", str(self.port), *arguments)

    def until(self, process: subprocess.Popen[str], name: str) -> list[str]:
        """Read a run's lines until the one that says how a stage or step ended."""
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.strip().startswith(f"{name} "):
                return lines
        raise AssertionError(f"{name} never ended:\n{''.join(lines)}")

    def last(self) -> dict[str, object]:
        """Return the record of the newest run."""
        newest = max(self.path.glob("runs/*/run.json"))
        return json.loads(newest.read_text(encoding="utf-8"))

    def ledger(self) -> Ledger:
        """Return the home's ledger."""
        return Ledger(f"sqlite:///{self.path / 'ledger.db'}")

    def answer(self) -> str:
        """Return the version that answers a user now."""
        request = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [8.0, 1.0] * 32}
        url = f"http://127.0.0.1:{self.port}/v2/models/digits/infer"
        answer = httpx.post(url, json={"inputs": [request]}, headers={"x-user-id": "someone"})
        assert answer.status_code == 200
        return answer.headers["x-penstock-version"]

    def processes(self) -> list[str]:
        """Return the command lines of every process that works on this home."""
        found: list[str] = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                text = (path / "cmdline").read_text().replace("\0", " ")
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if str(self.path) in text and state != "Z":
                found.append(text)
        return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One home for the module; its servers are stopped at the end."""
    made = Home(tmp_path_factory.mktemp("home"))
    yield made
    made.penstock("down")
    wait_for(lambda: not made.processes(), 15)


def test_killed_between_stages_a_run_finishes_and_serves(home: Home):
    """Killed outright again and again, the next run takes over what was made; nothing runs on.

    The last one releases the first version, which then answers. Python notes every import on the
    way, for the next test.
    """
    home.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    for done in STAGES[::2]:
        process = home.start("run", "digits", "--port", str(home.port))
        home.until(process, done)
        process.kill()
        process.communicate()
        wait_for(lambda: not home.processes(), 15)

    code, said = home.run()
    del home.environment["PYTHONPROFILEIMPORTTIME"]

    assert code == 0, said
    assert said.count("reused digits-") >= len(STAGES) - 2, said
    assert "promoted" in said
    assert home.answer() == "1"
    assert not list(home.path.glob("store/*/.part-*"))


def test_each_tool_is_imported_only_by_the_steps_that_use_it(home: Home):
    """In the runs before, what a step did not need was not loaded either: imports take seconds."""
    by_tool: dict[str, set[str]] = {
        "feast": set(),
        "mlflow": set(),
        "kserve": set(),
        "torch": set(),
    }
    for log in home.path.glob("runs/*/run.log"):
        step = ""
        for line in log.read_text(encoding="utf-8").splitlines():
            if started := re.search(r"Executing task '([\w-]+)'", line):
                step = started[1]
            elif imported := re.search(r"import time:.*\| +(\w+)$", line):
                by_tool.get(imported[1], set()).add(step)

    assert by_tool == {
        "feast": {"features"},
        "mlflow": {"train", "register"},
        "kserve": set(),
        "torch": {"train", "export", "equivalence"},
    }


def test_a_better_seed_is_released_over_the_champion(home: Home):
    """Shadow, canary and each share pass in order; ledger, aliases and servers agree at the end."""
    code, said = home.run("--seed", "13")

    assert code == 0, said
    record = home.last()
    steps = [s["name"] for s in record["release"]["steps"]]  # pyright: ignore[reportIndexIssue]
    assert steps == ["shadow", "canary 10 %", "progressive 25 %", "progressive 50 %",
                     "progressive 100 %", "bake"]  # fmt: skip
    assert home.answer() == "2"
    ledger = home.ledger()
    entries = ledger.entries("digits")
    moves = [e.target for e in entries if e.kind == "moved" and e.version == 2]
    assert moves == ["STAGING", "SHADOW", "CANARY", "PRODUCTION"]
    assert serving_order(entries) == [2, 1]
    assert ledger.verify() == len(ledger.entries())
    ledger.close()
    assert aliases(home) == {"champion": "2", "standby": "1"}


def aliases(home: Home) -> dict[str, str]:
    """Return the aliases that MLflow holds."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home.path / 'mlflow.db'}")
    held = MlflowRegistry()._client.get_registered_model("digits").aliases
    patch.undo()
    return {name: str(version) for name, version in held.items()}


def test_the_report_of_a_release_holds_its_story(home: Home):
    """The page has the verdict first, then every section."""
    page = Path(str(home.last()["report"])).read_text(encoding="utf-8")

    assert page.index("Promoted") < page.index("<h2>Stages</h2>")
    for section in ("Data", "Training", "Equivalence ladder", "Gate", "Release", "Lineage"):
        assert f"<h2>{section}</h2>" in page
    assert page.count("<svg") == 12
    assert "worst inputs of each step" in page


def test_a_version_that_serves_is_not_released_again(home: Home):
    """The same settings again make nothing new and say so."""
    code, said = home.run("--seed", "13")

    assert code == 0, said
    assert "serves already" in said
    assert said.count("reused digits-") >= len(STAGES) - 1


def test_servers_stay_where_they_answer(home: Home):
    """Another port is refused, not promised; without one it is where they are."""
    code, said = home.penstock("up", "digits", "--port", str(free_port()))
    assert (code, f"answer at port {home.port}, not" in said) == (2, True)

    code, said = home.penstock("up", "digits")
    assert (code, f"http://127.0.0.1:{home.port}/" in said) == (0, True)


def test_a_broken_challenger_comes_back_by_itself(home: Home):
    """A fault that only users see is noticed, rolled back, told, and leaves the champion alone.

    Of errors this tells; of slow, worse and dead versions tests/stories.
    """
    code, said = home.run("--seed", "13", "--break-challenger", "errors")

    assert code == 5, said
    assert re.search("rolled back: .*failing users", said)
    assert "users back in" in said
    assert home.answer() == "2"
    ledger = home.ledger()
    entries = ledger.entries("digits")
    version = int(str(home.last()["version"]))
    assert stage_of(entries, version) is Stage.ARCHIVED
    assert champion(entries) == 2
    assert folding.fold(entries, folding.releases(entries)[-1]).strikes in (1, 2)
    ledger.close()
    assert aliases(home) == {"champion": "2", "standby": "1"}


def test_a_fault_that_copies_show_ends_in_shadow(home: Home):
    """What shadow can see never reaches a user."""
    code, said = home.run("--seed", "13", "--break-challenger", "errors", "--break-on", "all")

    assert code == 5, said
    assert "canary" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_an_interrupted_release_returns_every_user(home: Home, number: signal.Signals):
    """However a release is stopped, users are on the champion and the challenger is gone."""
    process = home.start(
        "run", "digits", "--port", str(home.port), "--seed", "13", "--break-challenger", "accuracy",
        "--break-on", "live",
    )  # fmt: skip
    home.until(process, "shadow")
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)

    plane = Plane.attach(home.path)
    wait_for(lambda: plane.observe().buckets == 0 and plane.observe().mirror is None, 10)
    slots = "ab"
    other = slots[1 - slots.index(plane.observe().champion)]

    def withdrawn() -> bool:
        seen = plane.status()["slots"][other]
        return seen["version"] in (None, "1") or seen["state"] == "stopped"

    wait_for(withdrawn, 10)
    assert home.answer() == "2"
    wait_for(lambda: not any("traffic" in p or "pipelines" in p for p in home.processes()), 10)
    if number == signal.SIGINT:
        assert process.returncode == 130, said
        assert "the run was interrupted" in said


def test_a_killed_release_is_ended_by_who_asks_for_it(home: Home):
    """Nobody carries what the kill above left, so the command that aborts it returns the users."""
    assert "canary 10 %" in home.penstock("release", "status", "digits")[1]
    code, said = home.penstock("release", "start", "digits", "1")
    assert (code, "in ARCHIVED" in said or "in PRODUCTION" in said) == (3, True), said

    code, said = home.penstock("release", "abort", "digits", "--reason", "never mind")

    assert (code, "NOBODY CARRIES IT" in said) == (0, True), said
    assert home.penstock("release", "status", "digits")[0] == 5
    assert "never mind" in home.penstock("release", "explain", "digits")[1]
    assert home.answer() == "2"
    code, said = home.penstock("release", "run", "digits")
    assert (code, "no release of digits goes on" in said) == (2, True)


def test_a_second_run_at_the_same_time_is_refused(home: Home):
    """A home in use says by whom, and what to do."""
    with FileLock(home.path / "run.lock"):
        code, said = home.run()

    assert code == 2
    assert "another run is using" in said


def test_down_stops_everything_and_up_brings_the_champion_back(home: Home):
    """After down nothing runs; up serves the champion, and warms the version to go back to."""
    assert home.penstock("down")[0] == 0
    wait_for(lambda: not home.processes(), 10)
    assert home.penstock("status")[0] == 1

    code, said = home.penstock("up", "digits", "--port", str(home.port))

    assert code == 0, said
    assert home.answer() == "2"
    assert "100 % of users" in home.penstock("status")[1]
    slots = ("a", "b")
    plane = Plane.attach(home.path)
    wait_for(lambda: {plane.status()["slots"][s]["version"] for s in slots} == {"1", "2"}, 20)
    wait_for(lambda: all(plane.ready(slot) for slot in slots), 30)


def knower(path: Path) -> Bundle:
    """Write a package that knows every holdout answer: the nearest holdout image's label."""
    holdout = bundles.rows().slice(1197)
    images = training_input(holdout).reshape(600, 64)
    known = np.eye(10, dtype=np.float32)[holdout["label"].to_numpy()]
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "images"], ["near"]),
        helper.make_node("Softmax", ["near"], ["nearest"], axis=1),
        helper.make_node("MatMul", ["nearest", "known"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
    weights = [numpy_helper.from_array(images.T.copy(), "images"),
               numpy_helper.from_array(known, "known")]  # fmt: skip
    graph = helper.make_graph(nodes, "knower", [image], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    def make(folder: Path) -> Summary:
        onnx.save(model, folder / "model.onnx")
        write_json(folder / "lineage.json", {"rehearsal": None})
        write_json(folder / "serving.json", DIGITS.to_dict())
        shutil.copy(transform_file("digits"), folder / "transform.py")
        return Summary("pass", "knows the holdout")

    recipe = Recipe(kind="package", workload="digits")
    return write(path, recipe, make=make, now=datetime.now(UTC))


def serves(home: Home, package: Path, digest: str) -> None:
    """Enter a package into a home's new ledger as version 1, which serves everybody."""
    ledger, now = home.ledger(), datetime.now(UTC)
    actor = Actor.create(home.path / "actor.pem", name="tester")
    body = {"package": str(package), "fingerprint": package.name, "digest": digest}
    named: dict[str, Any] = {"workload": "digits", "version": 1, "actor": actor, "now": now}
    ledger.append(**named, kind=REGISTERED, body=body)
    for stage in (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION):
        ledger.move(**named, to=stage, reason="test")
    ledger.close()


def test_a_challenger_worse_than_the_champion_is_rejected(home: Home, tmp_path: Path):
    """Against a champion that is never wrong the gate says no: own exit code, one reason."""
    strict = Home(tmp_path / "strict")
    strict.environment["PENSTOCK_STORE"] = str(home.path / "store")
    serves(strict, tmp_path / "package", knower(tmp_path / "package").digest)

    code, said = strict.run()

    assert code == 3, said
    assert "rejected: gate is" in said
    assert "accuracy no worse than the champion's" in said
    assert strict.last()["version"] is None
    assert not strict.processes()


def test_a_run_that_ends_by_an_error_leaves_its_record(tmp_path: Path):
    """A champion whose package was replaced stops the run; without MLflow that is still said first.

    The record holds both: why it ended, and what to do about the aliases that could not follow.
    """
    lost = Home(tmp_path / "lost")
    nobody = f"http://127.0.0.1:{free_port()}"
    lost.environment |= {"MLFLOW_TRACKING_URI": nobody, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    knower(tmp_path / "package")
    serves(lost, tmp_path / "package", "sha256:" + "0" * 64)

    code, said = lost.run()

    assert code == 2
    assert "penstock: " in said.splitlines()[-1]
    assert "registered as version 1 was 000000000000" in said.splitlines()[-1]
    record = lost.last()
    assert record["outcome"] == "failed"
    reason = str(record["reason"])
    assert reason.index("registered as version 1 was") < reason.index("MLflow's aliases do not")
    assert "penstock register reconcile digits" in reason
    assert Path(str(record["report"])).exists()
