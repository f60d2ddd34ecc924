"""Record a package: one version in the registry, one entry in the ledger, whatever interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from penstock import registered, storage
from penstock.bundle import Bundle, BundleError
from penstock.ledger import (
    REGISTERED,
    Actor,
    Conflict,
    Entry,
    Ledger,
    Stage,
    champion,
    stage_of,
)
from penstock.register.registry import ORPHAN, Registry, described
from penstock.registered import OPEN
from penstock.tracking import RUN_VARIABLE

TRIES = 5
"""Times that an entry is decided anew because another writer was faster."""


def record(
    packaged: Bundle,
    opened: Callable[[], Registry],
    ledger: Ledger,
    *,
    actor: Actor,
    now: datetime,
    evidence: Mapping[str, Any],
    to: str | None = None,
) -> tuple[int, Stage]:
    """Return the version of a package and the stage it already had; make what is missing.

    Args:
        opened: Opens the registry; called only when the ledger does not know the package.
        evidence: What the REGISTERED entry says besides: digests of the evidence, ``keep_until``.
        to: Address that the package is published below; without one the ledger names the registry's
            own folder.

    The version is not moved: it stays at NONE until the promotion contract admits it. The registry
    comes first and the ledger last, so that a crash between them leaves a version that nobody
    knows; it is found by the package's digest and gets its entry here.

    Raises:
        BundleError: The registry gave back another package than it was given.
        Conflict: Other writers of the ledger were faster every time.
        LedgerError: The actor may not write.
        StoreError: The package could not be published.
    """
    if found := known(ledger.entries(packaged.manifest["workload"]), packaged):
        return found
    registry = opened()
    with registry.alone():
        for left in reversed(range(TRIES)):
            try:
                return _recorded(packaged, registry, ledger, actor, now, evidence, to)
            except Conflict:
                if not left:
                    raise
    raise AssertionError("unreachable: the last try returns or raises")


def _recorded(
    packaged: Bundle,
    registry: Registry,
    ledger: Ledger,
    actor: Actor,
    now: datetime,
    evidence: Mapping[str, Any],
    to: str | None,
) -> tuple[int, Stage]:
    workload, end = packaged.manifest["workload"], ledger.head().sequence
    entries = ledger.entries(workload)
    # Another process may have finished the same package while this one waited.
    if found := known(entries, packaged):
        return found
    named = {e.version for e in entries if e.kind == REGISTERED}
    version = _kept(packaged, registry, named, described(packaged, evidence))
    held = registry.package(workload, version)
    body = {
        **evidence,
        "fingerprint": packaged.fingerprint,
        "digest": packaged.digest,
        "package": str(held.path) if to is None else storage.publish(held, to),
        "rehearsal": packaged.json("lineage.json")["rehearsal"],
    }
    ledger.append(
        workload=workload,
        version=version,
        kind=REGISTERED,
        body=body,
        actor=actor,
        now=now,
        expect=end,
    )
    return version, Stage.NONE


def _kept(
    packaged: Bundle, registry: Registry, named: set[int | None], tags: Mapping[str, str]
) -> int:
    """Return a version of the package that no entry names: the first of what a crash left, or new.

    Two processes that register the same package on a server make two versions. Both take the
    lower one, which each of them sees: its number was given first.
    """
    workload, made = packaged.manifest["workload"], 0
    while True:
        waiting = [v for v in registry.find(workload, digest=packaged.digest) if v not in named]
        if waiting:
            break
        made = registry.add(
            workload, packaged, experiment=os.environ.get(RUN_VARIABLE, ""), tags=tags
        )
        if made in named:
            # The registry lost its versions and counts anew; a number is given once.
            registry.tag(workload, made, {ORPHAN: "the ledger has another version of this number"})
    version, *others = waiting
    if version != made:
        registry.tag(workload, version, {**tags, ORPHAN: None})
    for other in others:
        registry.tag(workload, other, {ORPHAN: f"the same package as version {version}"})
    return version


def known(entries: Sequence[Entry], packaged: Bundle) -> tuple[int, Stage] | None:
    """Return the version that the ledger has of this package, still open or serving.

    A champion whose package is lost is not known as anybody's: the same candidate gets a new
    version, which can be served in its place.
    """
    serving = champion(entries)
    if serving is not None and _same(entries, serving, packaged):
        return serving, Stage.PRODUCTION
    for entry in reversed(entries):
        if entry.kind != REGISTERED or entry.version is None:
            continue
        stage = stage_of(entries, entry.version)
        if entry.body["fingerprint"] == packaged.fingerprint and stage in (Stage.NONE, *OPEN):
            return entry.version, stage
    return None


def _same(entries: Sequence[Entry], version: int, packaged: Bundle) -> bool:
    try:
        held = registered.package(entries, version)
    except BundleError:
        return False
    return candidate(held) == candidate(packaged)


def lost(entries: Sequence[Entry]) -> str:
    """Return why the champion's package cannot be used; empty where it can, or nobody serves."""
    serving = champion(entries)
    try:
        if serving is not None:
            registered.package(entries, serving)
    except BundleError as e:
        return f"champion {serving} is lost: {e}"
    return ""


def candidate(packaged: Bundle) -> dict[str, object]:
    """Return what was judged, without the judgement, which depends on who served at the time."""
    said = packaged.manifest
    judged = {name: made for name, made in said["inputs"].items() if name != "gate"}
    return {**{n: said[n] for n in ("settings", "code", "environment")}, "inputs": judged}
