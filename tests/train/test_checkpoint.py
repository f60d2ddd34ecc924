"""The law of checkpoints: killed at any step, training ends with the bits of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from penstock.train import determinism
from penstock.train.batches import Examples
from penstock.train.checkpoint import Checkpoint, identity_of, identity_of_data
from penstock.train.loop import Task, Trained, train
from penstock.workload import Training

SETTINGS = Training(epochs=3, batch_size=16, learning_rate=1e-2, proof_steps=6, threads=1)
STEPS = 3 * 4
IDENTITY = "sha256:this"


class Killed(BaseException):
    """The process ended here."""


class Small(nn.Module):
    """A network with everything that has state: weights, running means, dropout's randomness."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(16, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def examples(n: int, seed: int) -> Examples:
    """Return made-up images."""
    rng = np.random.default_rng(seed)
    return Examples(
        inputs_n=rng.normal(size=(n, 1, 8, 8)).astype(np.float32),
        labels_n=rng.integers(0, 10, n),
    )


def fit(checkpoint: Checkpoint | None = None, settings: Training = SETTINGS) -> Trained:
    """Train on seventy images: four whole batches an epoch."""
    return train(
        Task(build=Small), examples(70, 1), examples(20, 2), settings, device="cpu",
        checkpoint=checkpoint,
    )  # fmt: skip


def bits(trained: Trained) -> tuple[object, ...]:
    """Return everything a training leaves."""
    return determinism.hashes(trained.model.state_dict()), trained.curve, trained.proof


class KilledAfter(Checkpoint):
    """Writes at every so many steps, and ends the process after a step."""

    def __init__(self, path: Path, *, step: int | None, every: int = 1) -> None:
        self.steps, self.last = 0, step
        super().__init__(path, identity=IDENTITY, due=lambda: self.steps % every == 0)

    def step_done(self, *given: object) -> None:
        self.steps += 1
        super().step_done(*given)  # pyright: ignore[reportArgumentType]
        if self.steps == self.last:
            raise Killed


@pytest.fixture(scope="module")
def whole() -> tuple[object, ...]:
    """What a training leaves that nobody interrupted."""
    return bits(fit())


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_after_any_step_it_ends_with_the_same_bits(
    tmp_path: Path, whole: tuple[object, ...], step: int, every: int
):
    """Weights, running means, curve and proof; whether the last checkpoint is fresh or old."""
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        fit(KilledAfter(path, step=step, every=every))
    # What another training did to the generators in between must not matter.
    torch.manual_seed(0)

    resumed = KilledAfter(path, step=None)
    again = bits(fit(resumed))

    assert again == whole
    assert resumed.steps == STEPS - step // every * every, "it began again where it need not"


def test_killed_again_and_again_it_ends_with_the_same_bits(
    tmp_path: Path, whole: tuple[object, ...]
):
    """One step at a time."""
    path = tmp_path / "checkpoint.pt"
    for _ in range(STEPS):
        with pytest.raises(Killed):
            fit(KilledAfter(path, step=1))

    assert bits(fit(KilledAfter(path, step=None))) == whole


def test_who_listens_hears_the_whole_curve_of_a_resumed_training(tmp_path: Path):
    """Epochs that the checkpoint brought come first, each once."""
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        fit(KilledAfter(path, step=9))
    heard = []

    made = train(
        Task(build=Small), examples(70, 1), examples(20, 2), SETTINGS, device="cpu",
        checkpoint=KilledAfter(path, step=None), heard=heard.append,
    )  # fmt: skip

    assert tuple(heard) == made.curve
    assert [epoch.epoch for epoch in heard] == [1, 2, 3]


def test_writing_checkpoints_changes_nothing(tmp_path: Path, whole: tuple[object, ...]):
    """Not a bit of the result."""
    assert bits(fit(KilledAfter(tmp_path / "checkpoint.pt", step=None))) == whole


@pytest.mark.parametrize("damage", ["cut", "other", "foreign", "another training's"])
def test_what_does_not_fit_is_not_resumed(tmp_path: Path, whole: tuple[object, ...], damage: str):
    """A damaged file, one of another kind or of another training: it begins anew."""
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        fit(KilledAfter(path, step=5))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "other":
        path.write_bytes(b"not a checkpoint")
    elif damage == "foreign":
        torch.save({"form": 99}, path)
    else:
        held = torch.load(path, weights_only=True)
        torch.save({**held, "identity": "sha256:other"}, path)

    again = KilledAfter(path, step=None)

    assert bits(fit(again)) == whole
    assert again.steps == STEPS


def test_a_checkpoint_is_of_one_data_set_one_code_one_setting():
    """Whatever changes the bits changes the identity."""
    inputs, labels = examples(4, 1).inputs_n, examples(4, 1).labels_n

    def identity(
        settings: Training, *arrays: np.ndarray, code: str = "a", device: str = "cpu",
        metric: str = "auc",
    ) -> str:  # fmt: skip
        task = {"metric": metric}
        base = identity_of_data(*arrays, code=code, device=device, task=task)
        return identity_of(settings, base=base)

    plain = identity(SETTINGS, inputs, labels)

    assert plain == identity(SETTINGS, inputs.copy(), labels)
    others = [
        identity(replace(SETTINGS, seed=43), inputs, labels),
        identity(SETTINGS, inputs, labels[::-1]),
        identity(SETTINGS, inputs[:3], labels),
        identity(SETTINGS, inputs, labels, code="b"),
        identity(SETTINGS, inputs, labels, device="cuda"),
        identity(SETTINGS, inputs, labels, metric="accuracy"),
    ]
    assert plain not in others
    assert len(set(others)) == len(others)


PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from tests.train.test_checkpoint import KilledAfter, fit, bits
class Kill(KilledAfter):
    def step_done(self, *given):
        super().step_done(*given)
        if self.steps == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
made = fit(Kill(Path(sys.argv[1]), step=None))
print(json.dumps(bits(made)[0]))
"""


def test_kill_9_in_another_process_is_resumed_in_this_one(
    tmp_path: Path, whole: tuple[object, ...]
):
    """Nothing that only lived in the process decides a bit."""
    path = tmp_path / "checkpoint.pt"
    killed = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), "7"], check=False, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())}, timeout=120,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    assert bits(fit(KilledAfter(path, step=None))) == whole
