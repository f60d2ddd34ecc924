"""Workload: what one model in production declares; the policy every stage reads."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from penstock.endpoint import Endpoint, Instead
from penstock.policy import ALL as ALL_ROWS
from penstock.policy import (
    About,
    AtLeast,
    AtMost,
    Behaviour,
    Costs,
    Direction,
    Invariance,
    LeastCost,
    MinimumFunctionality,
    NoWorse,
    Rule,
    Sensitive,
    Slice,
    check_rules,
    refuse_twice,
)
from penstock.release import (
    Fallback,
    Market,
    Measure,
    Rollout,
    Shadow,
    State,
    Trigger,
    WhenBusy,
    check_positive,
    check_share,
)
from penstock.watching import Economics, Watch

__all__ = [
    "EXACT",
    "About",
    "Approval",
    "AtLeast",
    "AtMost",
    "Behaviour",
    "Calibrator",
    "Column",
    "Costs",
    "DataRules",
    "Dataset",
    "Direction",
    "Drift",
    "Economics",
    "Endpoint",
    "Engine",
    "Equivalence",
    "Export",
    "Fallback",
    "Found",
    "Freshness",
    "Instead",
    "Invariance",
    "LeastCost",
    "Limits",
    "Market",
    "Measure",
    "MinimumFunctionality",
    "Network",
    "NoWorse",
    "OnStale",
    "Quantize",
    "Rollout",
    "Rule",
    "Rung",
    "Search",
    "Searched",
    "Sensitive",
    "Shadow",
    "Slice",
    "State",
    "Training",
    "TrainingPrecision",
    "Trigger",
    "UnknownWorkload",
    "Watch",
    "WhenBusy",
    "Workload",
]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column a snapshot must have, and what its values may be."""

    name: str

    dtype: str
    """Arrow's name of the type: ``int64``, ``double``, ``string``, ``timestamp[us, tz=UTC]``."""

    low: float | None = None
    high: float | None = None
    length: int | None = None
    """For a list column: how many values each row holds."""

    nullable: bool = False
    """Whether a missing value is a value here; the others may have none."""

    max_missing: float = 1.0
    """Largest share of missing values in a nullable column."""

    among: tuple[int | str, ...] | None = None
    """All values it may have."""

    mean_low: float | None = None
    mean_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """Of how many label rows a feature view must know the entity."""

    view: str
    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"Found.share is {self.share}; it is a share, 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far columns may be from a reference, and how sure to be of it."""

    columns: tuple[str, ...]
    psi: float = 0.2
    ks: float = 0.1
    js: float = 0.1
    """Of the Jensen-Shannon distance: the root of the divergence in nats."""

    rate: float = 0.05
    """Of the columns called drifted, the share that may be so by chance."""


class OnStale(StrEnum):
    """What a look-up gives for a feature that is older than it may be."""

    FALLBACK_TO_DEFAULT = "fallback_to_default"
    SERVE_STALE = "serve_stale"


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How old a feature may be, and what to do when it is older; it is counted either way."""

    feature: str
    max_staleness: timedelta
    on_stale: OnStale
    default: Any = None
    """Given instead by ``fallback_to_default``; None is a missing value."""

    channels: tuple[str, ...] = ()
    """Who is told: names of alert channels."""

    def __post_init__(self) -> None:
        check_positive("Freshness", max_staleness_s=self.max_staleness.total_seconds())
        object.__setattr__(self, "on_stale", OnStale(self.on_stale))
        if self.on_stale is OnStale.SERVE_STALE and self.default is not None:
            raise ValueError(
                f"Freshness of {self.feature} serves the stale value and declares a default; leave "
                "the default out, or fall back to it."
            )


@dataclass(frozen=True, kw_only=True)
class DataRules:
    """What a snapshot must satisfy before anything is trained on it."""

    columns: tuple[Column, ...]

    unique: tuple[str, ...]
    """Columns that together identify a row."""

    at_least_rows: int

    found: tuple[Found, ...] = ()
    drift: Drift | None = None
    """Between holdout and training rows, and from the reference snapshot where one is given."""

    freshness: tuple[Freshness, ...] = ()
    """How old features may be, when the snapshot is taken and when they are served."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One hyper-parameter of a search: a range, or some choices."""

    name: str
    """Of a field of ``Training``."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        ranged = self.low is not None and self.high is not None
        if ranged == (self.choices is not None):
            raise ValueError(f"Searched {self.name!r} needs either low and high, or choices.")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"Searched {self.name!r}: low {self.low} is not below {self.high}.")


@dataclass(frozen=True, kw_only=True)
class Search:
    """A seeded search for hyper-parameters before training; the best on validation rows is kept."""

    trials: int
    parameters: tuple[Searched, ...]

    def __post_init__(self) -> None:
        check_positive("Search", trials=self.trials)
        if not self.parameters:
            raise ValueError("Search.parameters is empty; name what is searched.")


class TrainingPrecision(StrEnum):
    """Numeric precision of the forward pass in training; weights are always kept in fp32."""

    FP32 = "fp32"
    BF16 = "bf16"


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the network is trained."""

    epochs: int
    batch_size: int
    """Examples of one step, over all processes together."""

    learning_rate: float
    weight_decay: float = 0.0

    seed: int = 42

    threads: int = 2
    """CPU threads: part of the bits, since sums are split by thread."""

    proof_steps: int = 12
    """Steps trained a second time from the start, to prove the bits repeat."""

    precision: TrainingPrecision = TrainingPrecision.FP32
    channels_last: bool = False
    """Images lie in memory pixel by pixel, which tensor cores like."""

    compiled: bool = False
    """Compile the network with torch.compile."""

    fused: bool = False
    """The optimizer updates all parameters in one kernel."""

    prefetch: int = 0
    """Batches made ready ahead by a thread of its own; changes no bit."""

    processes: int = 1
    """Processes on each node that share a step, started by torchrun; part of the bits."""

    nodes: int = 1
    """Machines; more than one needs Kubeflow Trainer."""

    search: Search | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", TrainingPrecision(self.precision))
        check_positive(
            "Training",
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            threads=self.threads,
            proof_steps=self.proof_steps,
            processes=self.processes,
            nodes=self.nodes,
        )
        if self.batch_size % (self.processes * self.nodes):
            raise ValueError(
                f"Training.batch_size is {self.batch_size}; it must divide among "
                f"{self.processes * self.nodes} processes."
            )
        searched = {s.name for s in self.search.parameters} if self.search else set[str]()
        if unknown := searched - vars(self).keys():
            raise ValueError(f"Training.search names {sorted(unknown)}, which Training has not.")


@dataclass(frozen=True, kw_only=True)
class Export:
    """How the graph is made, and how far it may stray from the model."""

    opset: int = 20
    ir_version: int = 10
    """Of the file format; the newest that the serving runtime loads is no older."""

    max_abs_error: float = 1e-4
    """Largest difference of any output on real inputs, on any slice."""


class Calibrator(StrEnum):
    """How the range of an activation is chosen from what it was on training rows."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """How the int8 graph is made. Explicit Q/DQ; ranges come from training data only."""

    examples: int = 320
    """Training examples used to choose the ranges."""

    calibrators: tuple[Calibrator, ...] = tuple(Calibrator)
    """Tried in this order; the best on validation rows is kept, the earlier of equals."""

    percentile: float = 99.99
    """Of an activation's absolute values that ``percentile`` keeps in range."""

    max_float_layers: int | None = None
    """Most weighted layers that may stay in float for the tolerance's sake; None: any number."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What engines are built of the int8 graph, and where one must have run."""

    backends: tuple[str, ...] = ("onnxruntime", "tensorrt-rtx", "tensorrt")
    """Tried in this order, each that the machine has; the others say why they were not built."""

    batches: tuple[int, ...] = (1, 8, 64)
    """Batch sizes of the optimization profile: smallest, usual, largest."""

    required: tuple[str, ...] = ()
    """Backends whose engine must have been built and run; without it the stage fails."""

    version_compatible: bool = False
    """Newer TensorRT runtimes may load it, at some cost of speed."""

    hardware_compatibility: str = "none"
    """``none``, ``ampere_plus`` or ``same_compute_capability``."""

    def __post_init__(self) -> None:
        if len(self.batches) != 3 or list(self.batches) != sorted(self.batches):
            raise ValueError(
                f"Engine.batches is {self.batches}; give the smallest, usual and largest size."
            )
        check_positive("Engine", smallest_batch=self.batches[0])
        if unknown := set(self.required) - set(self.backends):
            raise ValueError(f"Engine.required names {sorted(unknown)}, not among its backends.")
        if self.hardware_compatibility not in ("none", "ampere_plus", "same_compute_capability"):
            raise ValueError(
                f"Engine.hardware_compatibility is {self.hardware_compatibility!r}; it is none, "
                "ampere_plus or same_compute_capability."
            )


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one comparison of a step with the step before must keep. None asks nothing."""

    min_agreement: float
    """Share of examples with the same decision as the step before."""

    max_metric_drop: float
    """How much worse the task's metric may get."""

    min_snr_db: float | None = None
    """Signal-to-noise ratio of the outputs, in decibels."""

    min_rank_correlation: float | None = None
    """Spearman's, of the scores."""

    max_probability_change: float | None = None
    """Of any class on any example."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What one step of the equivalence ladder must keep, overall and on each slice."""

    whole: Limits
    slices: Limits

    named: tuple[tuple[str, Limits], ...] = ()
    """Slices with limits of their own."""

    def limits(self, name: str) -> Limits:
        """Return the limits of a slice."""
        return dict(self.named).get(name, self.slices)


EXACT = Rung(
    whole=Limits(min_agreement=0.999, max_metric_drop=1e-4, min_snr_db=100.0),
    slices=Limits(min_agreement=0.999, max_metric_drop=1e-4, min_snr_db=80.0),
)
"""What a step that rewrites the graph and rounds nothing must keep."""


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Tolerances of the ladder torch → ONNX → simplified → int8 → engine."""

    int8: Rung
    onnx: Rung = EXACT
    simplified: Rung = EXACT

    engine: Rung | None = None
    """None: derived from how far the int8 graph is from itself on inputs that barely differ."""

    min_slice_support: int = 30
    """Examples a slice needs before it is judged; with fewer it is inconclusive and said so."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The data of one model: where they come from, and what they must be."""

    name: str
    title: str
    owner: str
    feature_service: str
    label: str
    """Column of the snapshot that holds the label."""

    data: DataRules

    label_delay: timedelta = timedelta(0)
    """From a label's event until its value is known; younger ones are left out."""


METRICS = ("accuracy", "auc")


class Approval(StrEnum):
    """Who lets a version of a workload forward besides its evidence."""

    AUTOMATIC = "automatic"
    PERSON = "person"  # signs the feature contract; a regulated use


@dataclass(frozen=True, kw_only=True)
class Network(Dataset):
    """The network of one model: what it decides, how it is trained and made small and fast."""

    classes: int
    """Of the label, from 0; the network gives one logit for each."""

    training: Training
    export: Export
    quantize: Quantize
    engine: Engine
    equivalence: Equivalence

    metric: str = "accuracy"
    """What the task is judged by: ``accuracy``, or ``auc`` of the probability of class 1."""

    threshold: float | None = None
    """Of two classes: the probability of class 1 from which the decision is 1, in a task whose
    product is that probability. None: the most likely class is the decision."""

    slices: tuple[Slice, ...] = ()
    """Judged on their own, with each class where the decision is a class."""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"Network.metric is {self.metric!r}; it is one of {METRICS}.")
        if self.threshold is not None:
            check_share("Network", threshold=self.threshold)
        if self.classes != 2 and (self.threshold is not None or self.metric == "auc"):
            raise ValueError(f"a probability has 2 classes; {self.name!r} has {self.classes}.")
        refuse_twice(
            "slices", [ALL_ROWS, *self.class_slices(), *(part.name for part in self.slices)]
        )

    def class_slices(self) -> tuple[str, ...]:
        """Return the names of the slices that classes are.

        A task whose product is a probability has none: the label is what it predicts, and its
        metric needs both.
        """
        if self.threshold is not None:
            return ()
        return tuple(f"class {label}" for label in range(self.classes))


@dataclass(frozen=True, kw_only=True)
class Workload(Network):
    """One model in production with its data, policy and service."""

    gate: tuple[Rule, ...]
    rollout: Rollout
    about: About
    serve: str = "int8"
    """Which graph serves: ``onnx`` or ``int8``. The gate scores this one."""

    behaviours: tuple[Behaviour, ...] = ()
    """What the model must do to rows changed on purpose, and on plain cases."""

    costs: Costs | None = None
    """Of wrong decisions; ``threshold`` follows from them."""

    sensitive: tuple[Sensitive, ...] = ()
    prohibited: tuple[str, ...] = ()
    """Names that no feature may have, besides those of sensitive attributes."""

    favourable: int = 1
    """The decision that is good for whom it is about; fairness compares who gets it."""

    min_support: int = 30
    """Rows a slice, group or behaviour needs before it is judged; with fewer it is inconclusive."""

    endpoint: Endpoint = field(default_factory=Endpoint)
    recorded: bool = False
    """The data are a recording that gets no newer: their age counts from when they were taken."""

    watch: Watch = field(default_factory=Watch)
    """What is asked of it while it serves, and when it is trained again."""

    approval: Approval = Approval.AUTOMATIC
    retention: timedelta = timedelta(days=365)
    """How long the record of a version is kept after it was retired."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.serve not in ("onnx", "int8"):
            raise ValueError(f"Workload.serve is {self.serve!r}; it must be 'onnx' or 'int8'.")
        if not self.gate:
            raise ValueError(f"workload {self.name!r} declares no gate; add at least one rule.")
        if not self.owner.strip():
            raise ValueError(f"workload {self.name!r} has no owner; name who answers for it.")
        object.__setattr__(self, "approval", Approval(self.approval))
        if self.costs is not None and self.threshold != self.costs.threshold:
            raise ValueError(
                f"Workload.threshold is {self.threshold}, but its costs are least "
                f"from {self.costs.threshold:g} on; declare threshold=COSTS.threshold, or mend the "
                "costs."
            )
        if not 0 <= self.favourable < self.classes:
            raise ValueError(f"Workload.favourable is {self.favourable}; it is a class.")
        check_positive(
            "Workload", min_support=self.min_support, retention_s=self.retention.total_seconds()
        )
        refuse_twice("sensitive attributes", [attribute.name for attribute in self.sensitive])
        refuse_twice("behaviours", [behaviour.name for behaviour in self.behaviours])
        self._refuse_unknown_features()
        ways = [b.name for b in self.behaviours if isinstance(b, Direction)]
        if ways and self.classes != 2:
            raise ValueError(
                f"Direction {ways[0]!r} asks of the probability of class 1 of two; "
                f"{self.name!r} has {self.classes} classes."
            )
        check_rules(
            self.gate,
            classes=self.classes,
            costs=self.costs,
            sensitive=self.sensitive,
            slices=len(self.slices) + len(self.class_slices()),
        )

    def _refuse_unknown_features(self) -> None:
        known = {column.name for column in self.data.columns}
        endpoint = [*self.endpoint.values, *self.endpoint.hashed]
        for what, named in (("endpoint", endpoint), ("watch", self.watch.columns)):
            if unknown := [name for name in named if name not in known]:
                raise ValueError(
                    f"the {what} of {self.name!r} names {unknown[0]!r}, which is no column of its "
                    f"data; there are {', '.join(sorted(known))}."
                )


def served_graph(declared: Workload) -> str:
    """Return the file that serves on a CPU, in the bundle that :attr:`Workload.serve` names."""
    return "model.int8-cpu.onnx" if declared.serve == "int8" else "model.onnx"


def served_artifact(declared: Workload) -> str:
    """Return under which name ``budgets.json`` has what the graph that serves costs."""
    return "int8-cpu" if declared.serve == "int8" else "fp32"


class UnknownWorkload(ValueError):
    """No folder of that name declares a workload."""


def root() -> Path:
    """Return the folder that holds ``workloads/`` and ``feature_repo/``."""
    return Path(__file__).resolve().parents[1]


def known() -> list[str]:
    """Return the names of all workloads that declare one."""
    return sorted(p.parent.name for p in (root() / "workloads").glob("*/workload.py"))


def load(name: str) -> Workload:
    """Return a workload's declaration; imports no library but numpy-free plain Python.

    Raises:
        UnknownWorkload: There is no ``workloads/<name>/workload.py``, or it declares no release.
    """
    declared = load_data(name)
    if not isinstance(declared, Workload):
        last = "equivalence" if isinstance(declared, Network) else "datachecks"
        raise UnknownWorkload(
            f"workload {name!r} declares no gate and no rollout yet; its stages end with {last}."
        )
    return declared


def load_network(name: str) -> Network:
    """Return what a workload declares of its data and network.

    Raises:
        UnknownWorkload: There is no ``workloads/<name>/workload.py``, or it declares no network.
    """
    declared = load_data(name)
    if not isinstance(declared, Network):
        raise UnknownWorkload(
            f"workload {name!r} declares its data and no model yet; its stages are features and "
            "datachecks."
        )
    return declared


def load_data(name: str) -> Dataset:
    """Return what a workload declares of its data; one without a model has that alone.

    Raises:
        UnknownWorkload: There is no ``workloads/<name>/workload.py``.
    """
    if name not in known():
        raise UnknownWorkload(f"no workload {name!r}; there is {', '.join(known())}.")
    declared = part(name, "workload").WORKLOAD
    if not isinstance(declared, Dataset) or declared.name != name:
        raise UnknownWorkload(
            f"workloads/{name}/workload.py must set WORKLOAD to a Workload named {name!r}."
        )
    return declared


def transform_file(name: str) -> Path:
    """Return the source of a workload's transform."""
    return root() / "workloads" / name / TRANSFORM


def part(name: str, module: str) -> ModuleType:
    """Return one of a workload's modules: ``model``, ``transform``, ``data``."""
    return importlib.import_module(f"workloads.{name}.{module}")


RULES = "rules.py"
"""A workload's rules, which answer where its model cannot; a package carries them too."""

TRANSFORM = "transform.py"
"""A workload's transform, which a package carries: it imports none of the workload's modules."""

BEHAVIOUR = "behaviour.py"
"""A workload's changes and cases for behavioural tests."""


def sources(stage: str, name: str) -> list[Path]:
    """Return the source files and folders that decide what a stage makes for a workload.

    The declaration itself is left out: what a stage uses of it enters its recipe as settings, so
    that a new rollout policy does not train a new model. Behaviours are the gate's alone, rules are
    the package's.
    """
    library = Path(__file__).resolve().parent
    values = ("workload.py", "policy.py", "verdict.py", "bundle.py", "stage.py")
    shared = [library / module for module in values]
    below = [library / m for m in _BELOW.get(stage, ())]
    apart = {"workload.py", *(part for part, owner in _OWNERS.items() if owner != stage)}
    own = [p for p in (root() / "workloads" / name).glob("*.py") if p.name not in apart]
    repo = definitions(name) if stage == "features" else []
    return [library / stage, *shared, *below, *sorted(own), *repo]


def definitions(name: str) -> list[Path]:
    """Return the files that tell Feast what a workload's features are."""
    repo = root() / "feature_repo"
    return [repo / "entities.py", repo / f"{name}.py", repo / "feature_store.yaml"]


_OWNERS = {BEHAVIOUR: "gate", RULES: "register"}
"""The stage that alone reads a workload's module."""

_BELOW = {
    "train": ("stats",),
    "export": ("runtimes", "stats"),
    "quantize": ("runtimes", "stats"),
    "engine": ("runtimes", "stats"),
    "equivalence": ("runtimes", "stats"),
    "gate": ("runtimes", "stats", "report"),
    "register": ("endpoint.py", "request.py", "runtimes", "stats", "report"),
    "monitor": ("watching.py", "request.py", "registered.py", "predictions", "stats", "report"),
    "retrain": ("watching.py", "registered.py", "stats", "report"),
}
"""What each stage uses of the packages below the stages."""


def task_of(declared: Network) -> dict[str, Any]:
    """Return what a network is for, which decides what every stage after the data makes of it."""
    return {
        "label": declared.label,
        "classes": declared.classes,
        "metric": declared.metric,
        "threshold": declared.threshold,
    }


def settings_of(declared: object) -> dict[str, Any]:
    """Return a declaration as plain values, for a recipe; durations become seconds."""

    def plain(value: object) -> object:
        if isinstance(value, timedelta):
            return value.total_seconds()
        if isinstance(value, dict):
            items = cast("dict[object, object]", value).items()
            return {str(k): plain(v) for k, v in items}
        if isinstance(value, list | tuple):
            return [plain(v) for v in cast("Sequence[object]", value)]
        return value

    return cast("dict[str, Any]", plain(asdict(cast(Any, declared))))
