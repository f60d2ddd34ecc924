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
from typing import Any

from penstock import registered
from penstock.bundle import MANIFEST, Bundle, BundleError, digest_of, hash_file, sealed
from penstock.ledger import Actor, Entry, Ledger, Stage, deployable, stage_of
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
    package = registered.package(entries, version)
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
        body=_ended(package, path, reason, keep_until=now + declared.retention),
        actor=actor,
        now=now,
    )


def _ended(package: Bundle, archive: Path, reason: str, *, keep_until: datetime) -> dict[str, Any]:
    return {
        "reason": reason,
        "archive": str(archive),
        "archive_digest": hash_file(archive),
        "bytes": archive.stat().st_size,
        "package": package.digest,
        "keep_until": keep_until.isoformat(),
    }


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
    """Return the entry by which a version was retired; None where there is more to do.

    Saying it is not enough: the version must be archived, and the archive must hold its package.
    """
    if stage_of(entries, version) is not Stage.ARCHIVED:
        return None
    digest = registered.registration(entries, version).body["digest"]
    for entry in reversed(entries):
        said = entry.kind == RETIRED and entry.version == version
        if said and _archived(entry.body.get("archive"), digest):
            return entry
    return None


def _archived(archive: object, digest: str) -> bool:
    try:
        return isinstance(archive, str) and contents(Path(archive)) == digest
    except BundleError:
        return False


def store(package: Bundle, path: Path) -> None:
    """Write a package as one archive, whole or not at all, and read it back.

    The same package always gives the same bytes. An archive that is there and whole is left alone.

    Raises:
        BundleError: What was written reads back otherwise.
    """
    if _archived(str(path), package.digest):
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
        if not _archived(str(part), package.digest):
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


def contents(path: Path) -> str:
    """Return the digest of the package in an archive, after checking every byte of it.

    Raises:
        BundleError: It cannot be read, or a file is missing, altered or not on the manifest.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            found = {m.name: _hash(tar, m) for m in tar.getmembers()}
            held = tar.extractfile(MANIFEST)
            text = held.read().decode() if held else ""
        manifest = json.loads(text)
        listed = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    except (tarfile.TarError, LookupError, TypeError, AttributeError, OSError, ValueError) as e:
        raise BundleError(f"{path} is not an archive of a package: {e!r}.") from e
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
