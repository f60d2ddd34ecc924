"""Refuse data that breaks a declared rule."""

from kfp import dsl

from components import images


@images.DATA
def datachecks(
    workload: str,
    snapshot: dsl.Input[dsl.Dataset],
    data_verdict: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
):
    """Judge the snapshot; the step fails, naming every rule, when it is not fit."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.datachecks import run
    from penstock.report import kubeflow

    run(
        workload=workload,
        snapshot=Path(snapshot.path),
        out=Path(data_verdict.path),
        now=datetime.now(UTC),
    )
    kubeflow.show_data(data_verdict, report, workload=workload)
