"""Bundle: files, a manifest with their hashes, and the fingerprint of what made them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import site
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

MANIFEST = "manifest.json"
MEASURED = "measured"
"""Folder inside a bundle for what no two runs measure alike: seconds, memory, the machine."""

SIGNATURE = "package.sig"
"""The one file that may lie in a bundle besides those its manifest lists: the signature of them
all, the manifest included, which is made last. No digest depends on it."""

FORMAT = 1
STORE_VARIABLE = "PENSTOCK_STORE"
"""Environment variable: a folder where finished bundles are kept for reuse."""


class BundleError(ValueError):
    """A bundle is missing, half-written, altered, or of another kind than asked for."""


@dataclass(frozen=True)
class Summary:
    """What a stage says of its own result: one outcome, one line."""

    outcome: str
    line: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a bundle contains. Equal recipes give equal fingerprints."""

    kind: str
    """The stage's product: ``snapshot``, ``model``, ``verdict``."""

    workload: str

    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name of each input and its fingerprint or content hash."""

    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Plain values only: text, numbers, truth values, None, lists and mappings of them."""

    code: str = ""
    """Revision of the code that makes it, see :func:`code_revision`."""

    environment: str = ""
    """Identity of the installed libraries, see :func:`environment_revision`."""

    @property
    def fingerprint(self) -> str:
        """The name of what this recipe makes."""
        made_by = {"kind": self.kind, "code": self.code, "environment": self.environment}
        return fingerprint(
            self.workload, self.inputs, {"settings": self.settings, "made_by": made_by}
        )


@dataclass(frozen=True)
class Bundle:
    """A verified folder of files. Obtain one with :func:`read` or :func:`produce`."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """The name of the recipe that made it."""
        return self.manifest["fingerprint"]

    @property
    def digest(self) -> str:
        """Hash of the contents alone: two runs that made the same bytes agree in it."""
        return digest_of(self.manifest["files"])

    @property
    def summary(self) -> Summary:
        """The line its stage left."""
        return Summary(**self.manifest["summary"])

    def file(self, name: str) -> Path:
        """Return the path of one of its files.

        Raises:
            BundleError: There is no such file in the manifest.
        """
        if name not in self.manifest["files"]:
            held = ", ".join(sorted(self.manifest["files"])) or "nothing"
            raise BundleError(f"{self.path} has no file {name!r}; it holds {held}.")
        return self.path / name

    def json(self, name: str) -> Any:
        """Return one of its JSON files, parsed."""
        return json.loads(self.file(name).read_text(encoding="utf-8"))


def fingerprint(workload: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """Name a thing by what made it.

    >>> fingerprint("digits", {"features": "sha256:77aa"}, {"seed": 7})
    'digits-5f1d36f38482'
    >>> fingerprint("digits", {}, {"loss": print})
    Traceback (most recent call last):
    TypeError: settings hold <built-in function print>, which has no stable form; use plain values.
    """
    text = json.dumps(
        {"inputs": stable_form(inputs), "settings": stable_form(settings)},
        sort_keys=True,
        separators=(",", ":"),
    )
    return f"{workload}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def stable_form(value: object) -> object:
    """Return the value as JSON types that read back the same in any process.

    Raises:
        TypeError: The value, or something in it, has no such form (a function, a set, NaN).
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        if all(isinstance(k, str) for k, _ in items):
            return {k: stable_form(v) for k, v in items}
    if isinstance(value, list | tuple):
        return [stable_form(v) for v in cast("Sequence[object]", value)]
    raise TypeError(f"settings hold {value!r}, which has no stable form; use plain values.")


def hash_file(path: Path) -> str:
    """Return ``sha256:`` and the hash of a file's bytes."""
    with path.open("rb") as f:
        return "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()


def digest_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one hash for a manifest's list of files, those that were measured left out."""
    made = {n: e["sha256"] for n, e in files.items() if not n.startswith(f"{MEASURED}/")}
    text = json.dumps(made, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def files_in(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted.

    Raises:
        BundleError: There is a link: what it points to is not the bundle's to vouch for.
    """
    paths = sorted(folder.rglob("*"))
    if links := [str(p.relative_to(folder)) for p in paths if p.is_symlink()]:
        raise BundleError(f"{folder} holds links, {links}; a bundle holds files, copy them.")
    return [p for p in paths if p.is_file()]


def sealed(manifest: Mapping[str, Any]) -> str:
    """Return a manifest's text with the hash of everything else it says as its ``seal``."""
    said = {name: value for name, value in manifest.items() if name != "seal"}
    text = json.dumps(said, indent=1, sort_keys=True)
    seal = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**said, "seal": seal}, indent=1, sort_keys=True)


def code_revision(*roots: Path) -> str:
    """Return a hash of all Python and YAML sources below the given files and folders."""
    h = hashlib.sha256()
    for root in roots:
        paths = (
            [root] if root.is_file() else sorted(root.rglob("*.py")) + sorted(root.rglob("*.yaml"))
        )
        for path in paths:
            h.update(f"{root.name}/{path.relative_to(root) if root.is_dir() else ''}\0".encode())
            h.update(path.read_bytes() + b"\0")
    return "sha256:" + h.hexdigest()


def environment_revision() -> str:
    """Return a hash of the Python version and every installed library's name and version."""
    # Not of sys.path: setuptools puts what it carries there when something imports it.
    names = {p.name for entry in site.getsitepackages() for p in Path(entry).glob("*.dist-info")}
    text = "\n".join([sys.version.split()[0], *sorted(names)])
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def read(path: Path, *, kind: str | None = None) -> Bundle:
    """Return the bundle at ``path`` after checking every byte of it.

    Raises:
        BundleError: Missing, half-written, altered, or not of ``kind``.
    """
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
    except FileNotFoundError as e:
        raise BundleError(
            f"{path} is not a bundle: it has no {MANIFEST}; run the stage that makes it again."
        ) from e
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise BundleError(f"{path / MANIFEST} cannot be read: {e}; make the bundle again.") from e
    try:
        if manifest["format"] != FORMAT:
            raise BundleError(f"{path} has format {manifest['format']}, this reads {FORMAT}.")
        if text != sealed(manifest):
            raise BundleError(f"{path / MANIFEST} was altered; make the bundle again.")
        if kind is not None and manifest["kind"] != kind:
            raise BundleError(f"{path} is a {manifest['kind']} bundle; a {kind} was wanted.")
        _verify_files(path, manifest["files"])
    except (KeyError, TypeError, AttributeError) as e:
        raise BundleError(f"{path / MANIFEST} is not a manifest: {e!r}.") from e
    return Bundle(path, manifest)


def _verify_files(path: Path, listed: Mapping[str, Any]) -> None:
    present = {p.relative_to(path).as_posix() for p in files_in(path)}
    if extra := present - {MANIFEST, SIGNATURE} - listed.keys():
        raise BundleError(f"{path} holds files its manifest does not list: {sorted(extra)}.")
    for name, entry in listed.items():
        if name not in present:
            raise BundleError(f"{path} has lost {name!r}; make the bundle again.")
        if (found := hash_file(path / name)) != entry["sha256"]:
            raise BundleError(
                f"{path / name} was altered: its hash is {found[:19]}…, the manifest says "
                f"{entry['sha256'][:19]}…; make the bundle again."
            )


def write(path: Path, recipe: Recipe, *, make: Callable[[Path], Summary], now: datetime) -> Bundle:
    """Make a bundle at ``path``, whole or not at all.

    Args:
        make: Fills the folder it is given and returns the stage's line.
        now: Written as created-at; not part of the fingerprint.

    The files are made in a sibling folder, which is renamed once the manifest is on disk; a crash
    leaves only a ``.part-…`` folder that nothing reads.
    """
    if now.tzinfo is None:
        raise ValueError(f"created-at {now} has no time zone; pass an aware datetime.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}-{uuid.uuid4().hex[:8]}")
    part.mkdir()
    try:
        summary = make(part)
        manifest = {
            "format": FORMAT,
            "kind": recipe.kind,
            "workload": recipe.workload,
            "fingerprint": recipe.fingerprint,
            "inputs": dict(recipe.inputs),
            "settings": stable_form(recipe.settings),
            "code": recipe.code,
            "environment": recipe.environment,
            "created_at": now.isoformat(),
            "summary": {"outcome": summary.outcome, "line": summary.line},
            "files": {
                p.relative_to(part).as_posix(): {"sha256": hash_file(p), "bytes": p.stat().st_size}
                for p in files_in(part)
            },
        }
        text = sealed(manifest)
        write_text(part / MANIFEST, text)
        replace_folder(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Bundle(path, json.loads(text))


def produce(
    out: Path,
    recipe: Recipe,
    *,
    make: Callable[[Path], Summary],
    now: datetime,
    store: Path | None = None,
) -> tuple[Bundle, bool]:
    """Put the recipe's bundle at ``out``; reuse it from the store when it is there and whole.

    Returns:
        The bundle, and whether it was reused.
    """
    if store is None:
        bundle = write(out, recipe, make=make, now=now)
        return bundle, False
    kept = store / recipe.kind / recipe.fingerprint
    reused = True
    try:
        if read(kept, kind=recipe.kind).fingerprint != recipe.fingerprint:
            raise BundleError(f"{kept} holds what another recipe made.")
    except BundleError:
        write(kept, recipe, make=make, now=now)
        reused = False
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".part-{out.name}-{uuid.uuid4().hex[:8]}")
    try:
        shutil.copytree(kept, part)
        replace_folder(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return read(out, kind=recipe.kind), reused


def store_from_environment() -> Path | None:
    """Return the store that ``PENSTOCK_STORE`` names, or None: nothing is reused then."""
    value = os.environ.get(STORE_VARIABLE)
    return Path(value) if value else None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: temporary name, flush to disk, rename."""
    part = path.with_name(f".part-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with part.open("w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, document: object) -> None:
    """Write a JSON file whole or not at all; refuses NaN, which no reader would take."""
    write_text(path, json.dumps(document, indent=1, sort_keys=True, allow_nan=False))


def replace_folder(part: Path, path: Path) -> None:
    """Rename ``part`` to ``path``, removing what was there."""
    if path.exists():
        old = path.with_name(f".part-old-{path.name}-{uuid.uuid4().hex[:8]}")
        path.rename(old)
        part.rename(path)
        shutil.rmtree(old)
    else:
        part.rename(path)
