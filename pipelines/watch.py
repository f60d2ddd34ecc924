"""Watch what serves: look at the champion, decide whether to train again, and do it if so."""

from functools import partial

from kfp import dsl

from components.monitor.component import monitor
from components.retrain.component import diagnose, retrain
from pipelines import train
from pipelines.placing import placed
from pipelines.profile import Profile

ACTS = ("train", "diagnose")
"""What retrain may return that has a branch; after ``wait`` the run is over."""


def pipeline(workload: str, profile: Profile | None = None):  # noqa: ANN201 - kfp's object has no public type
    """Return the pipeline that watches one workload, and trains it again inside the same run.

    Args:
        workload: Decides the pipeline's name, and whose training pipeline is inside.
        profile: With what its steps run on a cluster; None compiles for this machine.
    """
    step, training = partial(placed, profile=profile), train.pipeline(workload, profile)

    @dsl.pipeline(
        name=f"watch-{workload}",
        display_name=f"Watch {workload}",
        description="From what the champion answered to a decision, and on to a new version",
        pipeline_root=profile.pipeline_root or None if profile else None,
    )
    def watch_pipeline(
        predictions: str = "", outcomes: str = "", hours: int = 24, data_version: str = ""
    ) -> None:
        """Look at the champion; where it is worth it, train another.

        Args:
            predictions: Folder or address of the prediction log; empty for the one that the
                servers' environment names.
            outcomes: File or address of what became of predictions; empty for none.
            hours: How far back to look.
            data_version: Which state of the data a training takes; a run of the same one may reuse
                its snapshot.
        """
        looked = step(
            monitor(workload=workload, predictions=predictions, outcomes=outcomes, hours=hours)
        )
        decided = step(retrain(workload=workload, watched=looked.outputs["watched"]))
        with dsl.If(decided.outputs["Output"] == "train", name="train"):
            again = training(
                champion=looked.outputs["Output"],
                data_version=data_version,
                trigger=decided.outputs["trigger"],
            )
            again.set_display_name("Train again")
        with dsl.If(decided.outputs["Output"] == "diagnose", name="diagnose"):
            step(diagnose(decision=decided.outputs["decision"]))

    return watch_pipeline
