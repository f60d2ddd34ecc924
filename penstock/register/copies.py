"""Copies: packages fetched from a registry's server, kept on this machine by their digest."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from penstock.bundle import SIGNATURE, STORE_VARIABLE, Bundle, BundleError, read, replace_folder
from penstock.register import signing


def checked(folder: Path, digest: str) -> Bundle:
    """Return the package in a folder after checking every byte of it, and that it is this one.

    Raises:
        BundleError: It is not whole, or is a whole package with another digest.
    """
    found = read(folder, kind="package")
    if found.digest != digest:
        raise BundleError(
            f"{folder} holds a package of digest {found.digest[:19]}…; {digest[:19]}… was "
            "registered. It was replaced; see what else was: penstock register reconcile."
        )
    return found


def kept(digest: str, fetch: Callable[[Path], Path]) -> Bundle:
    """Return the package as a server gives it now, in its lasting folder of this machine.

    Args:
        fetch: Downloads into the folder it is given and returns the package's folder.

    A copy that is whole already stays where it is, since a server may be reading it; what was
    fetched is checked all the same.

    Raises:
        BundleError: What the server gives is not whole, or another package.
    """
    folder = _folder()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as scratch:
        found = checked(fetch(Path(scratch)), digest)
        path = folder / digest.removeprefix("sha256:")
        try:
            held = checked(path, digest)
        except BundleError:
            replace_folder(found.path, path)
        else:
            _sign_alike(found, held)
            return held
    return Bundle(path, found.manifest)


def _sign_alike(found: Bundle, held: Bundle) -> None:
    """Give a copy the server's signature where its own is worth less.

    One it has may be by a newer key, so it stays unless servers here would refuse it and accept
    the other.
    """
    if not (found.path / SIGNATURE).exists():
        return
    lacks = not (held.path / SIGNATURE).exists()
    if lacks or (signing.accepted(held) is False and signing.accepted(found)):
        (found.path / SIGNATURE).replace(held.path / SIGNATURE)


def _folder() -> Path:
    """Return the folder of copies; the ledger names packages in it.

    Raises:
        ValueError: ``PENSTOCK_STORE`` is not set; a temporary folder would not last.
    """
    store = os.environ.get(STORE_VARIABLE)
    if not store:
        raise ValueError(f"{STORE_VARIABLE} is not set; name a folder for packages of the server.")
    folder = Path(store) / "registered"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
