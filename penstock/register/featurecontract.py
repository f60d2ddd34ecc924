"""Feature contract: what a model is promised about its features, and who signed the promise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from penstock import workload as workloads
from penstock.bundle import code_revision, stable_form
from penstock.ledger import Actor, Entry, Ledger
from penstock.ledger.standing import Standing, Standings, standings
from penstock.stage import Refused
from penstock.workload import Approval, Workload, settings_of

CONTRACT = "contract"
"""Kind of the ledger entry by which somebody signs a feature contract."""


def compose(declared: Workload, *, definitions: str) -> dict[str, Any]:
    """Return the contract of a workload's features.

    Args:
        definitions: Hash of the feature definitions, as the snapshot's proof has it.
    """
    rules = declared.data
    return {
        "workload": declared.name,
        "holder": declared.owner,
        "feature_service": declared.feature_service,
        "definitions": definitions,
        "schema": [settings_of(column) for column in rules.columns],
        "label": {"name": declared.label, "delay_s": declared.label_delay.total_seconds()},
        "freshness": [settings_of(promise) for promise in rules.freshness],
        "quality": {
            "unique": list(rules.unique),
            "at_least_rows": rules.at_least_rows,
            "found": [settings_of(found) for found in rules.found],
            "drift": None if rules.drift is None else settings_of(rules.drift),
        },
    }


def present(declared: Workload) -> dict[str, Any]:
    """Return the contract as declaration and feature definitions have it now."""
    return compose(declared, definitions=code_revision(*workloads.definitions(declared.name)))


def digest_of(contract: Mapping[str, Any]) -> str:
    """Return the hash of a contract; the order of its keys does not matter.

    >>> digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    True
    """
    text = json.dumps(stable_form(contract), sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def signers(declared: Workload) -> frozenset[str]:
    """Return the roles of which one must be held by whoever signs.

    Where versions go forward by themselves, the pipeline may sign for the owner.
    """
    if declared.approval is Approval.PERSON:
        return frozenset({"owner"})
    return frozenset({"owner", "pipeline"})


def signature(
    entries: Sequence[Entry], digest: str, *, declared: Workload, standing: Standings
) -> Entry | None:
    """Return the newest entry that signs this very contract, by somebody who may; else None.

    A signature of somebody who has lost the role, was revoked since or has another key now, holds
    for no new version.
    """
    for entry in reversed(entries):
        signs = entry.kind == CONTRACT and entry.body.get("contract") == digest
        if signs and _counts(entry, standing.get(entry.actor), signers(declared)):
            return entry
    return None


def _counts(entry: Entry, standing: Standing | None, wanted: frozenset[str]) -> bool:
    return standing is not None and standing.vouches(entry) and bool(standing.roles & wanted)


def sign(
    ledger: Ledger, declared: Workload, contract: Mapping[str, Any], *, actor: Actor, now: datetime
) -> Entry:
    """Sign a contract: an entry of the ledger that holds it whole.

    Raises:
        Refused: The actor has none of the roles that may sign it.
    """
    wanted = signers(declared)
    # The first entry of a ledger makes its actor an admin, who has every role.
    if ledger.head().sequence and not ledger.roles(actor.name) & wanted:
        raise Refused(
            f"{actor.name} may not sign the feature contract of {declared.name}; it takes the role "
            f"{' or '.join(sorted(wanted))}, which an admin gives."
        )
    return ledger.append(
        workload=declared.name,
        version=None,
        kind=CONTRACT,
        body={
            "contract": digest_of(contract),
            "definitions": contract["definitions"],
            "document": dict(contract),
        },
        actor=actor,
        now=now,
    )


def sign_if_automatic(
    ledger: Ledger, declared: Workload, contract: Mapping[str, Any], *, actor: Actor, now: datetime
) -> Entry | None:
    """Sign a contract that has no signature yet, where that needs no person; else return None."""
    if declared.approval is not Approval.AUTOMATIC:
        return None
    entries = ledger.entries(declared.name)
    digest, standing = digest_of(contract), standings(ledger)
    if signature(entries, digest, declared=declared, standing=standing) is not None:
        return None
    return sign(ledger, declared, contract, actor=actor, now=now)
