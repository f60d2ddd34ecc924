"""Hold every artifact against the one before it, overall and on every slice."""

from kfp import dsl

from components import images


@images.ENGINE
def equivalence(
    workload: str,
    snapshot: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    onnx: dsl.Input[dsl.Model],
    int8: dsl.Input[dsl.Model],
    engine: dsl.Input[dsl.Model],
    ladder: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
):
    """Climb the ladder torch → ONNX → simplified → int8 → engines on the holdout."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.equivalence import run
    from penstock.report import kubeflow

    run(
        workload=workload,
        snapshot=Path(snapshot.path),
        model=Path(model.path),
        onnx=Path(onnx.path),
        int8=Path(int8.path),
        engine=Path(engine.path),
        out=Path(ladder.path),
        now=datetime.now(UTC),
    )
    kubeflow.show_ladder(ladder, report, workload=workload)
