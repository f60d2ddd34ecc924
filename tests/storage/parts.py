"""Bundles to publish, and hands that reach into a store past the library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock.bundle import MANIFEST, SIGNATURE, Bundle, Recipe, Summary, sealed, write
from penstock.storage.store import Store
from tests.bundles import NOW

TREE = {
    "model.onnx": b"graph" * 1000,
    "deep/er/weights": bytes(range(256)) * 40,
    "deep/empty": b"",
    "with space é.json": b"{}",
    "measured/latency.json": b"[1]",
}
"""Files as bundles have them: nested, empty, with names of any script."""


def made(path: Path, files: Mapping[str, bytes] = TREE, *, signed: bool = False) -> Bundle:
    """Write a package of these files."""

    def fill(folder: Path) -> Summary:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return Summary("pass", "made for a test")

    bundle = write(path, Recipe(kind="package", workload="digits"), make=fill, now=NOW)
    if signed:
        (path / SIGNATURE).write_bytes(b"signed")
    return bundle


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def lay(store: Store, name: str, data: bytes) -> None:
    """Put bytes under a name as somebody else's program would."""
    if store.local:
        (Path(store.root) / name).parent.mkdir(parents=True, exist_ok=True)
    with store.fs.open(f"{store.root}/{name}", "wb") as out:
        out.write(data)


def found(store: Store, name: str) -> bytes:
    """Return the bytes under a name."""
    with store.fs.open(f"{store.root}/{name}", "rb") as source:
        return source.read()


def lose(store: Store, name: str) -> None:
    """Remove a file."""
    store.fs.rm_file(f"{store.root}/{name}")


def folder_of(root: Store, address: str) -> Store:
    """Return the folder that was published, in the same store."""
    return root.below(*address.split("/")[-2:])


def forged(store: Store, bundle: Bundle, edit: Callable[[dict[str, Any]], object]) -> None:
    """Put a manifest that was edited and sealed again."""
    manifest = {**bundle.manifest, "files": dict(bundle.manifest["files"])}
    edit(manifest)
    lay(store, MANIFEST, sealed(manifest).encode())
