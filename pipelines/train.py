"""From features to a registered version: every stage in order, as one flat pipeline."""

from functools import partial

from kfp import dsl

from components.datachecks.component import datachecks
from components.engine.component import engine
from components.equivalence.component import equivalence
from components.export.component import export
from components.features.component import features
from components.gate.component import gate, reject
from components.quantize.component import quantize
from components.register.component import register
from components.train.component import train
from penstock.workload import load
from pipelines.placing import placed
from pipelines.profile import Profile

OUTCOMES = ("promote", "reject")
"""What the gate may return; each has its branch."""


def pipeline(workload: str, profile: Profile | None = None):  # noqa: ANN201 - kfp's object has no public type
    """Return the training pipeline of one workload.

    Args:
        workload: Decides the pipeline's name and which graph serves.
        profile: With what its steps run on a cluster; None compiles for this machine.
    """
    declared, step = load(workload), partial(placed, profile=profile)

    @dsl.pipeline(
        name=f"train-{workload}",
        display_name=f"Train {workload}",
        description="From point-in-time features to a registered version, through every gate",
        pipeline_root=profile.pipeline_root or None if profile else None,
    )
    def train_pipeline(
        seed: int = 0,
        champion: str = "",
        rehearsal: str = "",
        data_version: str = "",
        trigger: str = "manual",
    ) -> None:
        """Carry one candidate from features to the registry, or say why not.

        Args:
            seed: Replaces the declared seed; 0 keeps it.
            champion: Package of the version that serves, a folder or an address; empty for none.
            rehearsal: Name of a fault it is broken with on purpose; empty for a real candidate.
            data_version: Which state of the data; a run of the same one may reuse its snapshot.
            trigger: Why it is trained: manual, scheduled, drift or performance.
        """
        data = step(features(workload=workload, data_version=data_version))
        snapshot = data.outputs["snapshot"]
        checked = step(datachecks(workload=workload, snapshot=snapshot))
        verdict = checked.outputs["data_verdict"]
        fitted = step(train(workload=workload, snapshot=snapshot, data_verdict=verdict, seed=seed))
        model = fitted.outputs["model"]
        exported = step(export(workload=workload, snapshot=snapshot, model=model))
        onnx = exported.outputs["onnx"]
        quantized = step(quantize(workload=workload, snapshot=snapshot, onnx=onnx))
        int8 = quantized.outputs["int8"]
        built = step(engine(workload=workload, int8=int8)).outputs["engine"]
        climbed = step(
            equivalence(
                workload=workload,
                snapshot=snapshot,
                model=model,
                onnx=onnx,
                int8=int8,
                engine=built,
            )
        )
        evidence = {
            "workload": workload,
            "snapshot": snapshot,
            "data_verdict": verdict,
            "model": model,
            "serving": int8 if declared.serve == "int8" else onnx,
            "engine": built,
            "equivalence": climbed.outputs["ladder"],
        }
        judged = step(gate(**evidence, champion=champion))
        with dsl.If(judged.outputs["Output"] == "promote", name="promote"):
            step(
                register(
                    **evidence,
                    verdict=judged.outputs["verdict"],
                    champion=champion,
                    rehearsal=rehearsal,
                    trigger=trigger,
                )
            )
        with dsl.If(judged.outputs["Output"] == "reject", name="reject"):
            step(reject(verdict=judged.outputs["verdict"]))

    return train_pipeline
