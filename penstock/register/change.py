"""Change document: what a version changes over the champion, and how much review that asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from penstock.bundle import Bundle
from penstock.register import facts
from penstock.register.facts import Inputs, Record
from penstock.workload import Approval, Workload, settings_of, task_of

FORMAT = 1

MATERIAL = {
    "network": "the architecture",
    "features": "the feature source",
    "task": "what is decided",
}
"""Groups of what a version is made of whose change is material, and what they are."""

FULL = "full re-validation, and the risk committee"
ABBREVIATED = "abbreviated validation"

NOT_MATERIAL_OF_TASK = ("metric", "threshold")
"""How decisions are measured and cut is policy; which label and how many classes is the task."""


def compose(
    folder: Path, declared: Workload, inputs: Inputs, *, lineage: Record, before: Bundle | None
) -> dict[str, Any]:
    """Return the change document of a version as plain values.

    Args:
        folder: Where the package is being made.
        before: The champion's package; None for the first model, which is material.
    """
    gate = facts.verdict(inputs, "gate")
    after = made_of(declared, inputs, lineage)
    earlier = None if before is None else recorded(before)
    changes = [] if earlier is None else list(compare(earlier, after))
    weighed = materiality(earlier, after, changes)
    return {
        "format": FORMAT,
        "workload": declared.name,
        "title": declared.title,
        "owner": declared.owner,
        "approval": str(declared.approval),
        "rehearsal": lineage.get("rehearsal"),
        "version": lineage.get("model"),
        "against": None if before is None else _named(before),
        "about": settings_of(declared.about),
        "materiality": weighed,
        "changes": changes,
        "likeliest": None if before is None else likeliest(folder, inputs, lineage, before),
        "validation": {
            "outcome": str(gate.outcome),
            "reason": gate.reason,
            "metrics": facts.scores(inputs)["metrics"],
            "not_passed": [c for c in gate.to_dict()["checks"] if c["outcome"] != "pass"],
        },
        "signatures": signatures(declared, lineage, material=weighed["material"]),
        "retention_days": declared.retention.days,
        "made_of": after,
    }


def made_of(declared: Workload, inputs: Inputs, lineage: Record) -> dict[str, dict[str, Any]]:
    """Return what a version is made of, in groups of named plain values; None where not known."""
    shape: Record = facts.architecture(inputs.get("model")) or {}
    found = facts.data(declared, inputs, lineage)
    quantized: Record = facts.held(inputs, "serving", "quantize.json") or {}
    return {
        "network": {
            "tensor shapes": shape.get("shapes"),
            "trained values": shape.get("values"),
            "model.py": _source(declared, lineage, "model.py"),
            "transform.py": _source(declared, lineage, "transform.py"),
            "graph that serves": declared.serve,
        },
        "features": {
            "service": declared.feature_service,
            "definitions": lineage.get("feature_definitions"),
            "views": found["views"],
            "data.py": _source(declared, lineage, "data.py"),
            **{f"feature {n}": v for n, v in (lineage.get("features") or {}).items()},
        },
        "task": task_of(declared),
        "data": {"snapshot": lineage.get("data"), "content": found["digest"],
                 **{f"{part} rows": n for part, n in (found["rows"] or {}).items()}},
        "hyperparameters": dict(lineage.get("hyperparameters") or {}),
        "seed": {"seed": lineage.get("seed")},
        "quantization": {
            k: quantized.get(k) for k in ("calibrator", "examples", "int8", "float_layers")
        },
        "code": dict(lineage.get("code") or {}),
        "environment": dict(_flat(lineage.get("environment") or {})),
        "image": {"image": lineage.get("image")},
    }  # fmt: skip


def recorded(package: Bundle) -> dict[str, dict[str, Any]]:
    """Return what an earlier package says it is made of; nothing, where it kept no such record."""
    if "change.json" not in package.manifest["files"]:
        return {}
    return package.json("change.json").get("made_of") or {}


def likeliest(
    folder: Path, inputs: Inputs, lineage: Record, before: Bundle
) -> dict[str, Any] | None:
    """Return how the metric moved from the champion, and what most likely moved it.

    None where one of the two keeps no profile of its data, no scores or a lineage of another form.
    """
    from penstock.register import differ, weighed  # noqa: PLC0415 - scipy, only beside a champion

    profile = folder / "profile.json"
    scored = facts.held(inputs, "gate", "scores.json")
    kept = {"lineage.json", "profile.json", "scores.json"} <= set(before.manifest["files"])
    if scored is None or not kept or not profile.exists():
        return None
    second = weighed.Made(
        name="this version",
        fingerprint="",
        lineage=lineage,
        profile=json.loads(profile.read_text(encoding="utf-8")),
        scores=scored,
    )
    try:
        found = differ.diff(differ.made(before, name="the champion"), second)
    except (KeyError, TypeError):
        return None
    keys = ("kind", "what", "was", "now", "reason")
    return {
        "headline": found.headline,
        "conclusion": found.conclusion,
        "changes": [{k: getattr(c, k) for k in keys} for c in found.changes],
    }


def compare(before: Mapping[str, Record], after: Mapping[str, Record]) -> Iterator[dict[str, Any]]:
    """Yield every value that differs, group by group, in the order of what weighs most."""
    for group, now in after.items():
        then = before.get(group, {})
        for name in dict.fromkeys((*then, *now)):
            old, new = then.get(name), now.get(name)
            if old != new:
                yield {
                    "group": group,
                    "name": name,
                    "before": _said(old),
                    "after": _said(new),
                    "material": _is_material(group, name),
                }


def materiality(
    before: Mapping[str, Record] | None,
    after: Mapping[str, Record],
    changes: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return whether a change is material, why, and which review it asks for.

    A new architecture or feature source is material; fresh data, another seed or other settings of
    the training are not. What cannot be shown to be unchanged counts as changed.
    """
    if before is None:
        reasons = ["it is the first model: there is nothing that it could be a small change of"]
    elif not before:
        reasons = [
            "the champion's package does not say what it is made of: nothing can be compared"
        ]
    else:
        moved = dict.fromkeys(c["group"] for c in changes if c["material"])
        reasons = [f"{MATERIAL[group]} changed: {_names(changes, group)}" for group in moved]
        reasons += [
            f"{MATERIAL[group]} cannot be compared, {name} is not on record"
            for group, name in _unknown(before, after)
        ]
    less = "the architecture, the feature source and what is decided are those of the champion"
    return {
        "material": bool(reasons),
        "reasons": reasons or [less],
        "review": FULL if reasons else ABBREVIATED,
    }


def signatures(declared: Workload, lineage: Record, *, material: bool) -> list[dict[str, Any]]:
    """Return who must sign, by role; the signatures themselves are entries of the ledger."""
    trainer = lineage.get("trained_by")
    other = "not who developed it" + (f", {_person(trainer)}" if trainer else "")
    wanted = [
        ("owner", "answers for the model and its use"),
        ("validator", f"{FULL if material else ABBREVIATED}; {other}"),
    ]
    if material or declared.approval is Approval.PERSON:
        wanted.append(("approver", "for the risk committee" if material else "lets it forward"))
    return [{"role": role, "stands_for": text} for role, text in wanted]


def _person(trainer: object) -> str:
    """Return a name of what may be a text or a record with a name."""
    if isinstance(trainer, Mapping):
        return str(cast("Record", trainer).get("name"))
    return str(trainer)


def _named(package: Bundle) -> dict[str, str]:
    return {"fingerprint": package.fingerprint, "digest": package.digest}


def _source(declared: Workload, lineage: Record, name: str) -> str | None:
    files: Record = lineage.get("files") or {}
    return files.get(f"workloads/{declared.name}/{name}")


def _is_material(group: str, name: str) -> bool:
    return group in MATERIAL and name not in NOT_MATERIAL_OF_TASK


def _unknown(
    before: Mapping[str, Record], after: Mapping[str, Record]
) -> Iterator[tuple[str, str]]:
    """Yield each material value that neither side has: equal, for all anybody can tell."""
    for group in MATERIAL:
        then = before.get(group, {})
        for name, new in after[group].items():
            if _is_material(group, name) and new is None and then.get(name) is None:
                yield group, name


def _names(changes: list[dict[str, Any]], group: str) -> str:
    return ", ".join(c["name"] for c in changes if c["group"] == group and c["material"])


def _flat(document: Record, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat(cast("Record", value), f"{name} ")
        else:
            yield f"{prefix}{name}", value


def _said(value: object) -> str | None:
    """Return a value as a short text; None where there was none."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True)
