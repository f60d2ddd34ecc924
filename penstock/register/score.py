"""ML Test Score: how ready a workload is, from evidence that was read and verified."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.bundle import Bundle, BundleError, read
from penstock.ledger import REGISTERED, Entry, champion
from penstock.ledger.lifecycle import Stage, stage_of
from penstock.register.claims import CI, Piece, Pieces
from penstock.register.rubric import ITEMS, Item, Section
from penstock.workload import Dataset, settings_of

WHOLE, HALF, NONE = 1.0, 0.5, 0.0

REPOSITORY = (
    CI,
    "docs/how-to/add-a-workload.md",
    "requirements/all.txt",
    "tests/equivalence/test_layers.py",
    "tests/features/test_features.py",
    "tests/pipelines/test_local.py",
    "tests/rollout/test_controller.py",
    "tests/workloads/test_how_to.py",
    "tests/workloads/test_networks.py",
)
"""Files that tests about the code base rest on."""


@dataclass(frozen=True, kw_only=True)
class Marked:
    """One test of the rubric with its mark."""

    item: Item
    mark: float
    evidence: str | None
    """Where it is; None where there is none."""


@dataclass(frozen=True)
class Score:
    """All tests, marked. It is judged by its weakest section, not by the sum."""

    marked: tuple[Marked, ...]

    def of(self, section: Section) -> float:
        """Return the points of a section."""
        return sum(m.mark for m in self.marked if m.item.section is section)

    @property
    def minimum(self) -> float:
        """The points of the weakest section."""
        return min(self.of(section) for section in Section)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, sections in the rubric's order."""
        return {
            "minimum": self.minimum,
            "sections": [
                {
                    "name": str(section),
                    "points": self.of(section),
                    "tests": [_told(m) for m in self.marked if m.item.section is section],
                }
                for section in Section
            ],
        }


def score(pieces: Pieces) -> Score:
    """Mark every test of the rubric by the evidence there is. Less evidence never marks higher."""
    return Score(tuple(_mark(item, pieces) for item in ITEMS))


def _mark(item: Item, pieces: Pieces) -> Marked:
    for mark, claim in ((WHOLE, item.whole), (HALF, item.half)):
        if claim is not None and (where := claim(pieces)) is not None:
            return Marked(item=item, mark=mark, evidence=where)
    return Marked(item=item, mark=NONE, evidence=None)


def _told(marked: Marked) -> dict[str, Any]:
    return {
        "asks": marked.item.asks,
        "mark": marked.mark,
        "evidence": marked.evidence,
        "earn": None if marked.mark == WHOLE else marked.item.earn,
    }


def choose(entries: Sequence[Entry]) -> int | None:
    """Return the version to score: the champion, else the newest that is not archived."""
    serving = champion(entries)
    if serving is not None:
        return serving
    made = [e.version for e in entries if e.kind == REGISTERED and e.version is not None]
    live = [v for v in made if stage_of(entries, v) is not Stage.ARCHIVED]
    return max(live, default=None)


def opened(path: Path, entries: Sequence[Entry], *, version: int | None) -> Bundle:
    """Return a package after checking every byte of it, and its digest against the ledger's.

    Args:
        version: Whose package it should be; None for one that need not be registered.

    Raises:
        BundleError: It is not whole, or not the package that was registered.
    """
    package = read(path, kind="package")
    if version is not None and _entry_of(package, entries) is None:
        raise BundleError(
            f"{path} is whole, but not the package that the ledger has of version {version}."
        )
    return package


def gather(
    declared: Dataset, package: Bundle | None, entries: Sequence[Entry], *, root: Path
) -> dict[str, Piece]:
    """Return every piece of evidence there is of a workload.

    Args:
        package: Verified; None when no version is registered.
        entries: Of the workload, from a ledger that was verified.
        root: Folder of the checkout.
    """
    name = declared.name
    pieces = {"declaration": Piece(settings_of(declared), f"workloads/{name}/workload.py")}
    pieces |= {f"entry:{e.sequence}": Piece(e, f"ledger entry {e.sequence}") for e in entries}
    pieces |= dict(_in_tree(root, name))
    if package is None:
        return pieces
    for file in package.manifest["files"]:
        if file.endswith(".json"):
            where = f"{package.fingerprint}/{file}"
            pieces[f"package:{file}"] = Piece(package.json(file), where)
    if (entry := _entry_of(package, entries)) is not None:
        pieces["registered"] = Piece(entry.version, f"ledger entry {entry.sequence}")
    return pieces | _in_commit(root, name, package)


def version_of(package: Bundle, entries: Sequence[Entry]) -> int | None:
    """Return the version that a package was registered as; None for one that was not."""
    entry = _entry_of(package, entries)
    return None if entry is None else entry.version


def rehearsal_of(package: Bundle) -> str | None:
    """Return the fault that a package was given on purpose, or None."""
    if "lineage.json" not in package.manifest["files"]:
        return None
    return package.json("lineage.json").get("rehearsal")


def _entry_of(package: Bundle, entries: Sequence[Entry]) -> Entry | None:
    """Return the entry that registered these very bytes."""
    for entry in entries:
        if entry.kind == REGISTERED and entry.body.get("digest") == package.digest:
            return entry
    return None


def _in_tree(root: Path, workload: str) -> Mapping[str, Piece]:
    paths = {path: path for path in REPOSITORY}
    if (own := own_tests(root, workload)) is not None:
        paths["own tests"] = own
    return {
        f"tree:{name}": Piece(hashlib.sha256((root / path).read_bytes()).hexdigest(), path)
        for name, path in paths.items()
        if (root / path).is_file()
    }


def own_tests(root: Path, workload: str) -> str | None:
    """Return the first test of features or workloads that imports this one's, or None."""
    for folder in ("workloads", "features"):
        for path in sorted((root / "tests" / folder).glob("test_*.py")):
            if f"from workloads.{workload}" in path.read_text(encoding="utf-8"):
                return path.relative_to(root).as_posix()
    return None


def _in_commit(root: Path, workload: str, package: Bundle) -> dict[str, Piece]:
    """Return the files that the commit holds which the version was made from."""
    revision = _revision(package)
    if not is_commit(revision):
        return {}
    listing = ["git", "ls-tree", "-r", "--name-only", revision]
    done = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=False)
    held = set(done.stdout.splitlines()) if done.returncode == 0 else set[str]()
    paths = {path: path for path in REPOSITORY} | {"own tests": own_tests(root, workload) or ""}
    paths["model"] = f"workloads/{workload}/model.py"
    return {
        f"commit:{name}": Piece(revision, f"{path} of commit {revision[:12]}")
        for name, path in paths.items()
        if path in held
    }


def _revision(package: Bundle) -> str:
    """Return the commit that a package says it was made from, or an empty text."""
    if "lineage.json" not in package.manifest["files"]:
        return ""
    code: Mapping[str, Any] = package.json("lineage.json").get("code") or {}
    return str(code.get("git") or "")


def is_commit(revision: str | None) -> bool:
    """Return whether a revision is a commit and nothing besides; ``+changes`` is in no repository.

    >>> is_commit("d88e624"), is_commit("d88e624+changes"), is_commit(None)
    (True, False, False)
    """
    return re.fullmatch(r"[0-9a-f]{7,64}", revision or "") is not None
