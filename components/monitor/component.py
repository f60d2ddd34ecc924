"""Look at what the champion answered, and whether it is still right."""

from kfp import dsl

from components import images


@images.CONTROL
def monitor(
    workload: str,
    predictions: str,
    outcomes: str,
    hours: int,
    watched: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Return the champion's package; a bad champion does not make this step fail."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.monitor import run
    from penstock.report import kubeflow

    champion = run(
        workload=workload,
        predictions=predictions,
        outcomes=outcomes,
        hours=hours,
        out=Path(watched.path),
        now=datetime.now(UTC),
    )
    kubeflow.show_watch(watched, report, metrics)
    return champion
