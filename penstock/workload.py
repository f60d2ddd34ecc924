"""Workload: what one model in production declares; the policy every stage reads."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, cast


def _positive(owner: str, **numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{owner}.{name} is {number}; it must be greater than 0.")


def _share(owner: str, **numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 < number < 1:
            raise ValueError(f"{owner}.{name} is {number}; it must lie between 0 and 1.")


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
        _positive("Freshness", max_staleness_s=self.max_staleness.total_seconds())
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
class Training:
    """How the network is trained."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0

    seed: int = 42

    threads: int = 2
    """CPU threads: part of the bits, since sums are split by thread."""

    proof_epochs: int = 2
    """Epochs trained a second time from the start, to prove the bits repeat."""

    def __post_init__(self) -> None:
        _positive(
            "Training",
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            threads=self.threads,
            proof_epochs=self.proof_epochs,
        )
        if self.proof_epochs > self.epochs:
            raise ValueError(
                f"Training.proof_epochs is {self.proof_epochs}, more than the {self.epochs} epochs "
                "there are; lower it."
            )


@dataclass(frozen=True, kw_only=True)
class Export:
    """How the graph is made, and how far it may stray from the model."""

    opset: int = 20
    max_abs_error: float = 1e-4
    """Largest difference of any output on real inputs."""


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """How the int8 graph is made. Explicit Q/DQ; ranges come from training data only."""

    examples: int = 320
    """Training examples used to choose the ranges."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What one step of the equivalence ladder must keep, overall and on each slice."""

    min_agreement: float
    """Share of examples with the same decision as the step before."""

    min_snr_db: float
    """Signal-to-noise ratio of the outputs, in decibels."""

    max_accuracy_drop: float
    """Accuracy points (0 to 1) lost against the step before."""

    min_slice_agreement: float
    max_slice_accuracy_drop: float


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Tolerances of the ladder torch → ONNX → int8 ONNX."""

    onnx: Rung
    int8: Rung

    min_slice_support: int = 30
    """Examples a slice needs before it is judged; with fewer it is inconclusive and said so."""


@dataclass(frozen=True, kw_only=True)
class AtLeast:
    """The metric's lower confidence bound must reach the value."""

    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class NoWorse:
    """Non-inferiority: the challenger loses less than ``margin`` to the champion."""

    metric: str
    margin: float
    slices: bool = False
    """Ask it of every slice, each at an equal part of the error level."""


Rule = AtLeast | NoWorse


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a version reaches users: steps, patience, and what each step must show."""

    canary_percents: tuple[int, ...]
    """Share of users at each step, rising, ending with 100."""

    soak: timedelta
    """Least time at a step."""

    deadline: timedelta
    """Longest time at a step without a pass."""

    time_scale: float = 1.0
    """Multiplies soak and deadline: the same policy in days or, for a demonstration, seconds."""

    min_requests: int = 50
    """Least requests a step's arms must each have answered before it can pass."""

    alpha: float = 0.01
    """Chance that a check that looks all the time is wrong, at each step and check."""

    max_error_share: float = 0.05
    """Share of requests that may fail."""

    max_slow_share: float = 0.05
    """Share of requests that may be slower than ``slow_ratio`` times the champion's p99."""

    slow_ratio: float = 2.0

    slow_floor_ms: float = 20.0
    """A request faster than this is never slow, however fast the champion is."""

    max_disagreement_share: float = 0.08
    """Share of mirrored requests that may be decided otherwise than by the champion."""

    max_wrong_share: float = 0.15
    """Share of labelled answers that may be wrong."""

    evidence_timeout: timedelta = timedelta(hours=1)
    """No new evidence for this long (scaled) returns all users to the champion."""

    def __post_init__(self) -> None:
        percents = self.canary_percents
        if not percents or list(percents) != sorted(set(percents)) or percents[-1] != 100:
            raise ValueError(
                f"Rollout.canary_percents is {percents}; it must rise and end with 100."
            )
        _positive(
            "Rollout",
            first_percent=percents[0],
            time_scale=self.time_scale,
            slow_ratio=self.slow_ratio,
            min_requests=self.min_requests,
        )
        _share(
            "Rollout",
            alpha=self.alpha,
            max_error_share=self.max_error_share,
            max_slow_share=self.max_slow_share,
            max_disagreement_share=self.max_disagreement_share,
            max_wrong_share=self.max_wrong_share,
        )
        if self.deadline <= self.soak:
            raise ValueError(
                f"Rollout.deadline {self.deadline} is not after the soak {self.soak}; raise it."
            )


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


@dataclass(frozen=True, kw_only=True)
class Workload(Dataset):
    """One model in production with its data, policy and service."""

    classes: int
    training: Training
    export: Export
    quantize: Quantize
    equivalence: Equivalence
    gate: tuple[Rule, ...]
    rollout: Rollout
    serve: str = "int8"
    """Which graph serves: ``onnx`` or ``int8``. The gate scores this one."""

    def __post_init__(self) -> None:
        if self.serve not in ("onnx", "int8"):
            raise ValueError(f"Workload.serve is {self.serve!r}; it must be 'onnx' or 'int8'.")
        if not self.gate:
            raise ValueError(f"workload {self.name!r} declares no gate; add at least one rule.")


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
        UnknownWorkload: There is no ``workloads/<name>/workload.py``, or it declares no model.
    """
    declared = load_data(name)
    if not isinstance(declared, Workload):
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


def part(name: str, module: str) -> ModuleType:
    """Return one of a workload's modules: ``model``, ``transform``, ``data``."""
    return importlib.import_module(f"workloads.{name}.{module}")


def sources(stage: str, name: str) -> list[Path]:
    """Return the source files and folders that decide what a stage makes for a workload.

    The declaration itself is left out: what a stage uses of it enters its recipe as settings, so
    that a new rollout policy does not train a new model.
    """
    library = Path(__file__).resolve().parent
    shared = [library / m for m in ("workload.py", "verdict.py", "bundle.py", "stage.py")]
    below = [library / m for m in _BELOW.get(stage, ())]
    own = [p for p in (root() / "workloads" / name).glob("*.py") if p.name != "workload.py"]
    repo = definitions(name) if stage == "features" else []
    return [library / stage, *shared, *below, *sorted(own), *repo]


def definitions(name: str) -> list[Path]:
    """Return the files that tell Feast what a workload's features are."""
    repo = root() / "feature_repo"
    return [repo / "entities.py", repo / f"{name}.py", repo / "feature_store.yaml"]


_BELOW = {
    "export": ("runtimes",),
    "equivalence": ("runtimes", "stats"),
    "gate": ("runtimes", "stats"),
    "register": ("runtimes",),
}
"""What each stage uses of the packages below the stages."""


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
