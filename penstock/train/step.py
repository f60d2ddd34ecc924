"""Run the train stage: train, prove the first epochs repeat, write the model bundle."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penstock import machine
from penstock import workload as workloads
from penstock.bundle import (
    MEASURED,
    Bundle,
    Summary,
    code_revision,
    read,
    store_from_environment,
    write_json,
)
from penstock.stage import Refused, carry_out, require_pass
from penstock.stats import holdback
from penstock.verdict import Outcome
from penstock.workload import Network, Training, settings_of, task_of

PROOF = "proof.json"
"""What the features stage checked of the join."""


def run(
    *, workload: str, snapshot: Path, data_verdict: Path, seed: int, out: Path, now: datetime
) -> None:
    """Write a model bundle at ``out``.

    It holds ``model.safetensors``, ``config.json``, ``curve.json``, ``certificate.json``,
    ``calibration.json``, where one was asked for ``search.json``, and what was measured.

    Args:
        seed: Replaces the declared seed; 0 keeps it.

    Raises:
        Refused: The data verdict is not a pass, the snapshot does not prove that nothing in it is
            from the future, training twice gave other bits, or the training runs on several
            machines and is not done.
        BundleError: An input is not whole.
    """
    declared = workloads.load_network(workload)
    settings = replace(declared.training, seed=seed or declared.training.seed)
    data = require_proof(read(snapshot, kind="snapshot"))
    inputs = {"snapshot": data, "data-verdict": require_pass(data_verdict, kind="data-verdict")}
    bundle = carry_out(
        "train",
        kind="model",
        workload=workload,
        inputs=inputs,
        # Another kind of GPU, or none, makes other bits of the same settings.
        settings={
            "training": settings_of(settings),
            "task": task_of(declared),
            "gpu": machine.gpu()["gpu"],
        },
        make=lambda folder: _make(folder, declared, settings, data, out=out),
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


def _make(
    folder: Path, declared: Network, settings: Training, snapshot: Bundle, *, out: Path
) -> Summary:
    # Read when torch is loaded. Its threads would wait for each other by spinning, which on a
    # machine that does other work too takes up to ten times as long; it changes no bit.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from safetensors.torch import save_file  # noqa: PLC0415 - seconds to import, if there is work

    from penstock.train import carried  # noqa: PLC0415

    examples, validation = _examples(pq.read_table(snapshot.file("train.parquet")), declared)
    made = carried.carry(
        declared,
        settings,
        examples,
        validation,
        code=code_revision(*workloads.sources("train", declared.name)),
        tags={"penstock.data": snapshot.fingerprint, "penstock.data_digest": snapshot.digest},
        store=store_from_environment(),
        out=out,
    )
    proved, used = made.proved, made.settings
    certificate, curve = proved.certificate, proved.trained.curve
    save_file(proved.trained.model.state_dict(), folder / "model.safetensors")
    write_json(folder / "curve.json", [asdict(epoch) for epoch in curve])
    write_json(folder / "certificate.json", certificate.to_dict())
    write_json(
        folder / "config.json",
        {"classes": declared.classes, "metric": declared.metric, **settings_of(used)},
    )
    write_json(folder / "calibration.json", made.calibration)
    if settings.search is not None:
        write_json(folder / "search.json", [asdict(trial) for trial in made.trials])
    (folder / MEASURED).mkdir()
    write_json(folder / MEASURED / "speed.json", asdict(proved.speed))
    write_json(folder / MEASURED / "environment.json", made.environment)
    write_json(folder / MEASURED / "tracking.json", {"lost": made.untracked})
    if not certificate.holds:
        names = ", ".join(certificate.differed[:3])
        return Summary(Outcome.FAIL, f"{len(certificate.differed)} tensors differ: {names}, …")
    last = curve[-1]
    metric = "unknown" if last.validation_metric is None else f"{last.validation_metric:.4f}"
    searched = f"best of {len(made.trials)} trials; " if made.trials else ""
    untracked = f"; {made.untracked}" if made.untracked else ""
    return Summary(
        Outcome.PASS,
        f"{searched}validation {declared.metric} {metric} after {last.epoch} epochs, seed "
        f"{used.seed}; first {certificate.steps} steps repeated bit for bit{untracked}",
    )


def _examples(rows: pa.Table, declared: Network):  # noqa: ANN202 - torch-side type, imported late
    from penstock.train.batches import Examples  # noqa: PLC0415

    transform = workloads.part(declared.name, "transform")
    return tuple(
        Examples(
            inputs_n=transform.training_input(part),
            labels_n=part[declared.label].to_numpy(),
        )
        for part in holdback.split(rows)
    )
