"""Run the register stage: package, real server, MLflow version, ledger, STAGING. Safe to repeat."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from penstock import chained, registered, storage
from penstock import workload as workloads
from penstock.bundle import Bundle, BundleError, read
from penstock.ledger import (
    Actor,
    Entry,
    Ledger,
    LedgerError,
    Stage,
    actor_from_environment,
    stage_of,
)
from penstock.register import featurecontract, infra, promotion, signing
from penstock.register import package as packages
from penstock.register.reconcile import try_to_follow
from penstock.register.record import known, lost, record
from penstock.register.registry import Registry
from penstock.registered import OPEN
from penstock.release import Trigger
from penstock.stage import Refused, carry_out, require_pass, say, verdict_of
from penstock.verdict import Outcome
from penstock.workload import Workload, settings_of

LEDGER_VARIABLE = "PENSTOCK_LEDGER"
"""Environment variable: SQLAlchemy URL of the ledger."""


def run(
    *,
    workload: str,
    snapshot: Path,
    data_verdict: Path,
    model: Path,
    serving: Path,
    engine: Path,
    equivalence: Path,
    gate: Path,
    champion: str,
    rehearsal: str,
    out: Path,
    infra_verdict: Path,
    trigger: str = Trigger.MANUAL,
    now: datetime,
) -> str:
    """Register what the gate let through, admit it to STAGING, return its version number as text.

    Args:
        champion: Folder or address of the champion's package, or empty when no version serves yet;
            the one that the gate compared with.
        rehearsal: Name of a deliberate fault this version will be served with, or empty.
        infra_verdict: Folder for what the real server's answers were; not written for a version
            that is known already.
        trigger: Why it was trained, ``penstock.release.Trigger``; a version that was registered
            before keeps its own.

    The same candidate that serves already, or a version of the same package that is still on its
    way, is found and not made again. Who acts, the key that ``PENSTOCK_KEY`` names says. Where
    ``PENSTOCK_PACKAGES`` names a folder or a store, the package is published there, and the ledger
    names that address.

    Raises:
        Refused: The gate's verdict is not a pass, the real server did not answer right, the
            promotion contract is not met, or the workload asks for a signature and no key is named.
        BundleError: An input is not whole, or another than the gate has judged, the champion too.
        StoreError: The store of packages refuses, or does not answer.
        ValueError: There is no such trigger.
    """
    declared, why = workloads.load(workload), Trigger(trigger)
    actor, key = actor_from_environment(), signing.key_for(declared)
    to = storage.packages()
    judged = require_pass(gate, kind="gate")
    inputs = {
        "snapshot": read(snapshot, kind="snapshot"),
        "data-verdict": read(data_verdict, kind="data-verdict"),
        "model": read(model, kind="model"),
        "serving": read(serving, kind=declared.serve),
        "engine": read(engine, kind="engine"),
        "equivalence": read(equivalence, kind="equivalence"),
    }
    before = compared_with(judged, champion)
    chained.check_judged(judged, inputs)
    inputs["gate"] = judged
    chained.check(workload, inputs, serve=declared.serve)
    packaged = carry_out(
        "register",
        kind="package",
        workload=workload,
        inputs=inputs,
        settings={"rehearsal": rehearsal, "declared": settings_of(declared)},
        make=lambda folder: packages.make(
            folder, declared, inputs, rehearsal=rehearsal, trained_by=actor.name, before=before
        ),
        out=out,
        now=now,
        quiet=True,
    )
    if key is not None:
        signing.sign(packaged, key)
    ledger = Ledger(ledger_url())
    try:
        evidence = _evidence(packaged, declared, inputs, ledger, infra_verdict, why, now)
        version, stage = record(
            packaged, mlflow, ledger, actor=actor, now=now, evidence=evidence, to=to
        )
        held = registered.package(ledger.entries(workload), version)
        if key is not None:  # it was registered before, or with another key
            _sign_again(held, key, registered.registration(ledger.entries(workload), version))
        if stage is Stage.NONE:
            _admit(held, declared, ledger, version=version, actor=actor, now=now)
        aside = try_to_follow(workload, mlflow, ledger, actor=actor, now=now)
        notes = [note for note in (lost(ledger.entries(workload)), aside) if note]
    finally:
        ledger.close()
    serves = " and already serves" if stage is Stage.PRODUCTION else ""
    line = "; ".join([f"{name_of(workload, version, held)}{serves}", *notes])
    say("register", held, line=line, reused=stage is not Stage.NONE)
    return str(version)


def _sign_again(held: Bundle, key: Path, entry: Entry) -> None:
    """Sign a package where it lacks this key's signature, and where it was published too."""
    if signing.sign(held, key) and storage.is_uri(entry.body["package"]):
        storage.publish_signature(held, entry.body["package"])


def compared_with(gate: Bundle, champion: str) -> Bundle | None:
    """Return the champion's package, the very one that the gate compared with; None for none.

    Raises:
        BundleError: It is another, or is not whole.
    """
    before = storage.opened(champion, kind="package") if champion else None
    seen = gate.manifest["inputs"].get("champion")
    if (before.fingerprint if before else None) != seen:
        came = before.fingerprint if before else "none"
        raise BundleError(
            f"the champion is {came}, the gate compared with {seen or 'none'}; run the gate again."
        )
    return before


def name_of(workload: str, version: int, packaged: Bundle) -> str:
    """Return a version's full name: its number and what it contains."""
    return f"{workload}:{version}+{packaged.digest[7:19]}"


def _evidence(
    packaged: Bundle,
    declared: Workload,
    inputs: Mapping[str, Bundle],
    ledger: Ledger,
    out: Path,
    trigger: Trigger,
    now: datetime,
) -> dict[str, Any]:
    """Return what the REGISTERED entry will say besides; of a known version, nothing new.

    Raises:
        Refused: The real server did not answer right with this package.
    """
    if known(ledger.entries(declared.name), packaged):
        return {}
    bundle = infra.validate(packaged, out, now=now)
    verdict = verdict_of(bundle)
    if verdict.outcome is not Outcome.PASS:
        raise Refused(f"infra validation is {verdict.outcome}: {verdict.reason}")
    return {
        "trigger": str(trigger),
        "keep_until": (now + declared.retention).isoformat(),
        "evidence": {
            "infra": {**verdict.to_dict(), "digest": bundle.digest, "package": packaged.digest},
            "verdicts": {kind: inputs[kind].digest for kind in promotion.VERDICTS},
        },
    }


def _admit(
    held: Bundle, declared: Workload, ledger: Ledger, *, version: int, actor: Actor, now: datetime
) -> None:
    """Sign the feature contract where that needs no person, then hold the version against it all.

    Raises:
        Refused: The promotion contract is not met; the text lists what is missing.
    """
    contract = held.json("contract.json")
    featurecontract.sign_if_automatic(ledger, declared, contract, actor=actor, now=now)
    try:
        promotion.admit(held, declared, ledger, version=version, actor=actor, now=now)
    except LedgerError:
        # Another pipeline with the same package may have been faster.
        if stage_of(ledger.entries(declared.name), version) not in OPEN:
            raise


def mlflow() -> Registry:
    """Return the registry that the environment names."""
    from penstock.register.mlflow import MlflowRegistry  # noqa: PLC0415 - seconds to import

    return MlflowRegistry()


def ledger_url() -> str:
    """Return the ledger's address from the environment.

    Raises:
        ValueError: ``PENSTOCK_LEDGER`` is not set.
    """
    url = os.environ.get(LEDGER_VARIABLE)
    if not url:
        raise ValueError(
            f"{LEDGER_VARIABLE} is not set; name the ledger, sqlite:///path/ledger.db."
        )
    return url
