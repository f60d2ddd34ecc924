"""Build engines of the int8 graph and measure what they cost; it needs no data."""

from kfp import dsl

from components import images


@images.ENGINE
def engine(
    workload: str,
    int8: dsl.Input[dsl.Model],
    engine: dsl.Output[dsl.Model],
):
    """Write the engines and their budgets."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.engine import run
    from penstock.report import kubeflow

    run(
        workload=workload,
        int8=Path(int8.path),
        out=Path(engine.path),
        now=datetime.now(UTC),
    )
    kubeflow.describe(engine, "engines")
