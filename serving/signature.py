"""Signature: whether a package is what the holder of a key has signed, asked before it is read.

The format is OpenSSF's model signing, so that anybody can ask the same without Penstock:
``model_signing verify key --public_key KEY --signature DIR/package.sig DIR``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from penstock.bundle import SIGNATURE, Bundle, BundleError, read

KEY_VARIABLE = "PENSTOCK_SIGNED_BY"
"""Environment variable: the file of the public key by which packages must be signed."""


PREFIX = "penstock-loads-"
"""Of the folders, below the one for temporary files, that packages are loaded from."""


class NotSigned(ValueError):
    """A package has no valid signature by the key that is asked for; the text says why."""


@contextmanager
def verified(package: Path, key: Path | None) -> Iterator[Bundle]:
    """Yield a package as a copy that nobody else can write to, checked there; it goes afterwards.

    Who can write to the package's folder could otherwise change a file between the check and the
    loading, and so have code run that nobody signed.

    Args:
        key: As :func:`verify` takes it; without one the hashes of the manifest are all there is.

    Raises:
        BundleError: It is not there, or a file is missing or altered.
        NotSigned: It has no valid signature by the key.
    """
    if not package.is_dir():
        raise BundleError(f"{package} is not a bundle: there is no such folder.")
    with _private() as folder:
        made = folder / "package"
        copy(package, made)
        try:
            if key is not None:
                verify(made, key)
            bundle = read(made, kind="package")
        except (BundleError, NotSigned) as e:
            # Who reads the sentence knows the folder that was asked for; the copy is gone by then.
            raise type(e)(str(e).replace(str(made), str(package))) from e
        yield bundle


@contextmanager
def _private() -> Iterator[Path]:
    """Yield an empty folder that only this user may enter; it goes afterwards.

    Servers that were killed while they loaded left theirs, which go too: who lives holds a lock.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with _locked(folder, fcntl.LOCK_EX) as held:
        if not os.fstat(held).st_nlink:  # another server took it for one that was left
            raise BundleError(f"{folder} was removed while it was made; start the server again.")
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[int]:
    """Hold a folder's lock; it ends with the process, however that ends.

    Raises:
        OSError: It is not there, is a link, or another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


def copy(package: Path, to: Path) -> None:
    """Copy what lies there, whatever it is: the checks say what must not. Modes stay behind."""
    to.mkdir()
    for path in sorted(package.rglob("*")):
        there = to / path.relative_to(package)
        if path.is_dir() and not path.is_symlink():
            there.mkdir()
        else:
            shutil.copyfile(path, there, follow_symlinks=False)


def verify(package: Path, key: Path) -> None:
    """Check every file of a package against its signature; one more is one too many.

    Args:
        key: PEM file of an elliptic curve's public key.

    Raises:
        NotSigned: There is no signature, it is another key's, or a file was altered, added or lost.
    """
    if not key.is_file():
        raise NotSigned(f"there is no public key {key}; {KEY_VARIABLE} must name its file.")
    if not (package / SIGNATURE).is_file():
        raise NotSigned(
            f"{package} has no signature, and one by {key} is asked for; register the model again "
            "with PENSTOCK_SIGNING_KEY set to the private key's file."
        )
    from model_signing import hashing, verifying  # noqa: PLC0415 - a third of a second to import

    # Its own settings would be read from the signature, and leave out files that git knows.
    wanted = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=key).set_hashing_config(
            wanted
        ).verify(package, package / SIGNATURE)
    except Exception as e:  # its exceptions share no base
        raise NotSigned(
            f"{package} is not what the holder of {key} signed: {str(e) or repr(e)}. Fetch the "
            "package that was registered, or name the key it was signed by."
        ) from e
