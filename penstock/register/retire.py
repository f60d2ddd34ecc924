"""Retirement: archive what a version was made of, revoke its serving, keep its record."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from penstock.bundle import MANIFEST, Bundle, BundleError, digest_of, hash_file, read, sealed
from penstock.ledger import (
    REGISTERED,
    Actor,
    Entry,
    Ledger,
    Stage,
    deployable,
    package_of,
    stage_of,
)
from penstock.register.reconcile import follow
from penstock.register.registry import Registry
from penstock.stage import Refused
from penstock.workload import Workload

RETIRED = "retired"
"""Kind of the entry that ends a version: where its archive is, with what hash, kept until when."""


def retire(
    declared: Workload,
    version: int,
    *,
    reason: str,
    archive: Path,
    opened: Callable[[], Registry],
    ledger: Ledger,
    actor: Actor,
    now: datetime,
) -> Entry:
    """End a version for good; return the entry that says so.

    Args:
        archive: Folder that keeps the archives of retired packages.
        opened: Opens the registry; called only when an alias must move.

    It can be repeated: what was interrupted is finished, what is done is found. Only a new version
    brings the model back.

    Raises:
        Refused: The version serves, or must stay deployable, or no reason is given.
        LookupError: The version was never registered.
        BundleError: Its package is not the one that was registered, or the archive is not whole.
    """
    entries = ledger.entries(declared.name)
    refuse(entries, version, reason)
    if (done := retirement(entries, version)) is not None:
        return done
    package = registered(entries, version)
    path = archive / f"{declared.name}-{version}-{package.digest[7:19]}.tar"
    store(package, path)
    if stage_of(entries, version) is not Stage.ARCHIVED:
        ledger.move(
            workload=declared.name,
            version=version,
            to=Stage.ARCHIVED,
            reason=f"retired: {reason}",
            actor=actor,
            now=now,
        )
    follow(declared.name, opened, ledger, actor=actor, now=now)
    return ledger.append(
        workload=declared.name,
        version=version,
        kind=RETIRED,
        body={
            "reason": reason,
            "archive": str(path),
            "archive_digest": hash_file(path),
            "bytes": path.stat().st_size,
            "package": package.digest,
            "keep_until": (now + declared.retention).isoformat(),
        },
        actor=actor,
        now=now,
    )


def refuse(entries: Sequence[Entry], version: int, reason: str) -> None:
    """Refuse what must not be retired.

    Raises:
        Refused: It is the champion, or an earlier version that users may have to return to, or
            nobody says why.
    """
    if not reason.strip():
        raise Refused("a retirement needs a reason; say it with --reason.")
    held = deployable(entries)
    if version in held[:1]:
        raise Refused(
            f"version {version} is the champion and serves users; release another version first."
        )
    if version in held:
        raise Refused(
            f"version {version} must stay deployable behind champion {held[0]}, as the way back; "
            "it may be retired when newer versions have served."
        )


def retirement(entries: Sequence[Entry], version: int) -> Entry | None:
    """Return the entry by which a version was retired, or None."""
    return next((e for e in entries if e.kind == RETIRED and e.version == version), None)


def registered(entries: Sequence[Entry], version: int) -> Bundle:
    """Return a version's package, with the very bytes that were registered.

    Raises:
        LookupError: The version was never registered.
        BundleError: It is not whole, or another.
    """
    package = read(Path(package_of(entries, version)), kind="package")
    wanted = next(
        e.body["digest"] for e in entries if e.kind == REGISTERED and e.version == version
    )
    if package.digest != wanted:
        raise BundleError(
            f"{package.path} has digest {package.digest[7:19]}, registered was {wanted[7:19]}; "
            "find the package that was registered before it is archived."
        )
    return package


def store(package: Bundle, path: Path) -> None:
    """Write a package as one archive, whole or not at all, and read it back.

    The same package always gives the same bytes. An archive that is there and whole is left alone.

    Raises:
        BundleError: What was written reads back otherwise.
    """
    if path.exists() and holds(path, package):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with part.open("wb") as f:
            with tarfile.open(fileobj=f, mode="w") as tar:
                for name in sorted([*package.manifest["files"], MANIFEST]):
                    _add(tar, package.path / name, name)
            f.flush()
            os.fsync(f.fileno())
        if not holds(part, package):
            raise BundleError(f"{path} was written and reads back otherwise; look at the disk.")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, source: Path, name: str) -> None:
    """Add a file under a name with nothing of this machine: no time, no owner."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = source.stat().st_size, 0o644
    with source.open("rb") as f:
        tar.addfile(member, f)


def holds(path: Path, package: Bundle) -> bool:
    """Return whether an archive is whole and holds this package, byte for byte."""
    try:
        return contents(path) == package.digest
    except BundleError:
        return False


def contents(path: Path) -> str:
    """Return the digest of the package in an archive, after checking every byte of it.

    Raises:
        BundleError: It cannot be read, or a file is missing, altered or not on the manifest.
    """
    try:
        with tarfile.open(path) as tar:
            found = {m.name: _hash(tar, m) for m in tar.getmembers()}
            held = tar.extractfile(MANIFEST)
            text = held.read().decode() if held else ""
        manifest = json.loads(text)
    except (tarfile.TarError, KeyError, OSError, ValueError) as e:
        raise BundleError(f"{path} is not an archive of a package: {e}") from e
    listed = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    found.pop(MANIFEST)
    if text != sealed(manifest) or found != listed:
        wrong = sorted(n for n in found.keys() | listed.keys() if found.get(n) != listed.get(n))
        raise BundleError(f"{path} was altered: {wrong or MANIFEST}.")
    return digest_of(manifest["files"])


def _hash(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    held = tar.extractfile(member)
    if held is None:
        return "not a file"
    return "sha256:" + hashlib.file_digest(held, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
