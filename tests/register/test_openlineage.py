"""Laws of the export: events as the standard's object model has them, the same ones every time."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from typing import Any

import jsonschema
import pytest

from penstock.bundle import Bundle
from penstock.register.openlineage import events, run_id
from tests.register.versions import package

FACETS = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["_producer", "_schemaURL"],
        "properties": {
            "_producer": {"type": "string", "format": "uri"},
            "_schemaURL": {"type": "string", "pattern": r"^https://.+\.json#/\$defs/[A-Za-z]+$"},
        },
    },
}
NAMED = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {
        "namespace": {"type": "string", "minLength": 1},
        "name": {"type": "string", "minLength": 1},
        "facets": FACETS,
    },
}
CORE = {
    "type": "object",
    "required": ["eventType", "eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"type": "string", "format": "uri"},
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": FACETS},
        },
        "job": NAMED,
        "inputs": {"type": "array", "items": NAMED},
        "outputs": {"type": "array", "items": NAMED},
    },
}
"""What the specification's object model asks of every run event, in our words."""


COMMIT = "4c1d" * 10

REQUIRED = {
    "SchemaDatasetFacet": {"fields"},
    "DatasourceDatasetFacet": {"name", "uri"},
    "DocumentationDatasetFacet": {"description"},
    "DatasetVersionDatasetFacet": {"datasetVersion"},
    "ParentRunFacet": {"run", "job"},
    "ProcessingEngineRunFacet": {"version"},
    "DocumentationJobFacet": {"description"},
    "JobTypeJobFacet": {"processingType", "integration"},
    "SourceCodeJobFacet": {"language", "sourceCode"},
    "SourceCodeLocationJobFacet": {"type", "url"},
}
"""What each facet's published schema asks of it, or a reader cannot do without."""


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A package of small stages, made from a commit."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("penstock.register.lineage.git_revision", lambda _root: COMMIT)
        return package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def made(packaged: Bundle) -> list[dict[str, Any]]:
    """Its events, as a reader gets them."""
    return json.loads(json.dumps(events(packaged, repository="https://example.org/penstock")))


def test_every_event_has_what_the_object_model_asks(made: list[dict[str, Any]]):
    """Required fields, of their types, on events and on every facet."""
    checker = jsonschema.Draft202012Validator(
        CORE, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    for event in made:
        checker.validate(event)
        uuid.UUID(event["run"]["runId"])


def test_every_facet_has_what_its_schema_asks(made: list[dict[str, Any]]):
    """And each of those we write is written somewhere."""
    held = [
        facet
        for event in made
        for owner in (event["run"], event["job"], *event["inputs"], *event["outputs"])
        for facet in owner["facets"].values()
    ]
    named = {facet["_schemaURL"].rpartition("/")[2]: facet for facet in held}

    assert named.keys() == REQUIRED.keys()
    for facet in held:
        assert facet.keys() >= REQUIRED[facet["_schemaURL"].rpartition("/")[2]]


def test_every_run_starts_and_completes_in_that_order(made: list[dict[str, Any]]):
    """One START and one COMPLETE a run, the registration around all stages."""
    ids = [event["run"]["runId"] for event in made]
    assert set(Counter(ids).values()) == {2}
    for one in set(ids):
        kinds = [e["eventType"] for e in made if e["run"]["runId"] == one]
        assert kinds == ["START", "COMPLETE"]
    assert made[0]["job"]["name"] == made[-1]["job"]["name"] == "digits.register"
    assert {e["job"]["name"] for e in made} == {
        f"digits.{verb}"
        for verb in (
            "features", "datachecks", "train", "quantize", "engine", "equivalence", "gate",
            "register",
        )
    }  # fmt: skip


def test_runs_are_named_by_what_they_made(packaged: Bundle, made: list[dict[str, Any]]):
    """Exported twice it is the same file; each stage says which run it was part of."""
    assert events(packaged, repository="https://example.org/penstock") == made
    outer = run_id(packaged.fingerprint)
    for event in made[1:-1]:
        assert event["run"]["facets"]["parent"]["run"]["runId"] == outer
    assert run_id("digits-1") != run_id("digits-2")


def test_data_sets_carry_version_schema_and_source(packaged: Bundle, made: list[dict[str, Any]]):
    """What one stage gives is what the next takes, content hash and all."""
    features = next(e for e in made if e["job"]["name"] == "digits.features")
    train = next(e for e in made if e["job"]["name"] == "digits.quantize")
    snapshot = features["outputs"][0]
    digests = packaged.json("lineage.json")["digests"]

    assert snapshot["name"] == "digits/snapshot"
    assert snapshot["facets"]["version"]["datasetVersion"] == digests["snapshot"]
    fields = {f["name"]: f["type"] for f in snapshot["facets"]["schema"]["fields"]}
    assert fields["pixels"] == "list<element: float>"
    assert snapshot["facets"]["dataSource"]["name"] == "digits_v1"
    taken = {d["name"]: d["facets"]["version"]["datasetVersion"] for d in train["inputs"]}
    assert taken == {"digits/snapshot": digests["snapshot"], "digits/onnx": "digits-graph"}
    assert [d["name"] for d in made[-1]["outputs"]] == ["digits/package"]


def test_the_place_of_the_code_is_given_where_it_is_known(packaged: Bundle):
    """Without a repository's address there is no such facet, rather than a made up one."""
    plain = [e["job"]["facets"] for e in events(packaged)]
    placed = events(packaged, repository="https://example.org/penstock/")[1]["job"]["facets"]

    assert all("sourceCodeLocation" not in facets for facets in plain)
    where = placed["sourceCodeLocation"]
    assert where["url"] == f"https://example.org/penstock/tree/{COMMIT}/penstock/features"
    assert where["version"] == COMMIT
    assert plain[1]["sourceCode"]["sourceCode"] == "penstock features --workload digits"
