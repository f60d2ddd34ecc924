"""Put explicit Q/DQ into the graph, with ranges from training data."""

from kfp import dsl

from components import images


@images.ENGINE
def quantize(
    workload: str,
    snapshot: dsl.Input[dsl.Dataset],
    onnx: dsl.Input[dsl.Model],
    int8: dsl.Output[dsl.Model],
):
    """Write the int8 graph."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.quantize import run
    from penstock.report import kubeflow

    run(
        workload=workload,
        snapshot=Path(snapshot.path),
        onnx=Path(onnx.path),
        out=Path(int8.path),
        now=datetime.now(UTC),
    )
    kubeflow.describe(int8, "int8 graph")
