"""Causes: how likely a changed setting, file or library is to move a metric. Rules, no proof.

Weights order what may explain a change; they are no probabilities. What decides every row comes
before what decides what is learned of them, that before what only rounds otherwise.
"""

from __future__ import annotations

from typing import NamedTuple


class Cause(NamedTuple):
    """What a change would have to move before it can move the metric, and how readily it does."""

    through: str
    """``data``, ``model`` or ``graph``: what must differ for it to matter; ``scoring``: nothing."""

    weight: float
    """0 to 1; 0 where it moves nothing."""

    reason: str


_LEARNED = Cause("model", 0.7, "it decides what is learned")
_SPLIT = Cause("model", 0.3, "sums are split otherwise, and so is each step's batch")
_ROUNDED = Cause("model", 0.2, "it changes the order of sums and so their rounding")
_NO_BIT = Cause("model", 0.0, "it changes no bit of the model")

_SETTINGS = {
    "precision": Cause("model", 0.5, "the forward pass is rounded to fewer digits"),
    **dict.fromkeys(("processes", "nodes"), _SPLIT),
    **dict.fromkeys(("threads", "channels_last", "compiled", "fused"), _ROUNDED),
    **dict.fromkeys(("prefetch", "proof_steps"), _NO_BIT),
}


def cause_of_setting(name: str) -> Cause:
    """Return what a changed training setting may do.

    >>> cause_of_setting("learning_rate").reason
    'it decides what is learned'
    >>> cause_of_setting("prefetch").weight
    0.0
    """
    return _SETTINGS.get(name, _LEARNED)


_NOTHING = Cause("scoring", 0.0, "it takes no part in data, training or scoring")
_SHARED = Cause("model", 0.1, "values that every stage shares")

_WORKLOAD_FILES = {
    "model.py": Cause("model", 0.68, "it is the network"),
    "transform.py": Cause("scoring", 0.66, "it makes the network's inputs of the rows"),
    "workload.py": Cause("model", 0.1, "a declaration's values are listed on their own"),
    "behaviour.py": Cause("scoring", 0.0, "it makes cases for the gate and no metric"),
    "__init__.py": _NOTHING,
}

_PACKAGES = {
    "feature_repo": Cause("data", 0.1, "its definitions are listed on their own"),
    "penstock/features": Cause("data", 0.5, "it joins the rows"),
    "penstock/online": Cause("data", 0.1, "the join holds its rows against it"),
    "penstock/datachecks": Cause("data", 0.0, "it lets data pass and changes none"),
    "penstock/train": Cause("model", 0.62, "it trains"),
    "penstock/export": Cause("graph", 0.35, "it makes the graph"),
    "penstock/quantize": Cause("graph", 0.4, "it makes the graph small"),
    "penstock/runtimes": Cause("scoring", 0.35, "it runs what is scored"),
    "penstock/gate": Cause("scoring", 0.4, "it computes the metric"),
    "penstock/stats": Cause("scoring", 0.38, "metrics and the validation rows are computed there"),
    "penstock/engine": Cause("scoring", 0.0, "it builds and measures what the gate does not score"),
    "penstock/equivalence": Cause("scoring", 0.0, "it compares and changes nothing"),
}

_ROWS = Cause("data", 0.6, "it makes the rows")


def cause_of_file(path: str) -> tuple[str, Cause]:
    """Return to what a source file belongs and what a change of it may do.

    >>> cause_of_file("penstock/train/loop.py")[0]
    'penstock/train'
    >>> cause_of_file("penstock/report/page.py")[1].weight
    0.0
    >>> cause_of_file("workloads/digits/model.py")[1].reason
    'it is the network'
    """
    parts = path.split("/")
    if parts[0] == "workloads":
        return path.rpartition("/")[0] + " " + parts[-1], _WORKLOAD_FILES.get(parts[-1], _ROWS)
    if parts[0] == "penstock" and len(parts) == 2:
        return "penstock", _SHARED
    package = parts[0] if parts[0] == "feature_repo" else "/".join(parts[:2])
    return package, _PACKAGES.get(package, _NOTHING)


_LIBRARIES = {
    **dict.fromkeys(("torch", "torchvision"), Cause("model", 0.32, "it trains, kernel by kernel")),
    "onnxruntime": Cause("scoring", 0.3, "it runs what is scored"),
    "numpy": Cause("model", 0.25, "it makes the network's inputs and draws the batches"),
    "optuna": Cause("model", 0.25, "it chooses the hyperparameters"),
    **dict.fromkeys(
        ("feast", "pandas", "pyarrow", "scikit-learn"), Cause("data", 0.18, "it makes the rows")
    ),
    **dict.fromkeys(
        ("onnx", "onnxscript", "sympy"), Cause("graph", 0.15, "it takes part in making the graph")
    ),
    "scipy": Cause("scoring", 0.15, "ranks, and so the AUC, are computed with it"),
}


def cause_of_library(name: str) -> Cause:
    """Return what another version of a library may do.

    >>> cause_of_library("torch").through
    'model'
    """
    return _LIBRARIES.get(name, Cause("model", 0.03, "it computes no number of a model"))
