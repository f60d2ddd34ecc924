"""One training from its settings to its proof: searched, tracked, in one process or in several."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from penstock import tracking
from penstock import workload as workloads
from penstock.bundle import write_text
from penstock.machine import environment, git_revision
from penstock.stage import Refused
from penstock.stats import calibration, metrics
from penstock.train import distributed, search, trainjob
from penstock.train.batches import Examples
from penstock.train.checkpoint import Checkpoint, identity_of, identity_of_data
from penstock.train.loop import Diverged, Epoch, logits_of, train
from penstock.train.proved import Proved, prove
from penstock.workload import Network, Training


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What a training left."""

    proved: Proved
    settings: Training
    """With what the search found."""

    trials: list[search.Trial]
    calibration: dict[str, Any]
    environment: dict[str, Any]
    untracked: str | None
    """What is missing from the tracking server, and why."""


WORST = 0.0
"""What a trial that diverged scores: no metric is below."""


@dataclass(frozen=True, kw_only=True)
class _Data:
    examples: Examples
    validation: Examples
    identity: str
    """Of the data, the code and the device; with settings it names a training."""

    device: str

    def identity_with(self, settings: Training) -> str:
        return identity_of(settings, base=self.identity)


def carry(
    declared: Network,
    settings: Training,
    examples: Examples,
    validation: Examples,
    *,
    code: str,
    tags: Mapping[str, str],
    store: Path | None,
    out: Path,
) -> Carried:
    """Search where declared, train, prove, and record it all.

    Args:
        code: Hash of the sources that decide the bits.
        tags: Of the data, for the record.
        store: Folder that keeps checkpoints and finished trials; None keeps none.
        out: Where the bundle will be; a job for several machines lies beside it.

    Raises:
        Refused: It is to run on several machines and has not, or a process of it failed.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = _Data(
        examples=examples,
        validation=validation,
        identity=identity_of_data(
            examples.inputs_n,
            examples.labels_n,
            validation.inputs_n,
            validation.labels_n,
            code=code,
            device=device,
            task=workloads.task_of(declared),
        ),
        device=device,
    )
    here = environment(workloads.root())
    tracked = tracking.begin(
        declared.name,
        name=f"train {data.identity_with(settings)[7:19]}",
        params={"rows": len(examples.labels_n)},
        tags={**tags, **_tags(here, code, device)},
        identity=data.identity_with(settings),
    )
    try:
        used, trials = _searched(declared, settings, data, tracked, store)
        tracked.params(asdict(used))
        proved = _trained(declared, used, data, tracked, store, out)
        found = _calibration(declared, proved, validation)
    except BaseException:
        tracked.end(ok=False)
        raise
    tracked.metrics(_last(proved, found), step=used.epochs)
    tracked.note({"penstock.certificate": "holds" if proved.certificate.holds else "broken"})
    tracked.end(ok=proved.certificate.holds)
    return Carried(
        proved=proved,
        settings=used,
        trials=trials,
        calibration=found,
        environment=here,
        untracked=tracked.reason,
    )


def _tags(here: Mapping[str, Any], code: str, device: str) -> dict[str, str]:
    """Return what a reader of the record needs to know of where it was made."""
    libraries = ", ".join(f"{name} {version}" for name, version in here["libraries"].items())
    said = {k: here[k] for k in ("lock", "python", "driver", "cuda", "gpu") if here[k]}
    return {
        "penstock.kind": "train",
        "penstock.code": code,
        "penstock.device": device,
        "penstock.libraries": libraries,
        **{f"penstock.{name}": str(value) for name, value in said.items()},
        **({"mlflow.source.git.commit": git} if (git := git_revision(workloads.root())) else {}),
    }


def _searched(
    declared: Network,
    settings: Training,
    data: _Data,
    tracked: tracking.Tracked,
    store: Path | None,
) -> tuple[Training, list[search.Trial]]:
    if settings.search is None:
        return settings, []
    identity = data.identity_with(settings)

    def score(tried: Training) -> float:
        alone = replace(tried, processes=1, nodes=1)
        try:
            made = train(
                distributed.task_of(declared),
                data.examples,
                data.validation,
                alone,
                device=data.device,
            )
        except Diverged:
            return WORST
        metric = made.curve[-1].validation_metric
        if metric is None:
            raise Refused(
                f"the validation rows cannot tell {declared.metric}, so there is nothing to search "
                "by; give more rows."
            )
        return metric

    def heard(trial: search.Trial) -> None:
        below = tracked.child(f"trial {trial.number}", trial.parameters)
        below.metrics({f"validation_{declared.metric}": trial.metric}, step=0)
        below.end(ok=True)

    return search.find(
        settings.search,
        settings,
        score,
        study=store / "checkpoints" / f"search-{identity[7:39]}.db" if store else None,
        identity=identity,
        heard=heard,
    )


def _trained(
    declared: Network,
    settings: Training,
    data: _Data,
    tracked: tracking.Tracked,
    store: Path | None,
    out: Path,
) -> Proved:
    identity = data.identity_with(settings)
    if settings.processes * settings.nodes > 1:
        proved = _shared(declared, settings, data, store=store, out=out)
        for epoch in proved.trained.curve:
            _record(tracked, epoch, declared.metric)
        return proved
    kept = None
    if store is not None:
        kept = Checkpoint(
            store / "checkpoints" / f"{identity[7:39]}.pt",
            identity=identity,
            due=distributed.every(distributed.CHECKPOINT_S, time.monotonic),
        )
    proved = prove(
        distributed.task_of(declared),
        data.examples,
        data.validation,
        settings,
        device=data.device,
        checkpoint=kept,
        heard=lambda epoch: _record(tracked, epoch, declared.metric),
    )
    if kept is not None:
        kept.done()
    return proved


def _shared(
    declared: Network, settings: Training, data: _Data, *, store: Path | None, out: Path
) -> Proved:
    """Train in several processes; on several machines, write the job and say what to do with it."""
    identity = data.identity_with(settings)
    several = settings.nodes > 1
    kept = out.parent if several or store is None else store / "checkpoints"
    folder = kept / f"training-{identity[7:19]}"
    if (done := distributed.answered(folder, declared, identity=identity)) is not None:
        return done
    place = trainjob.Place.from_environment() if several else None
    distributed.ask(
        folder, declared.name, data.examples, data.validation, settings, identity=identity
    )
    if place is not None:
        name = f"train-{declared.name}-{identity[7:19]}"
        job = trainjob.manifest(name, folder, settings, place)
        written = folder / "trainjob.yaml"
        write_text(written, yaml.safe_dump(job, sort_keys=False))
        raise Refused(
            f"training on {settings.nodes} machines is Kubeflow Trainer's: kubectl apply -f "
            f"{written}, wait until TrainJob {name} is complete, and run this step again."
        )
    distributed.torchrun(folder, settings)
    done = distributed.answered(folder, declared, identity=identity)
    if done is None:
        raise Refused(f"the processes ended well and left no answer in {folder}; run it again.")
    distributed.forget(folder)
    return done


def _record(tracked: tracking.Tracked, epoch: Epoch, metric: str) -> None:
    values = {"train_loss": epoch.train_loss, "validation_loss": epoch.validation_loss}
    if epoch.validation_metric is not None:
        values[f"validation_{metric}"] = epoch.validation_metric
    tracked.metrics(values, step=epoch.epoch)


def _last(proved: Proved, found: Mapping[str, Any]) -> dict[str, float]:
    speed = {f"speed.{k}": v for k, v in asdict(proved.speed).items() if v is not None}
    return {**speed, "calibration_error": found["error"]}


def _calibration(declared: Network, proved: Proved, validation: Examples) -> dict[str, Any]:
    """Return reliability bins and calibration error on the validation rows.

    Of the probability of class 1 where that is the product; of the decided class elsewhere.
    """
    # Training gives the network back on the CPU.
    logits = logits_of(proved.trained.model, validation, device="cpu")
    probability_nk = metrics.probabilities(logits)
    if declared.threshold is None:
        decided = probability_nk.argmax(axis=1)
        probability = probability_nk[np.arange(len(decided)), decided]
        happened, of = decided == validation.labels_n, "the decided class"
    else:
        probability, happened = probability_nk[:, 1], validation.labels_n == 1
        of = f"{declared.label} = 1"
    bins = calibration.reliability(probability, happened)
    return {
        "of": of,
        "rows": len(happened),
        "bins": [asdict(b) for b in bins],
        "error": calibration.expected_error(bins),
        "by_chance": calibration.chance_error(bins),
    }
