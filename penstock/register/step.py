"""Run the register stage: package, MLflow version, ledger entry. Safe to repeat."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from penstock import workload as workloads
from penstock.bundle import Bundle, read
from penstock.ledger import REGISTERED, Ledger, Stage, champion, package_of, stage_of
from penstock.register import package as packages
from penstock.register.registry import Registry
from penstock.stage import carry_out, require_pass, say

LEDGER_VARIABLE = "PENSTOCK_LEDGER"
"""Environment variable: SQLAlchemy URL of the ledger."""

RUN_VARIABLE = "PENSTOCK_RUN"
"""Environment variable: identity of the pipeline run, kept as a tag."""

OPEN = (Stage.STAGING, Stage.SHADOW, Stage.CANARY)


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
    rehearsal: str,
    actor: str,
    out: Path,
    now: datetime,
) -> str:
    """Register what the gate let through and return its version number as text.

    Args:
        rehearsal: Name of a deliberate fault this version will be served with, or empty.
        actor: Who asked; goes into the ledger.

    The same candidate that serves already, or a version of the same package that is still on its
    way, is found and not made again.

    Raises:
        Refused: The gate's verdict is not a pass.
        BundleError: An input is not whole.
    """
    declared = workloads.load(workload)
    inputs = {
        "snapshot": read(snapshot, kind="snapshot"),
        "data-verdict": read(data_verdict, kind="data-verdict"),
        "model": read(model, kind="model"),
        "serving": read(serving, kind=declared.serve),
        "engine": read(engine, kind="engine"),
        "equivalence": read(equivalence, kind="equivalence"),
        "gate": require_pass(gate, kind="gate"),
    }
    packaged = carry_out(
        "register",
        kind="package",
        workload=workload,
        inputs=inputs,
        settings={"rehearsal": rehearsal},
        make=lambda folder: packages.make(folder, declared, inputs, rehearsal=rehearsal),
        out=out,
        now=now,
        quiet=True,
    )
    ledger = Ledger(ledger_url())
    try:
        version, known = record(packaged, _mlflow, ledger, actor=actor, now=now)
        held = read(Path(package_of(ledger.entries(workload), version)), kind="package")
    finally:
        ledger.close()
    serves = " and already serves" if known is Stage.PRODUCTION else ""
    line = f"version {version} of {workload}, package {held.digest[7:19]}{serves}"
    say("register", held, line=line, reused=known is not Stage.NONE)
    return str(version)


def _mlflow() -> Registry:
    from penstock.register.mlflow import MlflowRegistry  # noqa: PLC0415 - seconds to import

    return MlflowRegistry()


def record(
    packaged: Bundle,
    opened: Callable[[], Registry],
    ledger: Ledger,
    *,
    actor: str,
    now: datetime,
) -> tuple[int, Stage]:
    """Return the version of a package and the stage it already had; make what is missing.

    The registry is opened only when the candidate does not serve already.

    A crash after the registry took it and before the ledger did is mended here: the version is
    found by its fingerprint and only the entry is added.
    """
    workload = packaged.manifest["workload"]
    entries = ledger.entries(workload)
    serving = champion(entries)
    if serving is not None and candidate(read(Path(package_of(entries, serving)))) == candidate(
        packaged
    ):
        return serving, Stage.PRODUCTION
    registry = opened()
    known = registry.find(workload, fingerprint=packaged.fingerprint)
    for version in reversed(known):
        stage = stage_of(entries, version)
        if stage in OPEN:
            return version, stage
    unfinished = [v for v in known if stage_of(entries, v) is Stage.NONE]
    if unfinished:
        version = unfinished[-1]
    else:
        version = registry.add(workload, packaged, experiment=os.environ.get(RUN_VARIABLE, ""))
    if not any(e.kind == REGISTERED and e.version == version for e in entries):
        ledger.append(
            workload=workload,
            version=version,
            kind=REGISTERED,
            body={
                "fingerprint": packaged.fingerprint,
                "digest": packaged.digest,
                "package": str(registry.package(workload, version)),
                "rehearsal": packaged.json("lineage.json")["rehearsal"],
            },
            actor=actor,
            now=now,
        )
    ledger.move(
        workload=workload,
        version=version,
        to=Stage.STAGING,
        reason=packaged.json("verdicts/gate.json")["outcome"] + " at the gate",
        actor=actor,
        now=now,
        evidence={"package": packaged.digest},
    )
    return version, Stage.NONE


def candidate(packaged: Bundle) -> dict[str, object]:
    """Return what was judged, without the judgement, which depends on who served at the time."""
    said = packaged.manifest
    judged = {name: made for name, made in said["inputs"].items() if name != "gate"}
    return {**{n: said[n] for n in ("settings", "code", "environment")}, "inputs": judged}


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
