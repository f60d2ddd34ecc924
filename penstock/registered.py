"""Registered: a version's package, with the very bytes that its entry in the ledger names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from penstock import storage
from penstock.bundle import Bundle, BundleError
from penstock.ledger import REGISTERED, Entry, Stage, champion, stage_of
from penstock.release import Trigger

OPEN = (Stage.STAGING, Stage.SHADOW, Stage.CANARY)
"""Where a version is on its way: let in, and not yet serving everybody."""


def registration(entries: Sequence[Entry], version: int) -> Entry:
    """Return the entry that names a version's package.

    Raises:
        LookupError: The version was never registered.
    """
    for entry in entries:
        if entry.kind == REGISTERED and entry.version == version:
            return entry
    raise LookupError(f"version {version} is not in the ledger; run the register stage.")


def trigger(entries: Sequence[Entry], version: int) -> Trigger:
    """Return why a version was trained, by its registration; its release may ask a person then.

    Raises:
        LookupError: The version was never registered.
    """
    return Trigger(registration(entries, version).body.get("trigger", Trigger.MANUAL))


def uri(entries: Sequence[Entry], version: int) -> str:
    """Return the address of a version's package that every machine can fetch.

    It is what an InferenceService takes as its ``storageUri``.

    Raises:
        LookupError: The version was never registered, or its package is a folder of one machine.
    """
    place = str(registration(entries, version).body["package"])
    if not storage.is_uri(place):
        raise LookupError(
            f"the package of version {version} is {place}, a folder of the machine that registered "
            "it; set PENSTOCK_PACKAGES to s3://… or gs://… and register the model anew."
        )
    return place


def package(
    entries: Sequence[Entry],
    version: int,
    *,
    cache: Path | None = None,
    heard: storage.Heard | None = None,
) -> Bundle:
    """Return a version's package; a whole one that took its place is refused.

    One that was published is fetched once and kept; until then its store must answer.

    Args:
        cache: Folder of fetched packages; the home's where none is given.
        heard: Is told how far a transfer is.

    Raises:
        LookupError: The version was never registered.
        BundleError: It is not whole, or has another digest than was registered.
        StoreError: The store refuses, or does not answer.
    """
    said = registration(entries, version).body
    held = storage.opened(said["package"], kind="package", cache=cache, heard=heard)
    if held.digest != (wanted := said.get("digest")):
        raise BundleError(
            f"{held.path} has digest {held.digest[7:19]}, registered as version {version} was "
            f"{str(wanted)[7:19]}; bring back the package that was registered: see the runbook "
            "registry-drift."
        )
    return held


def package_to_serve(
    entries: Sequence[Entry],
    version: int,
    *,
    cache: Path | None = None,
    heard: storage.Heard | None = None,
) -> Bundle:
    """Return a version's package, to serve it; see :func:`package`.

    Raises:
        LookupError: It was never registered, or is archived.
        BundleError: It is not whole, or another than was registered.
        StoreError: The store refuses, or does not answer.
    """
    if stage_of(entries, version) is Stage.ARCHIVED:
        raise LookupError(f"version {version} is archived and serves no more; register it anew.")
    return package(entries, version, cache=cache, heard=heard)


def not_compared(entries: Sequence[Entry], lineage: Mapping[str, Any]) -> str | None:
    """Return why a version was not compared with the present champion; None where it was.

    Where nobody serves, it must have been compared with nobody.

    Args:
        lineage: The version's ``lineage.json``, which names by fingerprint and digest what it was
            made from and compared with.
    """
    artifacts, digests = (_named(lineage.get(name)) for name in ("artifacts", "digests"))
    if artifacts is None or digests is None:
        return "the package does not say with whom it was compared; run the gate again"
    serving = champion(entries)
    said = {} if serving is None else registration(entries, serving).body
    compared, present = artifacts.get("champion"), said.get("fingerprint")
    if compared != present:
        now = "nobody serves" if serving is None else f"version {serving}, {present}, serves now"
        return f"it was compared with {compared or 'nobody'}, and {now}; run the gate again"
    if digests.get("champion") != said.get("digest"):
        return f"the package it was compared with is not version {serving}'s; run the gate again"
    return None


def _named(found: object) -> Mapping[str, Any] | None:
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else None
