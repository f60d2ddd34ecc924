"""OpenLineage: a version's stages as run events, for catalogues that read that standard.

Events follow the specification's object model 2-0-2. A stage's run is named by its fingerprint, so
that exporting twice, or from two versions that share a stage, tells of the same run. A bundle says
when it was begun and not when it was done, so both events of a run carry that time.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from penstock.bundle import Bundle

NAMESPACE = "penstock"
"""Of jobs and data sets."""

PRODUCER = "urn:penstock:register"
"""Which program made the events; a URI, and no address that anybody has to answer."""

SPEC = "https://openlineage.io/spec"
RUN_EVENT = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"

FACETS = {
    "schema": "1-1-1/SchemaDatasetFacet",
    "dataSource": "1-0-1/DatasourceDatasetFacet",
    "documentation": "1-0-1/DocumentationDatasetFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
    "parent": "1-1-0/ParentRunFacet",
    "processing_engine": "1-1-1/ProcessingEngineRunFacet",
    "job documentation": "1-0-1/DocumentationJobFacet",
    "jobType": "2-0-3/JobTypeJobFacet",
    "sourceCode": "1-0-1/SourceCodeJobFacet",
    "sourceCodeLocation": "1-0-1/SourceCodeLocationJobFacet",
}
"""Version and name of each facet's schema."""

VERBS = {
    "snapshot": ("features", "What was known, when: the training snapshot."),
    "data-verdict": ("datachecks", "Whether the data are fit to train on."),
    "model": ("train", "The trained network, proved to repeat bit for bit."),
    "onnx": ("export", "The graph of the network."),
    "int8": ("quantize", "The graph in int8."),
    "engine": ("engine", "Engines built of the graph, and what the serving one costs."),
    "equivalence": ("equivalence", "Whether every form computes the same."),
    "gate": ("gate", "Whether the candidate is no worse than the champion."),
}
"""Stage and meaning of each kind of bundle."""


def run_id(fingerprint: str) -> str:
    """Return the id of the run that makes what has this fingerprint.

    >>> run_id("digits-5f1d36f38482") == run_id("digits-5f1d36f38482")
    True
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PRODUCER}/{fingerprint}"))


def events(package: Bundle, *, repository: str = "") -> list[dict[str, Any]]:
    """Return two events, START and COMPLETE, of every stage and of the registration around them.

    Args:
        repository: Address of the sources' repository on the web, ``https://…``; without one the
            jobs name the commit and no place of it.
    """
    lineage, profile = package.json("lineage.json"), package.json("profile.json")
    stages: Mapping[str, Any] = lineage["stages"]
    registered = _Job(lineage["workload"], "register", "Packaged, with its whole record.")
    parent = _parent(registered, package.fingerprint)
    begun = min(stage["created_at"] for stage in stages.values())
    outer = _event("START", begun, registered, package.fingerprint, lineage, {}, repository)
    found = [outer]
    order = list(VERBS)
    for stage in sorted(stages.values(), key=lambda s: (s["created_at"], order.index(s["kind"]))):
        verb, meaning = VERBS[stage["kind"]]
        job = _Job(lineage["workload"], verb, meaning)
        outputs = [_dataset(lineage, stage, profile)]
        inputs = [_input(lineage, name, made) for name, made in stage["inputs"].items()]
        for kind in ("START", "COMPLETE"):
            at = stage["created_at"]
            event = _event(kind, at, job, stage["fingerprint"], lineage, parent, repository)
            found.append({**event, "inputs": inputs, "outputs": outputs})
    done = package.manifest["created_at"]
    last = _event("COMPLETE", done, registered, package.fingerprint, lineage, {}, repository)
    taken = [_dataset(lineage, stage, profile) for stage in stages.values()]
    made = {
        "kind": "package", "fingerprint": package.fingerprint, "digest": package.digest,
        "line": package.summary.line,
    }  # fmt: skip
    return [*found, {**last, "inputs": taken, "outputs": [_dataset(lineage, made, profile)]}]


class _Job:
    """A stage of a workload."""

    def __init__(self, workload: str, verb: str, meaning: str) -> None:
        self.name, self.verb, self.meaning = f"{workload}.{verb}", verb, meaning


def _facet(facet: str, /, **fields: Any) -> dict[str, Any]:
    version, schema = FACETS[facet].split("/")
    url = f"{SPEC}/facets/{version}/{schema}.json#/$defs/{schema}"
    return {"_producer": PRODUCER, "_schemaURL": url, **fields}


def _parent(job: _Job, fingerprint: str) -> dict[str, Any]:
    run, named = {"runId": run_id(fingerprint)}, {"namespace": NAMESPACE, "name": job.name}
    return {"parent": _facet("parent", run=run, job=named)}


def _event(
    kind: str,
    at: str,
    job: _Job,
    fingerprint: str,
    lineage: Mapping[str, Any],
    run_facets: Mapping[str, Any],
    repository: str,
) -> dict[str, Any]:
    version = lineage["code"]["git"] or lineage["code"]["sources"]
    engine = _facet("processing_engine", name="penstock", version=version)
    return {
        "eventType": kind,
        "eventTime": at,
        "producer": PRODUCER,
        "schemaURL": RUN_EVENT,
        "run": {
            "runId": run_id(fingerprint),
            "facets": {**run_facets, "processing_engine": engine},
        },
        "job": {
            "namespace": NAMESPACE,
            "name": job.name,
            "facets": dict(_job_facets(job, lineage, repository)),
        },
        "inputs": [],
        "outputs": [],
    }


def _job_facets(
    job: _Job, lineage: Mapping[str, Any], repository: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    batch = {"processingType": "BATCH", "integration": "PENSTOCK", "jobType": "STAGE"}
    yield "jobType", _facet("jobType", **batch)
    yield "documentation", _facet("job documentation", description=job.meaning)
    command = f"penstock {job.verb} --workload {lineage['workload']}"
    yield "sourceCode", _facet("sourceCode", language="shell", sourceCode=command)
    commit, path = lineage["code"]["git"], f"penstock/{job.verb}"
    if repository and commit:
        bare = commit.partition("+")[0]
        yield (
            "sourceCodeLocation",
            _facet(
                "sourceCodeLocation",
                type="git",
                url=f"{repository.rstrip('/')}/tree/{bare}/{path}",
                repoUrl=repository,
                path=path,
                version=commit,
            ),
        )


def _input(lineage: Mapping[str, Any], name: str, fingerprint: str) -> dict[str, Any]:
    """Return an input: a bundle of this version, or another that only its name is known of."""
    kind = "int8" if name == "serving" and lineage["choices"]["serve"] == "int8" else name
    held = [s for s in lineage["stages"].values() if s["fingerprint"] == fingerprint]
    digest = held[0]["digest"] if held else fingerprint
    facets = {"version": _facet("version", datasetVersion=digest)}
    known = held[0]["kind"] if held else kind
    return {"namespace": NAMESPACE, "name": f"{lineage['workload']}/{known}", "facets": facets}


def _dataset(
    lineage: Mapping[str, Any], stage: Mapping[str, Any], profile: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a stage's bundle as a data set; a snapshot with its columns and its source."""
    kind = stage["kind"]
    said = stage.get("line") or VERBS[kind][1]
    facets = {
        "version": _facet("version", datasetVersion=stage["digest"]),
        "documentation": _facet("documentation", description=said),
    }
    if kind == "snapshot":
        fields = [{"name": n, "type": c["type"]} for n, c in profile["columns"].items()]
        source = lineage["feature_service"]
        uri = f"urn:penstock:feature-service:{source}"
        facets["schema"] = _facet("schema", fields=fields)
        facets["dataSource"] = _facet("dataSource", name=source, uri=uri)
    return {"namespace": NAMESPACE, "name": f"{lineage['workload']}/{kind}", "facets": facets}
