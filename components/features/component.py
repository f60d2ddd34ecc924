"""Join labels with what was known at their time."""

from kfp import dsl

from components import images


@images.DATA
def features(workload: str, snapshot: dsl.Output[dsl.Dataset]):
    """Write the workload's training snapshot."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.features import run

    run(workload=workload, out=Path(snapshot.path), now=datetime.now(UTC))
