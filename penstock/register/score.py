"""ML Test Score: how ready a workload is, from evidence that was read and verified."""

from __future__ import annotations

import ast
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
from penstock.register.claims import Piece, Pieces, pins, registered
from penstock.register.featurecontract import Standings, digest_of, signature
from penstock.register.rubric import ITEMS, Item, Section
from penstock.workload import Dataset, Workload, settings_of

WHOLE, HALF, NONE = 1.0, 0.5, 0.0

LOCK = "requirements/all.txt"

TESTS = (
    "tests/pipelines/test_local.py",
    "tests/rollout/test_controller.py",
    "tests/workloads/test_how_to.py",
)
"""Tests of what is the same for every workload."""

OWN = {"feature tests": ("data", "transform"), "model tests": ("model",)}
"""Tests of a workload's own code, by what they import of it."""


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
    """Mark one test. Without an entry that names the package, nobody vouches for a whole mark."""
    vouched = registered(pieces) is not None
    if item.whole is not None and (where := item.whole(pieces)) is not None:
        if vouched:
            return Marked(item=item, mark=WHOLE, evidence=where)
        return Marked(item=item, mark=HALF, evidence=f"{where} (not registered)")
    if item.half is not None and (where := item.half(pieces)) is not None:
        return Marked(item=item, mark=HALF, evidence=where)
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
    if version is not None and version_of(package, entries, among=version) is None:
        raise BundleError(
            f"{path} is whole, but not the package that the ledger has of version {version}."
        )
    return package


def gather(
    declared: Dataset,
    package: Bundle | None,
    entries: Sequence[Entry],
    *,
    standing: Standings,
    root: Path,
) -> dict[str, Piece]:
    """Return every piece of evidence there is of a workload.

    Args:
        package: Verified; None when no version is registered.
        entries: Of the workload, from a ledger that was verified.
        standing: What signatures are worth in that ledger.
        root: Folder of the checkout.
    """
    name = declared.name
    pieces = {"declaration": Piece(settings_of(declared), f"workloads/{name}/workload.py")}
    pieces |= {f"entry:{e.sequence}": Piece(e, f"ledger entry {e.sequence}") for e in entries}
    pieces |= _in_tree(root, name)
    if package is None:
        return pieces
    pieces |= _in_package(package)
    if (entry := _entry_of(package, entries)) is not None:
        pieces["registered"] = Piece(entry.version, f"ledger entry {entry.sequence}")
    contract = pieces.get("package:contract.json")
    if contract is not None and isinstance(declared, Workload):
        pieces |= _signed(contract.document, declared, entries, standing)
    return pieces | _in_commit(root, name, _revision(pieces))


def version_of(
    package: Bundle, entries: Sequence[Entry], *, among: int | None = None
) -> int | None:
    """Return the version that a package was registered as; None for one that was not.

    Args:
        among: The only version that it may be; None for any.
    """
    entry = _entry_of(package, entries, among=among)
    return None if entry is None else entry.version


def rehearsal_of(package: Bundle) -> str | None:
    """Return the fault that a package was given on purpose, or None."""
    fault = _lineage(_in_package(package)).get("rehearsal")
    return None if fault is None else str(fault)


def _entry_of(
    package: Bundle, entries: Sequence[Entry], *, among: int | None = None
) -> Entry | None:
    """Return the entry that registered these very bytes."""
    for entry in entries:
        asked = entry.version is not None and among in (None, entry.version)
        if asked and entry.kind == REGISTERED and entry.body.get("digest") == package.digest:
            return entry
    return None


def _in_package(package: Bundle) -> dict[str, Piece]:
    """Return the package's JSON files; one that holds none is no evidence."""
    found: dict[str, Piece] = {}
    for file in package.manifest["files"]:
        if not file.endswith(".json"):
            continue
        try:
            document = package.json(file)
        except (ValueError, RecursionError):
            continue
        found[f"package:{file}"] = Piece(document, f"{package.fingerprint}/{file}")
    return found


def _signed(
    contract: Any, declared: Workload, entries: Sequence[Entry], standing: Standings
) -> dict[str, Piece]:
    """Return the entry that signs this very contract, by somebody who may."""
    try:
        digest = digest_of(contract)
    except TypeError:
        return {}
    entry = signature(entries, digest, declared=declared, standing=standing)
    return {} if entry is None else {"signed": Piece(digest, f"ledger entry {entry.sequence}")}


def _in_tree(root: Path, workload: str) -> dict[str, Piece]:
    found: dict[str, Piece] = {}
    if (root / LOCK).is_file():
        raw = (root / LOCK).read_bytes()
        lock = {"sha256": hashlib.sha256(raw).hexdigest(), "pins": pins(raw.decode())}
        found["tree:lock"] = Piece(lock, LOCK)
    for name, (path, imports) in _tests(root, workload).items():
        if (root / path).is_file():
            held = cases_in((root / path).read_bytes(), imports)
            found[f"tree:{name}"] = Piece(held, path)
    return found


def _tests(root: Path, workload: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Return path of each test, and the modules of which it must import one; none for any."""
    wanted = {path: (path, frozenset[str]()) for path in TESTS}
    for name, parts in OWN.items():
        modules = frozenset(f"workloads.{workload}.{part}" for part in parts)
        for path in sorted((root / "tests").rglob("test_*.py")):
            source = path.read_bytes()
            if f"workloads.{workload}".encode() in source and cases_in(source, modules):
                wanted[name] = (path.relative_to(root).as_posix(), modules)
                break
    return wanted


def cases_in(source: bytes, imports: frozenset[str]) -> list[str]:
    r"""Return the names of a module's test functions that assert or call something.

    Args:
        imports: Modules of which it must import one, in code and not in a comment; none for any.

    >>> cases_in(b"def test_a(): assert f()\ndef test_b(): pass", frozenset())
    ['test_a']
    >>> cases_in(b"# import a.b\ndef test_a(): assert f()", frozenset({"a.b"}))
    []
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    if imports and not imports & _imported(tree):
        return []
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and _does(node)
    ]


def _does(function: ast.FunctionDef) -> bool:
    inside = (node for statement in function.body for node in ast.walk(statement))
    return any(isinstance(node, ast.Assert | ast.Call) for node in inside)


def _imported(tree: ast.Module) -> set[str]:
    """Return the dotted names that a module imports, anywhere in it."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def _in_commit(root: Path, workload: str, revision: str | None) -> dict[str, Piece]:
    """Return what the commit holds which the version was made from: tests, and its sources."""
    if revision is None or not is_commit(revision):
        return {}
    found: dict[str, Piece] = {}
    for name, (path, imports) in _tests(root, workload).items():
        if (source := _git(root, "cat-file", "blob", f"{revision}:{path}")) is not None:
            held = cases_in(source, imports)
            found[f"commit:{name}"] = Piece(held, f"{path} of commit {revision[:12]}")
    own = f"workloads/{workload}"
    listed = _git(root, "ls-tree", "-r", "-z", "--name-only", revision, "--", own) or b""
    sources = [path for path in listed.decode().split("\0") if path.endswith((".py", ".yaml"))]
    blobs = {path: _git(root, "cat-file", "blob", f"{revision}:{path}") for path in sources}
    hashes = {p: f"sha256:{hashlib.sha256(b or b'').hexdigest()}" for p, b in blobs.items()}
    if hashes:
        found["commit:sources"] = Piece(hashes, f"{own} of commit {revision[:12]}")
    return found


def _git(root: Path, *words: str) -> bytes | None:
    """Return what git says, or None where it has no such thing or is not there."""
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _lineage(pieces: Pieces) -> Mapping[str, Any]:
    """Return a package's lineage; an empty one where it has none, or no object."""
    piece = pieces.get("package:lineage.json")
    held = {} if piece is None else piece.document
    return held if isinstance(held, Mapping) else {}


def _revision(pieces: Pieces) -> str | None:
    """Return the commit that a package says it was made from, or None."""
    code = _lineage(pieces).get("code")
    revision = code.get("git") if isinstance(code, Mapping) else None
    return revision if isinstance(revision, str) else None


def is_commit(revision: str | None) -> bool:
    """Return whether a revision is a commit and nothing besides; ``+changes`` is in no repository.

    >>> is_commit("d88e624"), is_commit("d88e624+changes"), is_commit(None)
    (True, False, False)
    """
    return re.fullmatch(r"[0-9a-f]{7,64}", revision or "") is not None
