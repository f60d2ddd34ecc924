"""Package, try in the real server, record in registry and ledger, admit to STAGING."""

from kfp import dsl

from components import images


@images.CONTROL
def register(
    workload: str,
    snapshot: dsl.Input[dsl.Dataset],
    data_verdict: dsl.Input[dsl.Artifact],
    model: dsl.Input[dsl.Model],
    serving: dsl.Input[dsl.Model],
    engine: dsl.Input[dsl.Model],
    equivalence: dsl.Input[dsl.Artifact],
    verdict: dsl.Input[dsl.Artifact],
    champion: str,
    rehearsal: str,
    trigger: str,
    package: dsl.Output[dsl.Model],
    infra_verdict: dsl.Output[dsl.Artifact],
    card: dsl.Output[dsl.HTML],
) -> str:
    """Return the number of the registered version."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.register import run
    from penstock.report import kubeflow

    version = run(
        workload=workload,
        snapshot=Path(snapshot.path),
        data_verdict=Path(data_verdict.path),
        model=Path(model.path),
        serving=Path(serving.path),
        engine=Path(engine.path),
        equivalence=Path(equivalence.path),
        gate=Path(verdict.path),
        champion=champion,
        rehearsal=rehearsal,
        trigger=trigger,
        out=Path(package.path),
        infra_verdict=Path(infra_verdict.path),
        now=datetime.now(UTC),
    )
    kubeflow.show_card(package, card, version=version)
    return version
