"""Laws of training in several processes: same world, same bits; several machines are a job."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from penstock.stage import Refused
from penstock.train import carried, determinism, distributed, trainjob
from penstock.train.batches import Examples
from penstock.train.loop import train
from penstock.train.proved import Proved
from penstock.workload import Training, load_network
from tests import bundles

SETTINGS = Training(
    epochs=2, batch_size=32, learning_rate=1e-3, proof_steps=3, processes=2, threads=1
)
SHARED = Path(os.environ.get("PENSTOCK_SHARED_SHELF") or Path(__file__).parents[3] / "shared")
ROWS = bundles.rows()


def examples(start: int, n: int) -> Examples:
    """Return real examples."""
    return Examples(
        inputs_n=bundles.images(start + n)[start:],
        labels_n=ROWS["label"].to_numpy()[start : start + n],
    )


def fit(folder: Path, settings: Training = SETTINGS) -> Proved:
    """Train digits in processes of their own."""
    distributed.ask(
        folder, "digits", examples(0, 80), examples(80, 20), settings, identity="sha256:1"
    )
    distributed.torchrun(folder, settings)
    found = distributed.answered(folder, load_network("digits"), identity="sha256:1")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    """Return a training by two processes."""
    return fit(tmp_path_factory.mktemp("two"))


def state(proved: Proved) -> str:
    """Return one hash of a network's tensors."""
    return determinism.combined(determinism.hashes(proved.trained.model.state_dict()))


def test_two_processes_certify_and_agree_with_each_other(two: Proved):
    """The first steps twice, and at the end the parameters of both processes."""
    assert two.certificate.holds
    assert two.certificate.world == 2
    assert two.certificate.tensors > len(list(two.trained.model.parameters())) + 2


def test_the_same_world_gives_the_same_bits(two: Proved, tmp_path: Path):
    """Started again, two processes end with what two processes ended with."""
    again = fit(tmp_path / "again")

    assert state(again) == state(two)
    assert again.trained.curve == two.trained.curve


def test_two_processes_learn_what_one_learns(two: Proved):
    """Gradients are averaged over the whole batch: the losses are near those of one process.

    Not equal: running means are of each process's own part, and sums are made in another order.
    """
    alone = train(
        distributed.task_of(load_network("digits")),
        examples(0, 80),
        examples(80, 20),
        replace(SETTINGS, processes=1),
        device="cpu",
    )

    ours = [epoch.train_loss for epoch in two.trained.curve]
    theirs = [epoch.train_loss for epoch in alone.curve]
    assert np.allclose(ours, theirs, rtol=0.25)


def test_a_process_that_fails_is_said_with_its_reason(tmp_path: Path):
    """Not with the launcher's report about it."""
    few = examples(0, 10)
    distributed.ask(tmp_path, "digits", few, examples(80, 20), SETTINGS, identity="sha256:1")

    with pytest.raises(Refused, match="10 examples for batches of 32"):
        distributed.torchrun(tmp_path, SETTINGS)


def test_an_answer_to_another_question_is_none(two: Proved, tmp_path: Path):
    """Of other data, code or settings."""
    distributed.ask(
        tmp_path, "digits", examples(0, 80), examples(80, 20), SETTINGS, identity="sha256:1"
    )
    distributed.answer(tmp_path, two)
    declared = load_network("digits")

    assert distributed.answered(tmp_path, declared, identity="sha256:2") is None
    assert distributed.answered(tmp_path, declared, identity="sha256:1") is not None


PARENT = """
import sys
from pathlib import Path
from penstock.train import distributed
from tests.train.test_distributed import SETTINGS
distributed.torchrun(Path(sys.argv[1]), SETTINGS)
"""


def alive(folder: Path) -> list[str]:
    """Return the commands of all processes that work on a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode())
    return [c for c in found if str(folder) in c and "penstock.train" in c]


def test_processes_end_with_the_stage_that_started_them(tmp_path: Path):
    """Killed as it may be: what is left would work beside the next attempt."""
    long = replace(SETTINGS, epochs=100_000)
    distributed.ask(tmp_path, "digits", examples(0, 80), examples(80, 20), long, identity="a")
    stage = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    wait((tmp_path / "checkpoint.pt").exists)
    assert len(alive(tmp_path)) >= 3

    stage.kill()
    stage.wait()

    wait(lambda: not alive(tmp_path))


def wait(done: Callable[[], bool], *, seconds: float = 90) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.1)


PLACE = {
    "PENSTOCK_SHARED_CLAIM": "penstock-shared",
    "PENSTOCK_IMAGE_TRAIN": "registry.example/penstock-train@sha256:00",
}


def carry(out: Path) -> None:
    """Carry out a training on two machines."""
    carried.carry(
        load_network("digits"), replace(SETTINGS, nodes=2), examples(0, 80), examples(80, 20),
        code="a", tags={}, store=None, out=out,
    )  # fmt: skip


def test_several_machines_need_to_be_told_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All that is missing in one sentence."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match=r"PENSTOCK_SHARED, .*_CLAIM, PENSTOCK_IMAGE_TRAIN"):
        carry(tmp_path / "out")


def job_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the job that a training on two machines writes before it refuses to go on."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PENSTOCK_SHARED", str(folder))
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refused, match=r"kubectl apply -f .*trainjob.yaml.*run this step again"):
        carry(folder / "out")
    return next(folder.glob("training-*/trainjob.yaml"))


def test_a_job_for_several_machines_is_one_the_cluster_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Under strict validation against the published schema: no field it does not know."""
    tool, crds = SHARED / "tools" / "crd_validate.py", SHARED / "crds" / "trainer-v2.3.0"
    if not tool.exists():
        pytest.skip("no published schemas here: name their folder in PENSTOCK_SHARED_SHELF")
    written = job_of(tmp_path, monkeypatch)
    checked = [sys.executable, str(tool), str(crds), str(written)]

    accepted = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert "OK" in accepted.stdout

    wrong = yaml.safe_load(written.read_text())
    wrong["spec"]["trainer"]["replicas"] = 2
    written.write_text(yaml.safe_dump(wrong))
    refused = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "replicas" in refused.stdout


def test_the_pods_of_a_job_train_what_this_stage_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Run here as a pod would run it, its answer makes the same step pass."""
    written = job_of(tmp_path, monkeypatch)
    job = yaml.safe_load(written.read_text())
    trainer = job["spec"]["trainer"]
    folder = Path(trainer["command"][-1])

    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 2)
    assert folder == written.parent
    assert trainer["resourcesPerNode"] == {"limits": {"nvidia.com/gpu": 1}}
    # Four processes in one place stand in for two machines with two each.
    distributed.torchrun(folder, replace(SETTINGS, processes=4, nodes=1))
    carry(tmp_path / "out")


def test_a_folder_that_the_machines_do_not_share_is_refused(tmp_path: Path):
    """Or the pods would wait for what is not there."""
    place = trainjob.Place(
        mount=tmp_path / "shared", claim="c", image="i", runtime="torch-distributed", gpus=1
    )
    with pytest.raises(ValueError, match=r"is not below .*shared"):
        trainjob.manifest("train-digits", tmp_path / "elsewhere", SETTINGS, place)
