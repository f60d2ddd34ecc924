"""Package: everything a serving pod needs, and everything a reader of the record needs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, write_json
from penstock.register import documents, featurecontract
from penstock.register.contract import ENGINE_ROUNDING, Reference, golden, input_contract
from penstock.register.lineage import lineage
from penstock.register.promotion import VERDICTS
from penstock.stage import verdict_of
from penstock.verdict import Outcome
from penstock.workload import Workload

COPIED = ("scores.json", "behaviours.json")
"""Files of the gate that a package keeps as they are."""


LAYOUT = "online.json"
"""Of a snapshot: where online features lie."""

BACKENDS = ("tensorrt", "tensorrt-rtx")
"""Whose plans a package keeps, where the engine stage built one."""


def make(
    folder: Path,
    declared: Workload,
    inputs: Mapping[str, Bundle],
    *,
    rehearsal: str,
    trained_by: str,
    before: Bundle | None,
) -> Summary:
    """Fill a package: what serves, what it was promised, what made it, what judged it, documents.

    Args:
        rehearsal: Name of a deliberate fault it will be served with, or empty.
        trained_by: Name of the actor who asked for it.
        before: The champion's package, or None when no version serves yet.
    """
    from penstock.register.profile import profile  # noqa: PLC0415 - scipy, only when there is work

    known = dict(inputs) if before is None else {**inputs, "champion": before}
    record = lineage(declared, known, rehearsal=rehearsal, trained_by=trained_by)
    write_json(folder / "lineage.json", record)
    requests = serving(folder, declared, inputs)
    _judged(folder, declared, inputs)
    proof = inputs["snapshot"].json("proof.json")
    contract = featurecontract.compose(declared, definitions=proof["feature_definitions"])
    write_json(folder / "contract.json", contract)
    write_json(folder / "profile.json", profile(inputs))
    documents.write(folder, declared, known, lineage=record, before=before)
    line = f"packaged the {declared.serve} graph with {requests} golden requests"
    return Summary(Outcome.PASS, line)


def serving(folder: Path, declared: Workload, inputs: Mapping[str, Bundle]) -> int:
    """Write what a server reads; return how many golden requests there are."""
    shutil.copy(inputs["serving"].file(workloads.served_graph(declared)), folder / "model.onnx")
    shutil.copy(workloads.transform_file(declared.name), folder / workloads.TRANSFORM)
    rules = workloads.transform_file(declared.name).with_name(workloads.RULES)
    if rules.exists():
        shutil.copy(rules, folder / workloads.RULES)
    _copied(inputs["snapshot"], folder, LAYOUT)
    write_json(folder / "serving.json", input_contract(declared))
    others = _others(folder, declared, inputs)
    answers = golden(folder / "model.onnx", declared, inputs["snapshot"], others=others)
    write_json(folder / "golden.json", answers)
    return len(answers["requests"])


def _others(folder: Path, declared: Workload, inputs: Mapping[str, Bundle]) -> dict[str, Reference]:
    """Copy what other runtimes load; return by runtime the graph whose answers it must give.

    Only what the ladder has judged is one: the network against fp32, engines against int8. A
    workload that serves fp32 has no plan, since plans compute in int8.
    """
    serving, found = inputs["serving"], dict[str, Reference]()
    exact = folder / "model.onnx"
    if declared.serve == "int8":
        exact = serving.path / "model.simplified.onnx"
        if _copied(serving, folder, "model.int8.onnx"):
            rounded = Reference(graph=folder / "model.int8.onnx", rounding=ENGINE_ROUNDING)
            plans = [_planned(inputs["engine"], folder, backend) for backend in BACKENDS]
            found |= {"cuda": rounded} | ({"tensorrt": rounded} if any(plans) else {})
    else:
        found["cuda"] = Reference(graph=exact)
    if exact.exists() and _copied(inputs["model"], folder, "model.safetensors"):
        found["torch"] = Reference(graph=exact)
    return found


def _planned(engine: Bundle, folder: Path, backend: str) -> bool:
    return all(_copied(engine, folder, f"{backend}{end}") for end in (".plan", ".plan.json"))


def _copied(source: Bundle, folder: Path, name: str) -> bool:
    """Copy a file where the bundle has it, readable for whoever serves; return whether it has."""
    if held := name in source.manifest["files"]:
        shutil.copyfile(source.file(name), folder / name)
    return held


def _judged(folder: Path, declared: Workload, inputs: Mapping[str, Bundle]) -> None:
    """Write what was found out about the model, and what to compare it with when it serves."""
    for name in COPIED:
        shutil.copy(inputs["gate"].file(name), folder / name)
    scores: Mapping[str, Any] = inputs["gate"].json("scores.json")
    values = {name: held["challenger"]["value"] for name, held in scores["metrics"].items()}
    baseline = {"metric": declared.metric, "n": scores["n"], "metrics": values}
    write_json(folder / "baseline.json", baseline)
    (folder / "verdicts").mkdir()
    for kind in VERDICTS:
        write_json(folder / "verdicts" / f"{kind}.json", verdict_of(inputs[kind]).to_dict())
