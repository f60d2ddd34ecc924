"""Names: of a published bundle by what it contains, and which of its files may be written here."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

from penstock.bundle import FORMAT, MANIFEST, SIGNATURE, BundleError, digest_of, sealed

MANIFEST_BYTES = 16 << 20
"""No manifest of ours is nearly as large; what is, is not read."""

PUBLISHED = re.compile(r"[0-9a-f]{12}-[0-9a-f]{32}")
"""A folder's name, see :func:`name_of`."""


def name_of(manifest: Mapping[str, Any]) -> str:
    """Return the name that a bundle is published under: its digest's start, its manifest's seal.

    The digest is what a version is known by. The seal is what makes the name the contents' own: in
    the digest is neither when a bundle was made nor what was measured of it.
    """
    digest, seal = digest_of(manifest["files"]), str(manifest["seal"])
    return f"{digest[7:19]}-{seal[7:39]}"


def sizes(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return the bytes of each file."""
    return {name: int(entry["bytes"]) for name, entry in manifest["files"].items()}


def manifest_of(text: bytes, where: str, *, kind: str | None) -> Mapping[str, Any]:
    """Return a manifest that may be followed: sealed, of this format and kind, with safe names.

    Raises:
        BundleError: It is none.
    """
    try:
        manifest = json.loads(text)
        if manifest["format"] != FORMAT:
            raise BundleError(f"{where} has format {manifest['format']}, this reads {FORMAT}.")
        if text.decode() != sealed(manifest):
            raise BundleError(
                f"{where}/{MANIFEST} was altered; remove that folder and publish it again."
            )
        if kind is not None and manifest["kind"] != kind:
            raise BundleError(f"{where} is a {manifest['kind']} bundle; a {kind} was wanted.")
        unsafe = _unsafe(sizes(manifest))
        digest_of(manifest["files"])
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        if isinstance(e, BundleError):
            raise
        raise BundleError(f"{where}/{MANIFEST} is not a manifest: {e!r}; publish it again.") from e
    if unsafe:
        raise BundleError(
            f"{where} names files that would lie outside its folder, {unsafe[:3]}; nobody of ours "
            "wrote that. Fetch nothing from there."
        )
    return manifest


def _unsafe(names: Collection[str]) -> list[str]:
    """Return the names that must not be written: outside the folder, or a file and a folder."""
    folders = {str(above) for name in names for above in PurePosixPath(name).parents}
    return [name for name in names if name in folders or not _safe(name)]


def _safe(name: str) -> bool:
    """Return whether a file of this name lies in the bundle's folder, and is the only one there."""
    plain = name == PurePosixPath(name).as_posix() and name.isprintable() and "\\" not in name
    parts = PurePosixPath(name).parts
    odd = name.startswith("/") or not parts or ".." in parts or ":" in parts[0]
    return plain and not odd and name not in (".", MANIFEST, SIGNATURE)
