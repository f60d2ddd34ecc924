"""Export the network to ONNX and hold the graph against it."""

from kfp import dsl

from components import images


@images.TRAIN
def export(
    workload: str,
    snapshot: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    onnx: dsl.Output[dsl.Model],
):
    """Write a graph verified on real inputs."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.export import run
    from penstock.report import kubeflow

    run(
        workload=workload,
        snapshot=Path(snapshot.path),
        model=Path(model.path),
        out=Path(onnx.path),
        now=datetime.now(UTC),
    )
    kubeflow.describe(onnx, "ONNX graph")
