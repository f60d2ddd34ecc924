"""What every step of a pipeline is: its image, its verb for people, what it may be asked twice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step, whichever pipelines it is in."""

    group: str
    """Of the image it runs in."""

    verb: str
    """What people read in Kubeflow's page of a run."""

    cached: bool = True
    """Its result hangs on its inputs, its parameters and its image alone, which is what Kubeflow's
    cache knows of it. Not so for who reads the champion, the traffic or the machine."""

    acts: bool = False
    """It changes something outside the run, or its failing is its message: no retry unless a
    profile names the step and asks for one."""

    repeatable: bool = True
    """A second attempt after a cut one does no harm."""


STEPS = {
    # The version of the data is a parameter of it, and so in its key.
    "features": Step(group="data", verb="Join the features"),
    "datachecks": Step(group="data", verb="Check the data"),
    "train": Step(group="train", verb="Train the model"),
    "export": Step(group="train", verb="Export to ONNX"),
    "quantize": Step(group="engine", verb="Quantize to int8"),
    # What it builds and measures is the machine's, which no key knows.
    "engine": Step(group="engine", verb="Build the engines", cached=False),
    "equivalence": Step(group="engine", verb="Compare the graphs"),
    "gate": Step(group="control", verb="Judge the challenger", cached=False),
    # It finds a version that it had begun or made, so a retry registers nothing twice.
    "register": Step(group="control", verb="Register the version", cached=False, acts=True),
    "reject": Step(group="control", verb="Say why not", cached=False, acts=True, repeatable=False),
    "monitor": Step(group="control", verb="Watch live traffic", cached=False),
    # What was decided on a verdict is not decided again, so a retry enters nothing twice.
    "retrain": Step(group="control", verb="Decide on retraining", cached=False, acts=True),
    "diagnose": Step(
        group="control", verb="Ask a person to look", cached=False, acts=True, repeatable=False
    ),
}
"""Every step by its component's name."""

GROUPS = ("data", "train", "engine", "control")
"""Of images that steps run in."""
