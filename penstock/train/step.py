"""Run the train stage: train, prove the first epochs repeat, write the model bundle."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import (
    Bundle,
    Summary,
    code_revision,
    read,
    store_from_environment,
    write_json,
)
from penstock.stage import Refused, carry_out, require_pass
from penstock.verdict import Outcome
from penstock.workload import Training, Workload, settings_of

VALIDATION_SHARE = 0.1
"""Newest share of the training rows kept for the curve; the holdout is never looked at here."""


CHECKPOINT_S = 5.0
"""Seconds of training that a kill may cost."""

PROOF = "proof.json"
"""What the features stage checked of the join."""


def run(
    *, workload: str, snapshot: Path, data_verdict: Path, seed: int, out: Path, now: datetime
) -> None:
    """Write a model bundle at ``out``: ``model.safetensors``, ``curve.json``, ``certificate.json``.

    Args:
        seed: Replaces the declared seed; 0 keeps it.

    Raises:
        Refused: The data verdict is not a pass, the snapshot does not prove that nothing in it is
            from the future, or training twice gave other bits.
        BundleError: An input is not whole.
    """
    declared = workloads.load(workload)
    settings = replace(declared.training, seed=seed or declared.training.seed)
    data = require_proof(read(snapshot, kind="snapshot"))
    inputs = {"snapshot": data, "data-verdict": require_pass(data_verdict, kind="data-verdict")}
    bundle = carry_out(
        "train",
        kind="model",
        workload=workload,
        inputs=inputs,
        settings={"training": settings_of(settings)},
        make=lambda folder: _make(folder, declared, settings, data.file("train.parquet")),
        out=out,
        now=now,
    )
    if not bundle.json("certificate.json")["holds"]:
        raise Refused(f"training does not repeat: {bundle.summary.line}")


def require_proof(snapshot: Bundle) -> Bundle:
    """Return the snapshot if it carries the whole proof of its join.

    Raises:
        Refused: There is none, or it does not hold.
    """
    if PROOF not in snapshot.manifest["files"]:
        raise Refused(
            f"snapshot {snapshot.fingerprint} has no {PROOF}, so nobody knows whether it holds the "
            "future; make it with the features stage."
        )
    proof = snapshot.json(PROOF)
    try:
        whole = (
            proof["rows"]["labels"] == proof["rows"]["joined"]
            and proof["keys"]["labels"] == proof["keys"]["joined"]
            and all(proof[name] for name in ("views", "planted", "feature_definitions", "registry"))
        )
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise Refused(
            f"the proof of snapshot {snapshot.fingerprint} does not hold: rows, keys, views and "
            "planted rows must be there and agree; run the features stage again."
        )
    return snapshot


def _make(folder: Path, declared: Workload, settings: Training, rows_file: Path) -> Summary:
    import torch  # noqa: PLC0415 - seconds to import; not needed when the bundle is reused
    from safetensors.torch import save_file  # noqa: PLC0415

    from penstock.train import checkpoint, determinism, loop  # noqa: PLC0415

    network = workloads.part(declared.name, "model")
    train, validation = _examples(pq.read_table(rows_file), declared)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def trained(epochs: int, kept: checkpoint.Checkpoint | None = None) -> loop.Trained:
        return loop.train(
            lambda: network.build(classes=declared.classes),
            train,
            validation,
            settings,
            epochs=epochs,
            device=device,
            checkpoint=kept,
        )

    identity = checkpoint.identity_of(
        settings,
        *(array for part in (train, validation) for array in (part.images_nchw, part.labels_n)),
        code=code_revision(*workloads.sources("train", declared.name)),
        device=device,
    )
    store = store_from_environment()
    kept = None
    if store is not None:
        path = store / "checkpoints" / f"{identity[7:39]}.pt"
        kept = checkpoint.Checkpoint(path, identity=identity, due=_every(CHECKPOINT_S))
    # The proof is never resumed: it shows that the whole path repeats.
    whole, again = trained(settings.epochs, kept), trained(settings.proof_epochs)
    if kept is not None:
        kept.done()
    certificate = determinism.certify(
        whole.proof,
        again.proof,
        epochs=settings.proof_epochs,
        threads=settings.threads,
        device=device,
    )
    save_file(whole.model.state_dict(), folder / "model.safetensors")
    write_json(folder / "curve.json", [asdict(epoch) for epoch in whole.curve])
    write_json(folder / "certificate.json", certificate.to_dict())
    write_json(folder / "config.json", {"classes": declared.classes, "seed": settings.seed})
    if not certificate.holds:
        names = ", ".join(certificate.differed[:3])
        return Summary(Outcome.FAIL, f"{len(certificate.differed)} tensors differ: {names}, …")
    last = whole.curve[-1]
    return Summary(
        Outcome.PASS,
        f"validation accuracy {last.validation_accuracy:.4f} after {last.epoch} epochs, seed "
        f"{settings.seed}; first {certificate.epochs} epochs repeated bit for bit",
    )


def _every(seconds: float) -> Callable[[], bool]:
    """Return a function that is true once in so many seconds."""
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds:
            return False
        last = now
        return True

    return due


def _examples(rows: pa.Table, declared: Workload):  # noqa: ANN202 - torch-side type, imported late
    from penstock.train.loop import Examples  # noqa: PLC0415

    transform = workloads.part(declared.name, "transform")
    cut = len(rows) - int(len(rows) * VALIDATION_SHARE)
    return tuple(
        Examples(
            images_nchw=transform.training_input(part),
            labels_n=part[declared.label].to_numpy(),
        )
        for part in (rows.slice(0, cut), rows.slice(cut))
    )
