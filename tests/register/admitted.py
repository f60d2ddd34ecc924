"""A version that lacks nothing of the promotion contract, for tests that take something away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.bundle import Bundle, Recipe, Summary, write, write_json
from penstock.ledger import REGISTERED, Ledger
from penstock.register import featurecontract
from penstock.register.promotion import VERDICTS, slices_of
from penstock.workload import LeastCost, Workload, settings_of
from tests.bundles import NOW
from tests.people import person

DEFINITIONS = "sha256:feed"
SHARE = {"value": 0.96, "low": 0.94, "high": 0.98, "n": 600}
CHECK = {"name": "seen", "outcome": "pass", "reason": "made so", "value": None, "limit": None}


def documents(declared: Workload) -> dict[str, Any]:
    """Return the documents of a package that lacks nothing."""
    rules = (r for r in declared.gate if not isinstance(r, LeastCost) and r.slices)
    asked = list(dict.fromkeys(r.metric for r in rules))
    slices = [
        {"name": name, "n": 50, "metric": metric, "outcome": "pass", "challenger": SHARE}
        for metric in asked
        for name in slices_of(declared)
    ]
    return {
        "contract.json": featurecontract.compose(declared, definitions=DEFINITIONS),
        "lineage.json": {
            "owner": declared.owner,
            "data": "digits-snapshot",
            "data_digest": "sha256:da7a",
            "feature_definitions": DEFINITIONS,
            "policy": {"rollout": settings_of(declared.rollout)},
            "rehearsal": None,
            "artifacts": {"snapshot": "digits-snapshot"},
            "digests": {"snapshot": "sha256:da7a"},
        },
        "scores.json": {
            "n": 600,
            "metrics": {metric: {"challenger": SHARE, "champion": SHARE} for metric in asked},
            "slices": slices,
        },
        **{f"verdicts/{kind}.json": {"outcome": "pass", "checks": [CHECK]} for kind in VERDICTS},
    }


def evidence(digest: str) -> dict[str, Any]:
    """Return what a REGISTERED entry says of a package that a server has answered with."""
    infra = {"outcome": "pass", "checks": [CHECK], "digest": "sha256:1f7a", "package": digest}
    return {"infra": infra, "verdicts": {kind: f"sha256:{kind}" for kind in VERDICTS}}


def package(path: Path, held: Mapping[str, Any], *, workload: str = "digits") -> Bundle:
    """Write a package that holds these documents; None leaves one out."""

    def fill(folder: Path) -> Summary:
        (folder / "verdicts").mkdir()
        for name, document in held.items():
            if document is not None:
                write_json(folder / name, document)
        return Summary("pass", "made for a test")

    recipe = Recipe(kind="package", workload=workload, settings={"of": path.name})
    return write(path, recipe, make=fill, now=NOW)


def registered(ledger: Ledger, packaged: Bundle, *, version: int = 1, **over: Any) -> None:
    """Enter a package as a version, with evidence that lacks nothing unless told."""
    body = {
        "fingerprint": packaged.fingerprint,
        "digest": packaged.digest,
        "package": str(packaged.path),
        "rehearsal": None,
        "evidence": evidence(packaged.digest),
        **over,
    }
    ledger.append(
        workload=packaged.manifest["workload"],
        version=version,
        kind=REGISTERED,
        body=body,
        actor=person(),
        now=NOW,
    )
