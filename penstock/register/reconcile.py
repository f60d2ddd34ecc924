"""Reconcile: find where the registry says another than the ledger, and mend what can be mended.

The ledger is right. Aliases and marks of ours are set to what it says; a version or a package that
was edited or lost is a matter for a person, since what was judged cannot be made up again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from penstock.bundle import Bundle, BundleError
from penstock.ledger import REGISTERED, Actor, Entry, Ledger, Stage, serving_order, stage_of
from penstock.register.registry import DIGEST, FINGERPRINT, ORPHAN, Held, Registry, State, described
from penstock.registered import OPEN

ALIASES = "aliases"
"""Kind of the ledger entry that says what the registry's aliases were last made to name."""

TRIES = 5
"""Times that aliases are moved again because the ledger changed meanwhile."""

UNKNOWN = "the ledger does not know it; a registration was interrupted"


class Remedy(StrEnum):
    """What a difference asks for."""

    NOTHING = "nothing"  # it is known, and harms nobody
    REPAIR = "repair"  # the ledger says what it must be
    PERSON = "person"  # something was edited or lost


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One place where registry and ledger do not agree."""

    text: str
    remedy: Remedy
    version: int | None = None
    alias: str | None = None
    orphan: str | None = None
    """What the version's orphan mark must say; None takes it away."""


def reconcile(registry: Registry, workload: str, entries: Sequence[Entry]) -> list[Difference]:
    """Return every difference of a workload; reads packages and changes nothing."""
    state = registry.state(workload)
    found: dict[int, Bundle | str] = {}
    for held in state.versions:
        # The package of an archived version may be in the archive.
        if _entry(entries, held.version) and _live(entries, held.version):
            try:
                found[held.version] = registry.package(workload, held.version)
            except BundleError as e:
                found[held.version] = str(e)
    return compare(state, found, entries)


def compare(
    state: State, found: Mapping[int, Bundle | str], entries: Sequence[Entry]
) -> list[Difference]:
    """Return the differences of what the registry holds from what the ledger says.

    Args:
        found: Package of each live version, or why it cannot be used.
    """
    held = {h.version: h for h in state.versions}
    registered = [e for e in entries if e.kind == REGISTERED and e.version is not None]
    return [
        *(d for e in registered for d in _version(e, held, found)),
        *(_orphan(h) for h in state.versions if _entry(entries, h.version) is None),
        *_aliases(state.aliases, entries, held),
        *(
            Difference(
                text=f"run {run}: no version names its package {made}; registering it again will",
                remedy=Remedy.NOTHING,
            )
            for run, made in state.unfinished.items()
        ),
    ]


def _version(
    entry: Entry, held: Mapping[int, Held], found: Mapping[int, Bundle | str]
) -> Iterator[Difference]:
    """Yield what is wrong with a version that the ledger has."""
    version = entry.version or 0

    def person(text: str) -> Difference:
        return Difference(text=f"version {version}: {text}", remedy=Remedy.PERSON, version=version)

    if version not in held:
        yield person("the registry has lost it; restore its database")
        return
    tags, package = dict(held[version].tags), found.get(version)
    if tags.pop(ORPHAN, None) is not None:
        text = f"version {version}: is marked as unknown to the ledger, which has it"
        yield Difference(text=text, remedy=Remedy.REPAIR, version=version)
    if isinstance(package, str):
        yield person(package)
    wanted = {FINGERPRINT: entry.body["fingerprint"], DIGEST: entry.body["digest"]}
    if isinstance(package, Bundle) and package.digest == entry.body["digest"]:
        wanted = described(package, entry.body)
    else:
        tags = {name: tags[name] for name in wanted if name in tags}
    for name in sorted(tags.keys() | wanted.keys()):
        if tags.get(name) != wanted.get(name):
            yield person(
                f"tag {name} says {_short(tags.get(name))}, it was registered with "
                f"{_short(wanted.get(name))}"
            )


def _orphan(held: Held) -> Difference:
    marked = held.tags.get(ORPHAN)
    return Difference(
        text=f"version {held.version}: {marked or UNKNOWN}",
        remedy=Remedy.REPAIR if marked is None else Remedy.NOTHING,
        version=held.version,
        orphan=marked or UNKNOWN,
    )


def _aliases(
    said: Mapping[str, int], entries: Sequence[Entry], held: Mapping[int, Held]
) -> Iterator[Difference]:
    for alias, version in wanted_aliases(entries).items():
        now = said.get(alias)
        if now == version:
            continue
        archived = now is not None and stage_of(entries, now) is Stage.ARCHIVED
        names = "nothing" if now is None else f"version {now}{', archived' if archived else ''}"
        must = "nothing" if version is None else f"version {version}"
        text = f"alias {alias} names {names}; the ledger says {must}"
        there = version is None or version in held
        remedy = Remedy.REPAIR if there else Remedy.PERSON
        yield Difference(text=text, remedy=remedy, version=version, alias=alias)


def wanted_aliases(entries: Sequence[Entry]) -> dict[str, int | None]:
    """Return which version each alias names when it follows the ledger."""
    order = serving_order(entries)
    return {
        "champion": order[0] if order else None,
        "standby": order[1] if len(order) > 1 else None,
        "challenger": _challenger(entries),
    }


def _challenger(entries: Sequence[Entry]) -> int | None:
    waiting = [
        e.version
        for e in entries
        if e.kind == REGISTERED and e.version is not None and stage_of(entries, e.version) in OPEN
    ]
    return waiting[-1] if waiting else None


def repair(
    registry: Registry,
    ledger: Ledger,
    workload: str,
    differences: Sequence[Difference],
    *,
    actor: Actor,
    now: datetime,
) -> list[Difference]:
    """Mend what can be mended, write moved aliases into the ledger, return what was mended."""
    mended = [d for d in differences if d.remedy is Remedy.REPAIR]
    moved = {d.alias: d.version for d in mended if d.alias is not None}
    for d in mended:
        if d.alias is None and d.version is not None:
            registry.tag(workload, d.version, {ORPHAN: d.orphan})
    if moved:
        registry.point(workload, moved)
        # What was moved may not be all that the ledger wants by now: what is there is written.
        named = registry.state(workload).aliases
        body = {alias: named.get(alias) for alias in wanted_aliases([])}
        texts = [d.text for d in mended if d.alias]
        _write(workload, ledger, {**body, "repaired": texts}, actor=actor, now=now)
    return mended


def follow(
    workload: str,
    opened: Callable[[], Registry],
    ledger: Ledger,
    *,
    actor: Actor,
    now: datetime,
) -> None:
    """Let the aliases say what the ledger says; open the registry only when that changed.

    What is written is what was pointed at, so that whoever was overtaken is put right by the next.
    """
    for _ in range(TRIES):
        entries = ledger.entries(workload)
        wanted = wanted_aliases(entries)
        written = [e.body for e in entries if e.kind == ALIASES]
        if not any(e.kind == REGISTERED for e in entries):
            return
        if written and {name: written[-1].get(name) for name in wanted} == wanted:
            return
        opened().point(workload, wanted)
        _write(workload, ledger, wanted, actor=actor, now=now)


def try_to_follow(
    workload: str,
    opened: Callable[[], Registry],
    ledger: Ledger,
    *,
    actor: Actor,
    now: datetime,
) -> str:
    """Let the aliases follow; return what to do where they could not, empty where they did.

    For callers whose own work is done and must not fail by it: aliases mirror, and decide nothing.
    """
    try:
        follow(workload, opened, ledger, actor=actor, now=now)
    except Exception as e:  # noqa: BLE001 - whatever the client of a registry may raise
        said = next(iter(str(e).splitlines()), type(e).__name__)
        return (
            f"MLflow's aliases do not follow the ledger yet ({said}); when that is mended: "
            f"penstock register reconcile {workload}"
        )
    return ""


def _write(
    workload: str, ledger: Ledger, body: Mapping[str, Any], *, actor: Actor, now: datetime
) -> None:
    ledger.append(
        workload=workload,
        version=body["champion"],
        kind=ALIASES,
        body=body,
        actor=actor,
        now=now,
    )


def _entry(entries: Sequence[Entry], version: int) -> Entry | None:
    return next((e for e in entries if e.kind == REGISTERED and e.version == version), None)


def _live(entries: Sequence[Entry], version: int) -> bool:
    return stage_of(entries, version) is not Stage.ARCHIVED


def _short(text: str | None) -> str:
    return "nothing" if text is None else text if len(text) <= 40 else f"{text[:40]}…"
