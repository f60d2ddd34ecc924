"""Judge the challenger against the champion on the holdout."""

from kfp import dsl

from components import images


@images.CONTROL
def gate(
    workload: str,
    snapshot: dsl.Input[dsl.Dataset],
    data_verdict: dsl.Input[dsl.Artifact],
    model: dsl.Input[dsl.Model],
    serving: dsl.Input[dsl.Model],
    engine: dsl.Input[dsl.Model],
    equivalence: dsl.Input[dsl.Artifact],
    champion: str,
    verdict: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    decisions: dsl.Output[dsl.ClassificationMetrics],
) -> str:
    """Return "promote" or "reject"; a bad model does not make this step fail."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.gate import run
    from penstock.report import kubeflow

    decision = run(
        workload=workload,
        snapshot=Path(snapshot.path),
        data_verdict=Path(data_verdict.path),
        model=Path(model.path),
        serving=Path(serving.path),
        engine=Path(engine.path),
        equivalence=Path(equivalence.path),
        champion=champion,
        out=Path(verdict.path),
        now=datetime.now(UTC),
    )
    kubeflow.show_gate(verdict, report, metrics, decisions)
    return decision


@images.CONTROL
def reject(verdict: dsl.Input[dsl.Artifact]):
    """Turn the run red, with the reason as the log's last line."""
    from pathlib import Path

    from penstock.stage import require_pass

    require_pass(Path(verdict.path), kind="gate")
    raise SystemExit("the gate said reject, but its verdict is a pass: the two disagree")
