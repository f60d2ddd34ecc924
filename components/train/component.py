"""Train with a seed, and prove that the bits repeat."""

from kfp import dsl

from components import images


@images.TRAIN
def train(
    workload: str,
    snapshot: dsl.Input[dsl.Dataset],
    data_verdict: dsl.Input[dsl.Artifact],
    seed: int,
    model: dsl.Output[dsl.Model],
):
    """Train the workload's network; a seed of 0 is the declared one."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.report import kubeflow
    from penstock.train import run

    run(
        workload=workload,
        snapshot=Path(snapshot.path),
        data_verdict=Path(data_verdict.path),
        seed=seed,
        out=Path(model.path),
        now=datetime.now(UTC),
    )
    kubeflow.describe(model, "model", seed=seed or None)
