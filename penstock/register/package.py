"""Package: everything a serving pod needs, and everything a reader of the record needs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, write_json, write_text
from penstock.register.contract import GOLDEN, golden, input_contract
from penstock.register.documents import VERDICTS, card
from penstock.register.lineage import lineage
from penstock.stage import verdict_of
from penstock.verdict import Outcome
from penstock.workload import Workload


def make(
    folder: Path, declared: Workload, inputs: Mapping[str, Bundle], *, rehearsal: str
) -> Summary:
    """Fill a package: graph, contract, golden answers, baseline, lineage, verdicts, card."""
    graph = inputs["serving"].file(workloads.served_graph(declared))
    shutil.copy(graph, folder / "model.onnx")
    contract = {"workload": declared.name, "classes": declared.classes, **input_contract(declared)}
    write_json(folder / "serving.json", contract)
    write_json(folder / "golden.json", golden(folder / "model.onnx", declared, inputs["snapshot"]))
    scores = inputs["gate"].json("scores.json")["challenger"]
    write_json(folder / "baseline.json", {"accuracy": scores["accuracy"], "n": scores["n"]})
    record = lineage(declared, inputs, rehearsal=rehearsal)
    write_json(folder / "lineage.json", record)
    (folder / "verdicts").mkdir()
    for kind in VERDICTS:
        write_json(folder / "verdicts" / f"{kind}.json", verdict_of(inputs[kind]).to_dict())
    write_text(folder / "card.md", card(declared, record, inputs))
    return Summary(
        Outcome.PASS, f"packaged the {declared.serve} graph with {GOLDEN} golden requests"
    )
