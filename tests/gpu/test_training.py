"""Laws of training on a real GPU: the certificate holds there, alone and shared, and it is busy.

make test-gpu
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from penstock.train import distributed
from penstock.train.batches import Examples
from penstock.train.loop import Task
from penstock.train.proved import Proved, prove
from penstock.workload import Training, load_network
from tests import bundles
from workloads.digits.model import augment, build

pytestmark = pytest.mark.gpu

SETTINGS = Training(epochs=2, batch_size=32, learning_rate=1e-3, proof_steps=3)
FASTER = replace(SETTINGS, precision="bf16", channels_last=True, fused=True, prefetch=2)
ROWS = bundles.rows()
IMAGES, LABELS = bundles.images(ROWS.num_rows), ROWS["label"].to_numpy()
LARGE, STEPS = 8192, 8
"""Examples of a batch that keeps a GPU busy, and batches of an epoch."""


@pytest.fixture(scope="module", autouse=True)
def device() -> None:
    """These tests were asked for, and mean nothing without a GPU that torch can use."""
    assert torch.cuda.is_available(), "these tests need an NVIDIA GPU and a torch built for CUDA"


def examples(start: int, n: int) -> Examples:
    """Return so many real examples, from the first on again where they do not suffice."""
    picked = np.arange(start, start + n) % len(LABELS)
    return Examples(inputs_n=IMAGES[picked], labels_n=LABELS[picked])


def proved(settings: Training, *, n: int = 100) -> Proved:
    """Train digits on the GPU, with proof."""
    task = Task(build=lambda: build(classes=10), augment=augment)
    return prove(task, examples(0, n), examples(n, 20), settings, device="cuda")


@pytest.mark.parametrize("settings", [SETTINGS, FASTER], ids=["fp32", "all that is faster"])
def test_a_training_on_the_gpu_certifies(settings: Training):
    """The first steps twice with the same bits: no sum there depends on which thread came first."""
    made = proved(settings)

    assert made.certificate.differed == ()
    assert made.certificate.holds
    assert (made.certificate.device, made.certificate.steps) == ("cuda", 3)
    assert all(np.isfinite(epoch.train_loss) for epoch in made.trained.curve)


def test_processes_with_a_gpu_each_certify_and_agree(tmp_path: Path):
    """Gradients go by NCCL; at the end both hold the same parameters."""
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs 2 GPUs, this machine has {torch.cuda.device_count()}")
    shared = replace(SETTINGS, processes=2)
    distributed.ask(
        tmp_path, "digits", examples(0, 100), examples(100, 20), shared, identity="sha256:1"
    )
    distributed.torchrun(tmp_path, shared)

    made = distributed.answered(tmp_path, load_network("digits"), identity="sha256:1")

    assert made is not None
    assert made.certificate.differed == ()
    assert made.certificate.holds
    assert (made.certificate.device, made.certificate.world) == ("cuda", 2)


def test_a_large_batch_keeps_the_gpu_busy():
    """Batches are made ready while it works; the share of its time is recorded, and is high."""
    # Seconds in which libraries are loaded and the GPU has nothing to do.
    proved(SETTINGS)

    made = proved(
        replace(SETTINGS, epochs=40, batch_size=LARGE, prefetch=4, fused=True), n=STEPS * LARGE
    )

    busy = made.speed.gpu_busy
    assert busy is not None, "the driver's tool said nothing of the GPU's use"
    print(f"GPU busy {busy:.1%} of {made.speed.seconds:.1f} s")
    assert 0.8 < busy <= 1
    assert made.certificate.holds
