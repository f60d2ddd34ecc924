"""Which image each component runs in: one per dependency group, named by the environment.

``PENSTOCK_IMAGE_DATA`` and its siblings name them, by digest, when a pipeline is compiled for a
cluster. Without it the name is that of an image built here, and its tag is a digest of all that the
image is made of: caches go by the name, so an edit of the library must change it. kfp.local runs
components as processes and warns of any image whose name lacks "python".
"""

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from kfp import dsl

VERSION = "0.1.0"
GROUPS = ("data", "train", "engine", "control", "serve")
ROOT = Path(__file__).resolve().parents[2]

SOURCES = {
    "data": ("feature_repo", "penstock", "workloads"),
    "train": ("penstock", "workloads"),
    "engine": ("penstock", "workloads"),
    "control": (
        "components", "feature_repo", "penstock", "pipelines", "requirements", "serving",
        "workloads",
    ),
    "serve": ("penstock", "serving", "workloads"),
}  # fmt: skip
"""Folders of this repository that an image holds; the Containerfile copies the same.

Who submits from a cluster names images as we do here, so ``control`` holds all that a name is of.
"""

RECIPE = (".containerignore", "Containerfile", "gpu.env", "gpu.txt", "install.py", "layers.py")
"""What of this folder decides what is in an image."""

LOCKS = {group: (group,) for group in GROUPS} | {"control": ("control", "pipelines")}


def image(group: str) -> str:
    """Return the name of a group's image."""
    return os.environ.get(f"PENSTOCK_IMAGE_{group.upper()}") or local(group)


def local(target: str, *, root: Path = ROOT) -> str:
    """Return the name that an image gets when it is built from the sources at ``root``."""
    group = target.removesuffix("-gpu")
    return f"penstock-python-{target}:{VERSION}-{digest(group, root=root)[:12]}"


def digest(group: str, *, root: Path = ROOT) -> str:
    """Return a hash of the sources, the locks and the recipe that an image is made of."""
    files = {root / "requirements" / f"{lock}.txt" for lock in LOCKS[group]}
    files |= {root / "components" / "images" / name for name in RECIPE}
    files |= {file for folder in SOURCES[group] for file in _files(root / folder)}
    h = hashlib.sha256()
    for path in sorted(files):
        h.update(f"{path.relative_to(root).as_posix()}\0".encode())
        h.update(hashlib.sha256(path.read_bytes()).digest())
    return h.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    return (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def component(group: str):
    """Return the decorator of a component in a group's image; nothing is installed at run time."""
    return functools.partial(
        dsl.component,
        base_image=image(group),
        packages_to_install=[],
        install_kfp_package=False,
    )


DATA, TRAIN, ENGINE, CONTROL = (component(g) for g in ("data", "train", "engine", "control"))
