"""Decide whether to train again, and say in the ledger why."""

from kfp import dsl

from components import images


@images.CONTROL
def retrain(
    workload: str,
    watched: dsl.Input[dsl.Artifact],
    decision: dsl.Output[dsl.Artifact],
    trigger: dsl.OutputPath(str),  # pyright: ignore[reportInvalidTypeForm]
) -> str:
    """Return "train", "wait" or "diagnose"; the trigger is the word that the training takes."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.report import kubeflow
    from penstock.retrain import run, trigger_of

    act = run(
        workload=workload,
        monitor=Path(watched.path),
        out=Path(decision.path),
        now=datetime.now(UTC),
    )
    kubeflow.describe(decision, "decision")
    Path(trigger).parent.mkdir(parents=True, exist_ok=True)
    Path(trigger).write_text(trigger_of(Path(decision.path)))
    return act


@images.CONTROL
def diagnose(decision: dsl.Input[dsl.Artifact]):
    """Turn the run red, with the reason as the log's last line: a person looks first."""
    from pathlib import Path

    from penstock.retrain import require_no_diagnosis

    require_no_diagnosis(Path(decision.path))
    raise SystemExit("retrain said diagnose, but its decision says otherwise: the two disagree")
