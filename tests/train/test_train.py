"""Laws of training: the same bits again, and no pass without proof."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penstock import train as stage
from penstock import workload as workloads
from penstock.stage import Refused
from penstock.train import determinism, step
from penstock.train.batches import Examples
from penstock.train.loop import Diverged, Task, Trained, train
from penstock.workload import Training
from tests import bundles
from workloads.digits.model import augment, build
from workloads.digits.transform import request_input, training_input

SETTINGS = Training(epochs=3, batch_size=32, learning_rate=1e-3, proof_steps=4)
ROWS = bundles.rows()


def examples(start: int, n: int) -> Examples:
    """Return real examples."""
    return Examples(
        inputs_n=bundles.images(start + n)[start:],
        labels_n=ROWS["label"].to_numpy()[start : start + n],
    )


TASK = Task(build=lambda: build(classes=10), augment=augment)


def fit(settings: Training = SETTINGS, *, stop_after: int | None = None) -> Trained:
    """Train on a hundred images: three batches an epoch."""
    return train(
        TASK, examples(0, 100), examples(100, 20), settings, device="cpu", stop_after=stop_after
    )


def state(trained: Trained) -> str:
    """Return one hash of a network's tensors."""
    return determinism.combined(determinism.hashes(trained.model.state_dict()))


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    """Training is a function of its seed."""
    first, again, other = fit(), fit(), fit(replace(SETTINGS, seed=43))

    assert state(first) == state(again)
    assert state(first) != state(other)


def test_the_first_steps_of_a_whole_run_are_those_of_a_short_one():
    """The proof compares like with like: stopping early changes nothing before."""
    whole, short = fit(), fit(stop_after=4)

    assert whole.proof == short.proof
    assert (whole.steps, short.steps) == (9, 4)


def test_a_certificate_names_what_differed():
    """Two runs that differ in one tensor do not certify, and the tensor is named."""
    certificate = determinism.certify(
        {"model.a": "1", "model.b": "2"},
        {"model.a": "1", "model.b": "3"},
        steps=2,
        threads=2,
        device="cpu",
    )

    assert not certificate.holds
    assert certificate.differed == ("model.b",)


def test_hashes_see_the_last_bit():
    """One flipped bit in one weight changes the hash."""
    weights = torch.ones(4)
    nudged = weights.clone()
    nudged[0] = torch.nextafter(nudged[0], torch.tensor(2.0))

    assert determinism.hashes({"w": weights}) != determinism.hashes({"w": nudged})


def test_an_operation_without_a_deterministic_form_is_refused_by_name():
    """A network that cannot repeat raises, naming the operation."""

    class Nondeterministic(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            index = x.reshape(len(x), -1).argmax(1) % 10
            source = (self.w * x.mean()).expand(len(x), 10)
            torch.zeros(10).put_(index, source.sum(1), accumulate=False)
            return source

    with pytest.raises(RuntimeError, match="put_"):
        train(
            Task(build=Nondeterministic), examples(0, 64), examples(64, 8), SETTINGS, device="cpu"
        )


@given(st.integers(1, 5), st.integers(0, 1000))
def test_shifts_move_by_at_most_one_pixel(n: int, seed: int):
    """A shifted image is the image seen through a window moved by at most one pixel."""
    image = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(n, 1, 1, 1)

    moved = augment(image, generator=torch.Generator().manual_seed(seed))

    assert moved.shape == image.shape
    centre = moved[:, 0, 3, 3] - image[:, 0, 3, 3]
    assert set(centre.tolist()) <= {float(8 * r + c) for r in (-1, 0, 1) for c in (-1, 0, 1)}


def test_training_refuses_data_that_did_not_pass(tmp_path: Path):
    """Without a passing data verdict nothing is trained."""
    source = bundles.snapshot(tmp_path / "in")
    refused = bundles.verdict(tmp_path / "verdict", "data-verdict", outcome="fail")

    with pytest.raises(Refused, match="data-verdict is fail"):
        stage.run(
            workload="digits",
            snapshot=source,
            data_verdict=refused,
            seed=0,
            out=tmp_path / "out",
            now=bundles.NOW,
        )


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        (None, "has no proof.json"),
        ({**bundles.PROOF, "rows": {"labels": 9, "joined": 8}}, "does not hold"),
        ({**bundles.PROOF, "keys": {"labels": "a", "joined": "b"}}, "does not hold"),
        ({**bundles.PROOF, "planted": []}, "does not hold"),
        ({n: v for n, v in bundles.PROOF.items() if n != "registry"}, "does not hold"),
        ([], "does not hold"),
    ],
    ids=["none", "rows lost", "other keys", "nothing planted", "no registry", "not a proof"],
)
def test_training_refuses_a_snapshot_without_its_proof(tmp_path: Path, proof: object, said: str):
    """What cannot show that it holds nothing of the future is not trained on."""
    source = bundles.snapshot(tmp_path / "in", proof=proof)

    with pytest.raises(Refused, match=said):
        stage.run(
            workload="digits",
            snapshot=source,
            data_verdict=bundles.verdict(tmp_path / "verdict", "data-verdict"),
            seed=0,
            out=tmp_path / "out",
            now=bundles.NOW,
        )


def test_the_transform_is_the_same_in_training_and_serving():
    """What a request becomes equals, bit for bit, what its snapshot row became."""
    assert np.array_equal(training_input(ROWS), request_input(ROWS))


def test_a_training_that_diverges_says_so_and_what_to_lower():
    """Not a network of numbers that are none."""
    with pytest.raises(
        Diverged, match=r"diverged in epoch 1.*lower learning_rate, which is 1e\+30"
    ):
        fit(replace(SETTINGS, learning_rate=1e30))


@pytest.mark.parametrize("field", ["metric", "label", "machine"])
def test_what_a_model_is_for_and_made_on_is_in_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
):
    """A model that was judged by another metric, or made on another GPU, is not reused."""
    asked: list[dict] = []

    class AskedError(Exception):
        pass

    def stop(*_: object, settings: dict, **__: object) -> None:
        asked.append(settings)
        raise AskedError

    monkeypatch.setattr(step, "carry_out", stop)
    declared = workloads.load("digits")
    columns = (*declared.data.columns, replace(declared.data.columns[2], name="other"))
    other = {
        "metric": {"classes": 2, "metric": "auc"},
        "label": {"label": "other", "data": replace(declared.data, columns=columns)},
        "machine": {},
    }[field]
    inputs = {
        "snapshot": bundles.snapshot(tmp_path / "in"),
        "data_verdict": bundles.verdict(tmp_path / "verdict", "data-verdict"),
    }
    for changed in ({}, other):
        monkeypatch.setattr(
            workloads, "load_network", lambda _, changed=changed: replace(declared, **changed)
        )
        if changed is other and field == "machine":
            monkeypatch.setattr(step.machine, "gpu", lambda: {"gpu": "NVIDIA H200"})
        with pytest.raises(AskedError):
            stage.run(workload="digits", seed=0, out=tmp_path / "out", now=bundles.NOW, **inputs)

    assert asked[0] != asked[1]
