"""Validation summary: what was checked and what not, for a reviewer who did not build it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.bundle import Bundle
from penstock.register import facts
from penstock.register.facts import Inputs, Record
from penstock.verdict import Outcome
from penstock.workload import Workload, settings_of

FORMAT = 1

AFTERWARDS = (
    ("users", "shadow and canary come after registering; their evidence goes into the ledger"),
    ("another person's review", "it comes after this summary; its signature goes into the ledger"),
)
"""What no stage before registering can check."""

COMMANDS = {
    "snapshot": "penstock features --workload {workload} --out SNAPSHOT",
    "data-verdict": "penstock datachecks --workload {workload} --snapshot SNAPSHOT "
    "--out DATA_VERDICT",
    "model": "penstock train --workload {workload} --snapshot SNAPSHOT "
    "--data-verdict DATA_VERDICT --seed {seed} --out MODEL",
    "onnx": "penstock export --workload {workload} --snapshot SNAPSHOT --model MODEL --out ONNX",
    "int8": "penstock quantize --workload {workload} --snapshot SNAPSHOT --onnx ONNX --out SERVING",
    "engine": "penstock engine --workload {workload} --int8 SERVING --out ENGINE",
    "equivalence": "penstock equivalence --workload {workload} --snapshot SNAPSHOT --model MODEL "
    "--onnx ONNX --int8 SERVING --engine ENGINE --out EQUIVALENCE",
    "gate": "penstock gate --workload {workload} --snapshot SNAPSHOT --data-verdict DATA_VERDICT "
    "--model MODEL --serving {serving} --engine ENGINE --equivalence EQUIVALENCE "
    "{champion}--out GATE",
}
"""How each piece of evidence is made again; capitals are folders of the reader's own."""


def compose(
    declared: Workload, inputs: Inputs, *, lineage: Record, before: Bundle | None
) -> dict[str, Any]:
    """Return the validation summary of a version as plain values, in the order one reads it."""
    gate = facts.verdict(inputs, "gate")
    weaknesses = [*_weaknesses(declared, inputs)]
    return {
        "format": FORMAT,
        "workload": declared.name,
        "title": declared.title,
        "owner": declared.owner,
        "rehearsal": lineage.get("rehearsal"),
        "verdict": {"outcome": str(gate.outcome), "reason": gate.reason},
        "version": lineage.get("model"),
        "trained_by": lineage.get("trained_by"),
        "weaknesses": [{"what": what, "why": why} for what, why in weaknesses],
        "checked": [_checked(inputs, kind) for kind in facts.QUESTIONS if kind in inputs],
        "not_checked": [
            {"what": what, "why": why}
            for what, why in (*_not_checked(declared, inputs, before), *AFTERWARDS)
        ],
        "repeat": _repeat(declared, lineage, before),
        "checks": {
            kind: facts.verdict(inputs, kind).to_dict()["checks"] for kind in facts.VERDICTS
        },
        "policy": [{"rule": type(rule).__name__, **vars(rule)} for rule in declared.gate],
        "about": settings_of(declared.about),
        "evidence": facts.digests(inputs),
    }


def _checked(inputs: Inputs, kind: str) -> dict[str, Any]:
    """Return one piece of evidence: what it answers, how it ended, and its digest."""
    bundle = inputs[kind]
    carried = facts.held(inputs, kind, "verdict.json") is not None
    found = facts.verdict(inputs, kind) if carried else None
    return {
        "kind": kind,
        "question": facts.QUESTIONS[kind],
        "outcome": bundle.summary.outcome if found is None else str(found.outcome),
        "found": bundle.summary.line if found is None else found.reason,
        "checks": None if found is None else len(found.checks),
        "passed": None if found is None else sum(c.outcome is Outcome.PASS for c in found.checks),
        "digest": bundle.digest,
    }


def _weaknesses(declared: Workload, inputs: Inputs) -> Iterator[tuple[str, str]]:
    """Yield what is open: checks that did not pass, slices nobody could judge, what is missing."""
    for kind in facts.VERDICTS:
        found = facts.verdict(inputs, kind)
        if not found.checks:
            yield kind, "there is no verdict"
        for check in found.checks:
            if check.outcome is not Outcome.PASS:
                yield f"{kind}: {check.name}", f"{check.outcome}: {check.reason}"
    scored = facts.scores(inputs)
    if not scored["metrics"]:
        yield "gate", "there are no scores"
    for part in scored["slices"]:
        if part["outcome"] == Outcome.INCONCLUSIVE:
            yield f"slice {part['name']}", f"inconclusive on {part['n']} rows"
    certificate: Record = facts.held(inputs, "model", "certificate.json") or {}
    if not certificate.get("holds"):
        yield "training", "there is no proof that its bits repeat"
    for limitation in declared.about.limitations:
        yield "known limitation", limitation


def _not_checked(
    declared: Workload, inputs: Inputs, before: Bundle | None
) -> Iterator[tuple[str, str]]:
    """Yield what was not looked at, and why."""
    if before is None:
        yield "whether it is better than a champion", "no version served when it was judged"
    if not declared.sensitive:
        yield "fairness", "the workload declares no sensitive attributes"
    if not declared.behaviours:
        yield "behaviour on rows changed on purpose", "the workload declares none"
    engines: Record = facts.held(inputs, "engine", "engine.json") or {}
    for engine in engines.get("backends", []):
        if engine["state"] != "run":
            why = engine["reason"] or "no reason was recorded"
            yield f"{engine['name']} engine", f"{engine['state']}: {why}"
    ladder: Record = facts.held(inputs, "equivalence", "ladder.json") or {}
    empty = {name for step in ladder.get("steps", []) for name in step.get("empty", ())}
    for name in sorted(empty):
        yield f"slice {name} on the ladder", "the holdout has no row of it"


def _repeat(declared: Workload, lineage: Record, before: Bundle | None) -> list[dict[str, str]]:
    """Return the command that makes each piece of evidence again."""
    known = {
        "workload": declared.name,
        "seed": lineage.get("seed"),
        "serving": "ONNX" if declared.serve == "onnx" else "SERVING",
        "champion": "" if before is None else "--champion CHAMPION ",
    }
    return [{"what": kind, "command": text.format(**known)} for kind, text in COMMANDS.items()]
