"""Backend: one way to make an engine of the int8 graph, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol


class State(StrEnum):
    """How far a backend got. Only an engine that ran has outputs to judge."""

    RUN = "run"
    BUILT = "built"  # not run, because …
    NOT_BUILT = "not built"  # because …


@dataclass(frozen=True, kw_only=True)
class Task:
    """One engine to make."""

    backend: str
    onnx: Path
    golden: Path
    """``golden.npz``; its ``inputs`` [n, ...] are run where the engine can run."""

    folder: Path
    """Takes ``<backend>.npy`` (outputs [n, k]), and of TensorRT ``.plan``, ``.plan.json`` (its
    manifest), ``.log`` and ``.timing`` (its timing cache)."""

    batches: tuple[int, int, int]
    """Smallest, usual and largest batch size."""

    version_compatible: bool
    hardware_compatibility: str
    timing_cache: Path | None = None
    """Kept from build to build where there is a store; what it knows is not timed again."""

    def file(self, ending: str) -> Path:
        """Return the path of one of the files it makes."""
        return self.folder / f"{self.backend}.{ending}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; :meth:`from_dict` reads them back."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Task:
        """Read what :meth:`to_dict` wrote."""
        made = dict(document)
        for name in ("onnx", "golden", "folder", "timing_cache"):
            made[name] = None if made[name] is None else Path(made[name])
        made["batches"] = tuple(made["batches"])
        return cls(**made)


@dataclass(frozen=True, kw_only=True)
class Built:
    """What came of a task; a value whatever happened, never an exception."""

    name: str
    state: State
    reason: str | None = None
    """Why it was not run, or not built; None when it ran."""

    manifest: dict[str, Any] | None = None
    """Of the plan, see :class:`penstock.runtimes.plan.PlanManifest`."""

    int8_layers: dict[str, Any] | None = None
    """Which layers were compiled to int8, see :class:`penstock.engine.coverage.Coverage`."""

    def __post_init__(self) -> None:
        if (self.state is State.RUN) != (self.reason is None):
            raise ValueError(f"{self.name} is {self.state} for the reason {self.reason!r}.")

    @property
    def said(self) -> str:
        """The engine in a few words."""
        if self.state is State.RUN:
            return f"{self.name} run"
        link = "built, not run, because" if self.state is State.BUILT else "not built, because"
        return f"{self.name} {link} {self.reason}"

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Built:
        """Read what ``asdict`` wrote."""
        made = dict(document)
        made["state"] = State(made["state"])
        return cls(**made)


class Backend(Protocol):
    """Makes engines. Raising, or taking the process down, becomes a value in :mod:`isolated`."""

    def build(self, task: Task) -> Built:
        """Make the engine, run it where that is possible, and write the task's files."""
        ...


ONNXRUNTIME = {
    "onnxruntime": "cpu",
    "onnxruntime-cuda": "cuda",
    "onnxruntime-tensorrt": "tensorrt",
}
"""Backends of ONNX Runtime, and the provider of each."""

TENSORRT = ("tensorrt-rtx", "tensorrt")

KNOWN = (*ONNXRUNTIME, *TENSORRT)


def backend(name: str) -> Backend:
    """Return the backend of a name; imports no library yet.

    Raises:
        ValueError: There is none of that name.
    """
    # Each imports what the other does without.
    if name in ONNXRUNTIME:
        from penstock.engine.onnxruntime import OnnxRuntime  # noqa: PLC0415

        return OnnxRuntime(ONNXRUNTIME[name])
    if name in TENSORRT:
        from penstock.engine.tensorrt import TensorRT  # noqa: PLC0415

        return TensorRT()
    raise ValueError(f"no engine backend {name!r}; there is {', '.join(KNOWN)}.")
