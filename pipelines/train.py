"""From features to a registered version: every stage in order, as one flat pipeline."""

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

OUTCOMES = ("promote", "reject")
"""What the gate may return; each has its branch."""


def pipeline(workload: str):  # noqa: ANN201 - kfp's pipeline object has no public type
    """Return the training pipeline of one workload.

    Args:
        workload: Decides the pipeline's name and which graph serves.
    """
    declared = load(workload)

    @dsl.pipeline(
        name=f"train-{workload}",
        display_name=f"Train {workload}",
        description="From point-in-time features to a registered version, through every gate",
    )
    def train_pipeline(seed: int = 0, champion: str = "", rehearsal: str = "") -> None:
        """Carry one candidate from features to the registry, or say why not."""
        data = features(workload=workload)
        snapshot = data.outputs["snapshot"]
        checked = datachecks(workload=workload, snapshot=snapshot)
        verdict = checked.outputs["data_verdict"]
        fitted = train(workload=workload, snapshot=snapshot, data_verdict=verdict, seed=seed)
        model = fitted.outputs["model"]
        exported = export(workload=workload, snapshot=snapshot, model=model)
        onnx = exported.outputs["onnx"]
        quantized = quantize(workload=workload, snapshot=snapshot, onnx=onnx)
        int8 = quantized.outputs["int8"]
        built = engine(workload=workload, int8=int8).outputs["engine"]
        climbed = equivalence(
            workload=workload,
            snapshot=snapshot,
            model=model,
            onnx=onnx,
            int8=int8,
            engine=built,
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
        # Judging and registering look at what serves today, which no cache key knows.
        judged = gate(**evidence, champion=champion).set_caching_options(False)
        with dsl.If(judged.outputs["Output"] == "promote", name="promote"):
            register(
                **evidence,
                verdict=judged.outputs["verdict"],
                champion=champion,
                rehearsal=rehearsal,
            ).set_caching_options(False)
        with dsl.If(judged.outputs["Output"] == "reject", name="reject"):
            reject(verdict=judged.outputs["verdict"]).set_caching_options(False)

    return train_pipeline
