"""Join labels with what was known at their time."""

from kfp import dsl

from components import images


@images.DATA
def features(workload: str, data_version: str, snapshot: dsl.Output[dsl.Dataset]):
    """Write the workload's training snapshot; another version of the data is another call."""
    from datetime import UTC, datetime
    from pathlib import Path

    from penstock.features import run
    from penstock.report import kubeflow

    run(workload=workload, out=Path(snapshot.path), now=datetime.now(UTC))
    kubeflow.describe(snapshot, "snapshot", data_version=data_version or None)
