"""Fetch: bring a published bundle to this machine, every byte of it checked, and keep it there.

A bundle is fetched beside its place and renamed into it whole. What was brought before an
interruption is used by the next who asks; of several at once one fetches and the others wait.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.bundle import (
    MANIFEST,
    SIGNATURE,
    Bundle,
    BundleError,
    hash_file,
    read,
    replace_folder,
)
from penstock.storage.address import address, is_uri
from penstock.storage.moving import Heard, Meter, together
from penstock.storage.names import MANIFEST_BYTES, PUBLISHED, manifest_of, name_of, sizes
from penstock.storage.publishing import SIGNATURE_BYTES
from penstock.storage.store import Store

HOME_VARIABLE = "PENSTOCK_HOME"
SPARE_BYTES = 100_000_000
"""Free disk that must be left when a bundle has arrived."""


def cache_folder() -> Path:
    """Return the folder of fetched packages: ``packages`` in the home."""
    return Path(os.environ.get(HOME_VARIABLE) or ".penstock").absolute() / "packages"


def opened(
    where: str | Path, *, kind: str, cache: Path | None = None, heard: Heard | None = None
) -> Bundle:
    """Return the bundle at a path, or a copy of the one at an object store's address.

    Args:
        cache: Folder of copies; the home's where none is given.
        heard: Is told how far a transfer is.

    Raises:
        BundleError: It is not whole, or is not of that kind.
        StoreError: The store refuses, or does not answer.
        ValueError: Credentials are in the address.
    """
    if is_uri(where):
        return fetch(str(where), cache or cache_folder(), kind=kind, heard=heard)
    return read(Path(address(where)), kind=kind)


def local(where: str | Path) -> Path:
    """Return the folder of a package on this machine; one that is in an object store is fetched.

    A folder of this machine is not looked at: whoever reads it verifies it.

    Raises:
        BundleError, StoreError: It cannot be fetched whole, or the store does not answer.
    """
    return opened(where, kind="package").path if is_uri(where) else Path(where)


def fetch(
    uri: str | Store, cache: Path, *, kind: str | None = None, heard: Heard | None = None
) -> Bundle:
    """Return the copy of a published bundle in a folder of this machine, made where it is not.

    A copy that is whole is returned without asking the store: a published bundle never changes.

    Args:
        cache: Folder of copies, each under the name it was published under.
        heard: Is told how far it is.

    Raises:
        BundleError: What lies in the store is not whole, or is another bundle than its name says.
        StoreError: The store refuses, or does not answer.
        OSError: This machine's disk refuses, or is too small.
    """
    from filelock import FileLock  # noqa: PLC0415 - not in the image that serves

    store = uri if isinstance(uri, Store) else Store.at(uri)
    name = store.root.rpartition("/")[2]
    if PUBLISHED.fullmatch(name) and (held := _kept(cache / name, name, kind)):
        return held
    manifest, text = _manifest(store, kind)
    path = cache / name_of(manifest)
    _writable(cache)
    with FileLock(cache / f".{path.name}.lock"):
        if held := _kept(path, path.name, kind):
            return held
        # Its name is the same for who goes on after an interruption.
        scratch = path.with_name(f".part-{path.name}")
        replace_folder(_brought(store, manifest, text, scratch, heard), path)
        shutil.rmtree(scratch)
    return Bundle(path, manifest)


def fill(uri: str | Store, folder: Path, *, heard: Heard | None = None) -> Bundle:
    """Fill a folder that is there, as a volume of a pod, with a published bundle; return it.

    The manifest comes last. What was left by an attempt before is used or replaced.

    Raises:
        BundleError, StoreError, OSError: As :func:`fetch`.
    """
    store = uri if isinstance(uri, Store) else Store.at(uri)
    manifest, text = _manifest(store, None)
    if held := _kept(folder, name_of(manifest), None):
        return held
    scratch = folder / f".part-{name_of(manifest)}"
    files = _brought(store, manifest, text, scratch, heard)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in [*(n for n in _names(files) if n != MANIFEST), MANIFEST]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).replace(folder / name)
    shutil.rmtree(scratch)
    return read(folder)


def _kept(path: Path, name: str, kind: str | None) -> Bundle | None:
    """Return the copy in its place, None where there is none that is whole."""
    try:
        held = read(path, kind=kind)
    except (BundleError, OSError):
        return None
    return held if name_of(held.manifest) == name else None


def _manifest(store: Store, kind: str | None) -> tuple[Mapping[str, Any], bytes]:
    """Return the manifest in a store, parsed and as it is, of the bundle that its name says."""
    text = store.read(MANIFEST, at_most=MANIFEST_BYTES)
    if text is None:
        raise BundleError(
            f"{store} holds no {MANIFEST}: nothing was published there, or not to the end, or "
            "there is no such bucket; see the address, or publish it again."
        )
    manifest, name = manifest_of(text, str(store), kind=kind), store.root.rpartition("/")[2]
    if PUBLISHED.fullmatch(name) and name != name_of(manifest):
        raise BundleError(
            f"{store} holds another bundle than its name says, {name_of(manifest)}; see who put it "
            "there, remove that folder, and publish again."
        )
    return manifest, text


def _writable(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        what = f"{cache} cannot keep packages ({e.strerror}); set {HOME_VARIABLE} to your folder"
        raise OSError(e.errno, what) from e


def _brought(
    store: Store, manifest: Mapping[str, Any], text: bytes, scratch: Path, heard: Heard | None
) -> Path:
    """Fetch into a folder that may hold what came before; return where the files are, all whole."""
    files, begun = scratch / "files", scratch / "begun"
    for folder in (files, begun):
        folder.mkdir(parents=True, exist_ok=True)
    listed, wanted = manifest["files"], sizes(manifest)
    _room(scratch.parent, sum(wanted.values()) - _bytes(scratch), store)
    meter = Meter(sum(wanted.values()), heard)

    def bring(numbered: tuple[int, str]) -> None:
        number, name = numbered
        if (files / name).is_file() and hash_file(files / name) == listed[name]["sha256"]:
            meter.add(wanted[name])
            return
        part = begun / str(number)
        _checked(store, name, part, listed[name], meter)
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        part.replace(files / name)

    together(bring, enumerate(sorted(wanted)), stop=meter.stop)
    if signature := store.read(SIGNATURE, at_most=SIGNATURE_BYTES):
        (files / SIGNATURE).write_bytes(signature)
    (files / MANIFEST).write_bytes(text)
    return files


def _checked(store: Store, name: str, part: Path, entry: Mapping[str, Any], meter: Meter) -> None:
    """Bring one file, and go on only if it is the one that the manifest lists."""
    before = part.stat().st_size if part.exists() else 0
    meter.add(before)
    try:
        store.get(name, part, size=entry["bytes"], moved=meter.add)
    except FileNotFoundError as e:
        raise _damaged(store, name, "is lost") from e
    if hash_file(part) == entry["sha256"]:
        return
    came = part.stat().st_size
    part.unlink()
    meter.add(-came)
    if before:
        # What an earlier attempt left may have been what was wrong.
        _checked(store, name, part, entry, meter)
        return
    cut = came < entry["bytes"]
    raise _damaged(store, name, f"is cut off after {came} bytes" if cut else "was altered")


def _damaged(store: Store, name: str, how: str) -> BundleError:
    return BundleError(
        f"{store}/{name} {how}: it is not the file that was published. See who did it, remove that "
        "folder, and register the version again."
    )


def _room(folder: Path, wanted: int, store: Store) -> None:
    free = shutil.disk_usage(folder).free
    if wanted + SPARE_BYTES > free:
        raise OSError(
            f"{store} needs {wanted // 1_000_000} MB in {folder}, which has {free // 1_000_000}; "
            f"free some, or set {HOME_VARIABLE} to another disk."
        )


def _bytes(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in _names(folder))


def _names(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]
