"""Laws of the certificate: it holds with everything that makes training faster, or it says so."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from penstock.train import determinism
from penstock.train.batches import Examples
from penstock.train.busy import Busy, mean_share
from penstock.train.checkpoint import Checkpoint
from penstock.train.loop import Task
from penstock.train.proved import Proved, prove
from penstock.workload import Training
from tests import bundles
from workloads.digits.model import augment, build

SETTINGS = Training(epochs=2, batch_size=32, learning_rate=1e-3, proof_steps=3)
ROWS = bundles.rows()


def examples(start: int, n: int) -> Examples:
    """Return real examples."""
    return Examples(
        inputs_n=bundles.images(start + n)[start:],
        labels_n=ROWS["label"].to_numpy()[start : start + n],
    )


def proved(task: Task, settings: Training = SETTINGS, **more: object) -> Proved:
    """Train on a hundred images, with proof."""
    return prove(
        task, examples(0, 100), examples(100, 20), settings, device="cpu",
        **more,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


DIGITS = Task(build=lambda: build(classes=10), augment=augment)
SMALL = Task(build=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(),
                                         nn.Dropout(0.2), nn.Linear(16, 10)))  # fmt: skip


@pytest.fixture(scope="module")
def plain() -> Proved:
    """Return a training with nothing turned on."""
    return proved(DIGITS)


def state(made: Proved) -> str:
    """Return one hash of a network's tensors."""
    return determinism.combined(determinism.hashes(made.trained.model.state_dict()))


@pytest.mark.parametrize(
    ("faster", "same_bits"),
    [
        ({"precision": "bf16"}, False),
        ({"channels_last": True}, False),
        ({"fused": True}, False),
        ({"prefetch": 3}, True),
        ({"precision": "bf16", "channels_last": True, "fused": True, "prefetch": 2}, False),
    ],
    ids=["mixed precision", "channels last", "fused", "prefetch", "all"],
)
def test_what_makes_training_faster_keeps_the_certificate(
    plain: Proved, faster: dict[str, object], same_bits: bool
):
    """Twice the same bits with it; the bits of a training without it only where it says so."""
    made = proved(DIGITS, replace(SETTINGS, **faster))  # pyright: ignore[reportArgumentType]

    assert plain.certificate.holds
    assert made.certificate.holds
    assert made.certificate.steps == 3
    assert (state(made) == state(plain)) or not same_bits


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: g++")
def test_a_compiled_network_keeps_the_certificate():
    """And its state has the names of the network as it was declared."""
    made = proved(SMALL, replace(SETTINGS, compiled=True))

    assert made.certificate.holds
    assert list(made.trained.model.state_dict()) == list(SMALL.build().state_dict())


def test_a_network_that_does_not_repeat_is_found_out():
    """What was made outside the seeds differs, and is named."""
    made = iter(range(10))

    def other_every_time() -> nn.Module:
        model = SMALL.build()
        with torch.no_grad():
            next(iter(model.parameters())).fill_(next(made) / 10)
        return model

    certificate = proved(Task(build=other_every_time)).certificate

    assert not certificate.holds
    assert "model.1.weight" in certificate.differed


def test_the_certificate_is_of_a_training_that_was_resumed_too(tmp_path: Path):
    """Steps that a checkpoint saved are compared with steps that were trained again."""
    path, steps = tmp_path / "kept.pt", iter(range(100))

    class KilledError(Exception):
        pass

    class Killed(Checkpoint):
        def step_done(self, *given: object) -> None:
            super().step_done(*given)  # pyright: ignore[reportArgumentType]
            if next(steps) == 3:
                raise KilledError

    with pytest.raises(KilledError):
        proved(SMALL, checkpoint=Killed(path, identity="a", due=lambda: True))

    resumed = proved(SMALL, checkpoint=Checkpoint(path, identity="a", due=lambda: True))

    assert resumed.trained.steps == 2
    assert resumed.certificate.holds
    assert state(resumed) == state(proved(SMALL))


def test_a_certificate_over_nothing_does_not_hold():
    """No evidence is no pass."""
    assert not determinism.certify({}, {}, steps=1, threads=1, device="cpu").holds


def test_what_a_training_costs_is_recorded(tmp_path: Path):
    """Of a training that came whole from its checkpoint there is no throughput."""
    kept = Checkpoint(tmp_path / "kept.pt", identity="a", due=lambda: True)
    first = proved(SMALL, checkpoint=kept)
    again = proved(SMALL, checkpoint=Checkpoint(kept._path, identity="a", due=lambda: False))

    assert first.speed.examples_per_s is not None
    assert first.speed.checkpoint_s > 0
    assert again.speed.examples_per_s is None
    assert again.certificate.holds
    assert first.speed.gpu_busy is None


def test_the_gpu_is_as_busy_as_its_driver_says(tmp_path: Path):
    """The mean of all that was said; of nothing, nothing."""
    said = tmp_path / "said"
    script = f"echo 80; echo 90; echo nothing; touch {said}; exec sleep 60"
    with Busy(["sh", "-c", script]) as busy:
        while not said.exists():
            time.sleep(0.01)
    assert busy.share == pytest.approx(0.85)
    assert mean_share("") is None
    assert Busy.of("cpu").share is None


def test_losses_on_few_rows_at_once_are_those_on_all():
    """Validation in parts changes no metric."""
    from penstock.train import loop  # noqa: PLC0415 - its constant is changed here

    model = SMALL.build()
    whole = loop.logits_of(model, examples(0, 50), device="cpu")
    kept, loop.MEASURED_AT_ONCE = loop.MEASURED_AT_ONCE, 7
    try:
        parts = loop.logits_of(model, examples(0, 50), device="cpu")
    finally:
        loop.MEASURED_AT_ONCE = kept

    assert parts.shape == (50, 10)
    assert np.allclose(parts, whole, atol=1e-6)
