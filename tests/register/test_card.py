"""Laws of the model card: its form is kept, its gaps are said, its limits are the declared ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from penstock.register import card as cards
from penstock.register import facts
from penstock.workload import load
from tests.register import dossiers

SCHEMA = json.loads((Path(cards.__file__).parent / "card.schema.json").read_text(encoding="utf-8"))


def valid(document: dict[str, Any]) -> bool:
    """Return whether a card has the form that the schema states."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(document)


def composed(tmp_path: Path, **over: Any) -> dict[str, Any]:
    """Return the card of the regulated workload."""
    held = dossiers.inputs(tmp_path, **over)
    return cards.compose(tmp_path, dossiers.credit(), held, lineage=dossiers.lineage())


def test_a_card_has_the_published_form(tmp_path: Path):
    """With all evidence there is."""
    assert valid(composed(tmp_path))


def test_a_card_without_any_evidence_has_the_published_form_too(tmp_path: Path):
    """What is not known is null there, never left out, and the verdict is an error."""
    document = cards.compose(tmp_path, load("digits"), {}, lineage={})

    assert valid(document)
    assert document["verdict"]["outcome"] == "error"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("constraints"),
        lambda d: d.update(extra=1),
        lambda d: d["verdict"].update(outcome="fine"),
        lambda d: d["scores"]["metrics"]["auc"].update(challenger={"value": "0.9"}),
        lambda d: d["version"].update(model="latest"),
    ],
    ids=["a part is gone", "an unknown part", "unknown outcome", "text for a number", "no hash"],
)
def test_another_form_is_refused(tmp_path: Path, spoil: Any):
    """The schema is not one that takes everything."""
    document = composed(tmp_path)
    spoil(document)

    assert not valid(document)


def test_the_constraints_are_those_that_the_service_keeps(tmp_path: Path):
    """Columns with their ranges, the packaged input contract, budgets beside their limits."""
    contract = {"features": ["pixels"], "width": 64, "low": 0, "high": 16}
    (tmp_path / "serving.json").write_text(json.dumps(contract))
    held = composed(tmp_path)["constraints"]

    assert held["input"] == contract
    assert {c["name"]: c["high"] for c in held["columns"]}["pixels"] == 16
    assert held["resources"]["latency_p99_ms"] == {"measured": 3.417, "limit": 50.0}
    assert held["resources"]["peak_memory_mb"] == {"measured": 93.7, "limit": None}


def test_the_version_is_named_by_the_graph_that_was_packaged(tmp_path: Path):
    """By its bytes, whatever the lineage says."""
    (tmp_path / "model.onnx").write_bytes(b"a graph")

    assert composed(tmp_path)["version"]["model"] != dossiers.lineage()["model"]


def test_a_model_risk_reader_finds_the_headings_and_the_gaps(tmp_path: Path):
    """Where there is no evidence the heading stays, and is empty."""
    found = {h["heading"]: h["evidence"] for h in composed(tmp_path)["model_risk"]}

    assert found["Adverse impact ratio"] == ["scores.fairness"]
    assert found["Outcomes analysis"] == ["scores.metrics", "scores.slices"]
    assert [h for h, e in found.items() if not e] == [
        "Effective challenge",
        "Ongoing monitoring",
        "Reason codes",
    ]


def test_evidence_that_goes_empties_its_heading(tmp_path: Path):
    """A heading never points to what is not there."""
    without = composed(tmp_path, gate={"scores.json": {**dossiers.scores(), "fairness": []}})
    found = {h["heading"]: h["evidence"] for h in without["model_risk"]}

    assert found["Adverse impact ratio"] == []


def test_a_workload_that_no_person_approves_has_no_such_headings(tmp_path: Path):
    """They would ask of it what nobody needs."""
    document = cards.compose(tmp_path, load("digits"), {}, lineage={})

    assert document["model_risk"] is None


def test_an_architecture_is_its_tensors_shapes_and_not_their_values(tmp_path: Path):
    """Two networks of one shape agree, of another shape they do not; no header, no answer."""
    one = dossiers.inputs(tmp_path / "one")["model"]
    again = dossiers.inputs(tmp_path / "again", model={"config.json": {"seed": 7}})["model"]
    wider = dossiers.inputs(tmp_path / "wider", shapes=((3, 9), (9,)))["model"]
    first = facts.architecture(one)

    assert first == facts.architecture(again)
    assert first is not None
    assert first["values"] == 32
    assert first != facts.architecture(wider)
    assert facts.architecture(one, file="config.json") is None
    assert facts.architecture(None) is None
