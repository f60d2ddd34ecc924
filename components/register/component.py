"""Put model, lineage, verdicts and card into the registry and the ledger."""

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
    rehearsal: str,
    actor: str,
    package: dsl.Output[dsl.Model],
) -> str:
    """Return the number of the registered version."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.register import run

    return run(
        workload=workload,
        snapshot=Path(snapshot.path),
        data_verdict=Path(data_verdict.path),
        model=Path(model.path),
        serving=Path(serving.path),
        engine=Path(engine.path),
        equivalence=Path(equivalence.path),
        gate=Path(verdict.path),
        rehearsal=rehearsal,
        actor=actor,
        out=Path(package.path),
        now=datetime.now(UTC),
    )
