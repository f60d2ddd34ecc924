"""The manifest of a TensorRT plan: what made it, and whether this machine may load it.

A plan is native code for one library version and a few kinds of GPU. Building is not repeatable
byte for byte, even on one machine, so a plan is named by what made it (see :mod:`penstock.bundle`)
and its hash only says that it is the file that was built then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from penstock.bundle import write_json

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Smallest, usual and largest shape of one input."""


class PlanMismatch(ValueError):
    """A plan must not be loaded here. The text says what to rebuild, and where."""


@dataclass(frozen=True, kw_only=True)
class Here:
    """The machine that is to load a plan, looked up by :func:`penstock.runtimes.tensorrt.here`."""

    platform: str
    """``linux-x86_64``."""

    version: str | None
    """Of the library that the plan needs; None where it is not installed."""

    gpu: str | None
    compute_capability: str | None
    driver: str | None
    cuda: str | None
    """Newest CUDA version that the driver runs."""


@dataclass(frozen=True, kw_only=True)
class PlanManifest:
    """What made a plan, and what it needs."""

    backend: str
    """``tensorrt`` or ``tensorrt-rtx``."""

    version: str
    """Of that library, in full."""

    platform: str

    cuda: str | None
    """What the library was made for, at least the major version."""

    driver: str | None
    """Of the machine it was built on; None where that had no GPU, as for the next two."""

    gpu: str | None
    compute_capability: str | None

    runs_on: tuple[str, ...]
    """Compute capabilities it was built for; ``8.0+`` means 8.0 and later."""

    plan: str
    """``sha256:`` and the hash of the plan's bytes."""

    onnx: str
    """The same of the graph it was built from."""

    timing_cache: str | None
    """The same of the timing cache after the build; None where the library keeps none."""

    profiles: Mapping[str, Shapes]
    """The optimization profile: shapes of each input."""

    precision: str
    version_compatible: bool
    """Whether newer versions of the library may load it."""

    hardware_compatibility: str
    """``none``, ``ampere_plus`` or ``same_compute_capability``."""

    peak_memory_mb: float
    """Of the building process."""

    build_s: float

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> PlanManifest:
        """Read what ``asdict`` wrote.

        Raises:
            ValueError: A field is missing, unknown or of the wrong kind.
        """
        names = {f.name for f in fields(cls)}
        if found := names ^ document.keys():
            raise ValueError(f"not a plan manifest: {sorted(found)} missing or unknown.")
        made = dict(document)
        try:
            made["profiles"] = {n: _shapes(shapes) for n, shapes in document["profiles"].items()}
            made["runs_on"] = tuple(str(c) for c in document["runs_on"])
        except (AttributeError, TypeError, ValueError) as e:
            raise ValueError(f"not a plan manifest: {e}.") from e
        return cls(**made)


def _shapes(document: Any) -> Shapes:
    small, usual, large = (tuple(int(size) for size in shape) for shape in document)
    return small, usual, large


def write(path: Path, manifest: PlanManifest) -> None:
    """Write a manifest as JSON."""
    write_json(path, asdict(manifest))


def read(path: Path) -> PlanManifest:
    """Return the manifest in a file.

    Raises:
        ValueError: The file holds none.
    """
    try:
        return PlanManifest.from_dict(dict(json.loads(path.read_text(encoding="utf-8"))))
    except (TypeError, ValueError) as e:
        raise ValueError(f"{path} cannot be read: {e} Run the engine stage again.") from e


def hash_bytes(data: bytes) -> str:
    """Return ``sha256:`` and the hash of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def verified(path: Path, manifest: PlanManifest, here: Here, *, onnx: str) -> bytes:
    """Return a plan's bytes once its manifest allows it here; these very bytes were checked.

    Args:
        onnx: ``sha256:`` and the hash of the graph whose answers the plan is to give.

    Raises:
        PlanMismatch: They are not those that were built, they were built from another graph, or
            this machine must not load them.
    """
    data = path.read_bytes()
    if (found := hash_bytes(data)) != manifest.plan:
        raise PlanMismatch(
            f"{path.name} was altered: its hash is {found[:19]}…, its manifest says "
            f"{manifest.plan[:19]}…; {_rebuild(manifest)}."
        )
    if onnx != manifest.onnx:
        raise PlanMismatch(
            f"{path.name} was built from another graph: its manifest says {manifest.onnx[:19]}…, "
            f"the graph it is to stand for is {onnx[:19]}…; {_rebuild(manifest, onnx)}."
        )
    if wrong := mismatches(manifest, here):
        raise PlanMismatch(" ".join(wrong))
    return data


def mismatches(manifest: PlanManifest, here: Here) -> list[str]:
    """Return why this machine must not load a plan, empty when it may; each says what to do."""
    return [*_library(manifest, here), *_device(manifest, here)]


def _rebuild(manifest: PlanManifest, onnx: str | None = None) -> str:
    """Return what to run; ``onnx`` is the hash of another graph than the manifest's."""
    return (
        f"run the engine stage with backend {manifest.backend} on the machine that is to load it, "
        f"from the int8 bundle whose model.int8.onnx is {(onnx or manifest.onnx)[:19]}…"
    )


def _library(manifest: PlanManifest, here: Here) -> Iterator[str]:
    made, again = f"the plan was built with {manifest.backend}", _rebuild(manifest)
    if here.platform != manifest.platform:
        yield f"the plan was built for {manifest.platform}, this is {here.platform}: {again}."
    if here.version is None:
        yield f"{made} {manifest.version}, which is not installed here: install that version."
    elif here.version != manifest.version and not (
        manifest.version_compatible and _numbers(here.version) > _numbers(manifest.version)
    ):
        yield (
            f"{made} {manifest.version}, this machine has {here.version}: {again}, or install "
            f"{manifest.version} here."
        )


def _device(manifest: PlanManifest, here: Here) -> Iterator[str]:
    again = _rebuild(manifest)
    if here.gpu is None or here.compute_capability is None:
        yield (
            "no NVIDIA GPU was found here: load the plan on one of compute capability "
            f"{', '.join(manifest.runs_on)}."
        )
        return
    if not any(_capable(here.compute_capability, c) for c in manifest.runs_on):
        yield (
            f"the plan was built for compute capability {', '.join(manifest.runs_on)}, this "
            f"{here.gpu} has {here.compute_capability}: {again}."
        )
    elif _bound_to_gpu(manifest) and here.gpu != manifest.gpu:
        yield f"the plan was built on and for {manifest.gpu}, this is {here.gpu}: {again}."
    if manifest.cuda and (here.cuda is None or _numbers(here.cuda)[0] < _numbers(manifest.cuda)[0]):
        yield (
            f"the plan needs a driver for CUDA {manifest.cuda}, driver {here.driver} here runs "
            f"{here.cuda}: update the driver of this machine."
        )


def _bound_to_gpu(manifest: PlanManifest) -> bool:
    """Return whether only the GPU model that timed the kernels may run it."""
    return manifest.gpu is not None and manifest.hardware_compatibility == "none"


def _capable(has: str, wanted: str) -> bool:
    least = wanted.removesuffix("+")
    return has == least or (wanted.endswith("+") and _numbers(has) >= _numbers(least))


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, at least one.

    >>> _numbers("10.16.1.dev3")
    (10, 16, 1)
    """
    found: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found) or (0,)
