"""Promotion contract: what a version must have before it may enter STAGING, all of it or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock.bundle import Bundle
from penstock.ledger import REGISTERED, Actor, Conflict, Entry, Ledger, Stage
from penstock.ledger.standing import Standings, standings
from penstock.register import featurecontract
from penstock.registered import not_compared
from penstock.stage import Refused
from penstock.verdict import Outcome, Verdict
from penstock.workload import Approval, LeastCost, NoWorse, Workload, settings_of

VERDICTS = ("data-verdict", "equivalence", "gate")

TRIES = 5
"""Times that an admission is decided anew because another writer of the ledger was faster."""

ROLLBACK = (
    "primary",
    "max_error_share",
    "critical_error_share",
    "max_refused_share",
    "max_slow_share",
    "shadow",
    "evidence_timeout",
    "deadline",
)
"""What returns users to the champion: each a part of the canary policy."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What there is for a version, to be held against what it needs."""

    documents: Mapping[str, Any]
    """Files of the package by name, parsed; see :func:`documents`."""

    digest: str
    """Of the package."""

    declared: Workload
    entries: Sequence[Entry]
    """Of the workload, in the ledger."""

    standing: Standings
    """Of everybody who may sign in the ledger."""

    evidence: Mapping[str, Any]
    """What its REGISTERED entry says of verdicts and of the infra validation."""


def documents(package: Bundle) -> dict[str, Any]:
    """Return the JSON files of a package that the contract looks at; those it has."""
    names = ["contract.json", "lineage.json", "scores.json"]
    names += [f"verdicts/{kind}.json" for kind in VERDICTS]
    return {n: package.json(n) for n in names if n in package.manifest["files"]}


def missing(given: Given) -> list[str]:
    """Return one sentence for each requirement that is not met: what lacks, and what to do. Pure.

    Empty means that the version may enter STAGING.
    """
    found = ((name, lacks(given)) for name, lacks in REQUIREMENTS.items())
    return [f"{name}: {lacked}" for name, lacked in found if lacked is not None]


def _contract(given: Given) -> str | None:
    contract, declared = _object(given, "contract.json"), given.declared
    if not contract.get("definitions") or not contract.get("schema"):
        return "the package has none with definitions and schema; run the register stage again"
    made_with = _object(given, "lineage.json").get("feature_definitions")
    if made_with is not None and contract["definitions"] != made_with:
        return (
            "its feature definitions are not those the features were made with; run the features "
            "stage again"
        )
    if contract != featurecontract.compose(declared, definitions=contract["definitions"]):
        return "the package's is not what is declared now; run the register stage again"
    digest = featurecontract.digest_of(contract)
    signed = featurecontract.signature(
        given.entries, digest, declared=declared, standing=given.standing
    )
    if signed is not None:
        return None
    who = "the owner" if declared.approval is Approval.PERSON else "the owner or the pipeline"
    return (
        f"{digest[7:19]} is not signed by {who}; somebody with the role signs it: penstock "
        f"contract sign {declared.name}"
    )


def _data(given: Given) -> str | None:
    lineage = _object(given, "lineage.json")
    if not lineage.get("data") or not str(lineage.get("data_digest") or "").startswith("sha256:"):
        return "no hash of the snapshot it was trained on; run the register stage again"
    return None


def _verdicts(given: Given) -> str | None:
    ended = {k: _found(_object(given, f"verdicts/{k}.json")) for k in VERDICTS}
    wrong = [f"{kind} is {said}" for kind, said in ended.items() if said != Outcome.PASS]
    recorded: Mapping[str, Any] = given.evidence.get("verdicts") or {}
    wrong += [f"the ledger has no digest of {kind}" for kind in VERDICTS if not recorded.get(kind)]
    return f"{', '.join(wrong)}; only a pass that is on record goes forward" if wrong else None


def _found(document: Mapping[str, Any]) -> str:
    """Return the outcome of a verdict's document by its checks, whatever it states of itself."""
    if not document:
        return "missing"
    try:
        return Verdict.from_dict(document).outcome
    except ValueError as e:
        return f"not to be trusted ({str(e).removesuffix('.')})"


def _compared(given: Given) -> str | None:
    return not_compared(given.entries, _object(given, "lineage.json"))


def _slices(given: Given) -> str | None:
    """Ask that each slice was judged, and passed, by each metric that the policy asks of slices."""
    scores, declared = _object(given, "scores.json"), given.declared
    asked = _asked(declared, scores)
    if declared.slices and not asked:
        names = ", ".join(part.name for part in declared.slices)
        return f"{names}: declared, and the policy holds them to nothing; ask a rule of slices"
    judged = {(found["metric"], found["name"]): found for found in scores.get("slices") or ()}
    wrong = [
        f"{metric} of {name} {ended}"
        for metric, compared in asked.items()
        for name in slices_of(declared)
        if (ended := _ended(judged.get((metric, name)), compared=compared)) is not None
    ]
    return f"{', '.join(wrong)}; the policy asks it of every slice" if wrong else None


def _asked(declared: Workload, scores: Mapping[str, Any]) -> dict[str, bool]:
    """Return each metric that is asked of slices, and whether there was anything to hold it to.

    There is not for a comparison, where no champion served: such a slice is measured alone.
    """
    metrics: Mapping[str, Any] = scores.get("metrics") or {}
    first = bool(metrics) and all(held.get("champion") is None for held in metrics.values())
    asked: dict[str, bool] = {}
    for rule in declared.gate:
        if not isinstance(rule, LeastCost) and rule.slices:
            judged = not (first and isinstance(rule, NoWorse))
            asked[rule.metric] = asked.get(rule.metric, False) or judged
    return asked


def _ended(found: Mapping[str, Any] | None, *, compared: bool) -> str | None:
    """Return how a slice ended where that is no pass; None where it is."""
    if found is None or found.get("challenger") is None:
        return "was not measured"
    outcome = found.get("outcome")
    if outcome == "pass" or (outcome is None and not compared):
        return None
    return f"ended with {outcome}" if outcome else "was not judged"


def slices_of(declared: Workload) -> list[str]:
    """Return the names of all slices that are judged, as ``penstock.stats.slices`` gives them."""
    classes = range(declared.classes if declared.threshold is None else 0)
    return [*(f"class {c}" for c in classes), *(part.name for part in declared.slices)]


def _canary(given: Given) -> str | None:
    policy = (_object(given, "lineage.json").get("policy") or {}).get("rollout") or {}
    if not policy.get("canary_percents"):
        return "the package has none; run the register stage again"
    if lacking := [name for name in ROLLBACK if not policy.get(name)]:
        return f"it says nothing of {', '.join(lacking)}, which must return users to the champion"
    if policy != settings_of(given.declared.rollout):
        return "the package holds another than is declared now; run the register stage again"
    return None


def _owner(given: Given) -> str | None:
    owner = _object(given, "lineage.json").get("owner")
    if not str(owner or "").strip():
        return "nobody answers for it; declare an owner"
    if owner != given.declared.owner:
        return f"the package says {owner}, declared is {given.declared.owner}; register it again"
    return None


def _infra(given: Given) -> str | None:
    verdict: Mapping[str, Any] = given.evidence.get("infra") or {}
    if not verdict:
        return "no server has answered with this package; retire the version and register it again"
    if verdict.get("package") != given.digest:
        return "it was of a package with other bytes; retire the version and register it again"
    if (ended := _found(verdict)) != Outcome.PASS:
        return f"it is {ended}; see its checks in the ledger"
    return None


REQUIREMENTS: Mapping[str, Callable[[Given], str | None]] = {
    "signed feature contract": _contract,
    "data lineage hash": _data,
    "verdicts": _verdicts,
    "compared with the champion": _compared,
    "slice metrics": _slices,
    "canary policy with rollback criteria": _canary,
    "named owner": _owner,
    "infra validation": _infra,
}
"""What is required, and the function that says what of it lacks."""


def _object(given: Given, name: str) -> Mapping[str, Any]:
    held = given.documents.get(name)
    return held if isinstance(held, Mapping) else {}


def admit(
    package: Bundle,
    declared: Workload,
    ledger: Ledger,
    *,
    version: int,
    actor: Actor,
    now: datetime,
) -> Entry:
    """Move a version from NONE to STAGING, with fingerprints of the evidence that lets it in.

    Raises:
        Refused: Something is missing; the text lists all of it. The version stays at NONE.
        LedgerError: It is not at NONE.
    """
    for left in reversed(range(TRIES)):
        try:
            return _admitted(package, declared, ledger, version=version, actor=actor, now=now)
        except Conflict:
            # The champion may be another now.
            if not left:
                raise
    raise AssertionError("unreachable: the last try returns or raises")


def _admitted(
    package: Bundle,
    declared: Workload,
    ledger: Ledger,
    *,
    version: int,
    actor: Actor,
    now: datetime,
) -> Entry:
    """Decide once, on the ledger as it is; a Conflict says that it is another by now."""
    end, entries = ledger.head().sequence, ledger.entries(declared.name)
    registered = [e for e in entries if e.kind == REGISTERED and e.version == version]
    evidence: Mapping[str, Any] = registered[0].body.get("evidence") or {} if registered else {}
    given = Given(
        documents=documents(package),
        digest=package.digest,
        declared=declared,
        entries=entries,
        standing=standings(ledger),
        evidence=evidence,
    )
    if lacking := missing(given):
        listed = "; ".join(f"({n}) {sentence}" for n, sentence in enumerate(lacking, start=1))
        raise Refused(
            f"version {version} of {declared.name} may not enter STAGING, {len(lacking)} of "
            f"{len(REQUIREMENTS)} requirements are not met: {listed}"
        )
    return ledger.move(
        workload=declared.name,
        version=version,
        to=Stage.STAGING,
        reason=f"all {len(REQUIREMENTS)} requirements of the promotion contract are met",
        actor=actor,
        now=now,
        evidence=fingerprints(given),
        expect=end,
    )


def fingerprints(given: Given) -> dict[str, Any]:
    """Return the hashes of everything that let a version in, and what was asked of its slices."""
    lineage = given.documents["lineage.json"]
    asked = sorted(_asked(given.declared, given.documents["scores.json"]))
    none = "none: the workload declares no slices and its policy asks nothing of any"
    return {
        "package": given.digest,
        "contract": featurecontract.digest_of(given.documents["contract.json"]),
        "data": lineage["data_digest"],
        "infra": given.evidence["infra"]["digest"],
        "verdicts": dict(given.evidence["verdicts"]),
        "champion": lineage["artifacts"].get("champion"),
        "slices": {metric: len(slices_of(given.declared)) for metric in asked} or none,
    }
