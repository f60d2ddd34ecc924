"""What a Kubeflow 2.17 server keeps and refuses, in its own words where they are known.

It stands in for a cluster, which is not here. Every request and every answer is held against the
published API (``conforming``); what it refuses is what the server's sources refuse.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from kfp_server_api import models

from tests.submit.conforming import Unpublished, conform

LARGEST = 10_000
NEVER, THEN = "1970-01-01T00:00:00Z", "2026-11-22T04:{:02d}:00Z"
KINDS = {
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": (int, float),
    "STRING": str,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}
UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Document = dict[str, Any]


class Said(Exception):
    """An error that the server answers with."""

    def __init__(self, status: int, message: str) -> None:
        """Answer with a status and a text."""
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Kubeflow:
    """One server's state."""

    multi_user: bool = False
    page: int = 2
    """At most so many of a list are on one page, whatever is asked for."""

    pipelines: list[Document] = field(default_factory=list)
    versions: list[Document] = field(default_factory=list)
    experiments: list[Document] = field(default_factory=list)
    runs: list[Document] = field(default_factory=list)
    schedules: list[Document] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    script: list[Callable[[Document], None]] = field(default_factory=list)
    """What happens to a run before each look at it; the last thing said stays."""

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        """Return what the server answers; the routes are those of the published API."""
        rest = path.removeprefix("/apis/v2beta1/")
        held = next(iter(UUID.findall(rest)), "")
        route = f"{method} {UUID.sub('*', rest)}"
        routes: dict[str, Callable[[], Any]] = {
            "GET healthz": lambda: self._typed(
                {"multi_user": self.multi_user}, "GetHealthzResponse"
            ),
            "GET pipelines": lambda: self._list("pipelines", self.pipelines, query),
            "POST pipelines": lambda: self._pipeline(body),
            "GET pipelines/*/versions": lambda: self._list(
                "pipeline_versions", self._of(held), query, spaced=False
            ),
            "POST pipelines/upload_version": lambda: self._version(query, body),
            "GET experiments": lambda: self._list("experiments", self.experiments, query),
            "POST experiments": lambda: self._experiment(body),
            "GET runs": lambda: self._list("runs", self._runs(query), query, spaced=False),
            "POST runs": lambda: self._run(body),
            "GET runs/*": lambda: self._look(held),
            "POST runs/*:terminate": lambda: self._terminate(held),
            "GET recurringruns": lambda: self._list("recurring_runs", self.schedules, query),
            "POST recurringruns": lambda: self._schedule(body),
            "POST recurringruns/*:disable": lambda: self._disable(held),
        }
        if route not in routes:
            raise Said(404, f"Not Found: {method} {path}")
        return routes[route]()

    def _typed(self, document: Document, kind: str) -> Document:
        conform(document, f"V2beta1{kind}")
        return document

    def _read(self, body: Any, kind: str) -> Document:
        try:
            conform(body, f"V2beta1{kind}")
        except (Unpublished, ValueError) as e:
            raise Said(400, f"proto: (line 1:2): {e}") from e
        return dict(body)

    def _spaced(self, namespace: str | None, what: str) -> None:
        if self.multi_user and not namespace:
            raise Said(400, "Invalid input error: Namespace is empty in multi-user mode")
        if not self.multi_user and namespace:
            raise Said(400, f"In single-user mode, {what} cannot filter by namespace")

    def _list(
        self, name: str, held: list[Document], query: dict[str, str], *, spaced: bool = True
    ) -> Document:
        unknown = query.keys() - {"page_size", "page_token", "filter", "namespace", "experiment_id"}
        if unknown:
            raise Said(400, f"unknown query parameter {min(unknown)}")
        if spaced:
            self._spaced(query.get("namespace"), f"List {name}")
            held = [one for one in held if one.get("namespace", "") == query.get("namespace", "")]
        found = [one for one in held if _matches(one, query.get("filter"))]
        token = query.get("page_token") or ""
        start = int(base64.b64decode(token)) if token else 0
        end = start + min(int(query.get("page_size") or 20), self.page)
        kind = f"List{''.join(part.title() for part in name.split('_'))}Response"
        names = getattr(models, f"V2beta1{kind}").attribute_map
        page: Document = {names[name]: found[start:end], "total_size": len(found)}
        if end < len(found):
            page["next_page_token"] = base64.b64encode(str(end).encode()).decode()
        return self._typed(page, kind)

    def _made(self, held: list[Document], document: Document, kind: str) -> Document:
        document["created_at"] = THEN.format(len(held))
        held.append(document)
        return self._typed(document, kind)

    def _pipeline(self, body: Any) -> Document:
        wanted = self._read(body, "Pipeline")
        self._spaced(wanted.get("namespace"), "CreatePipeline")
        name = wanted.get("name") or wanted.get("display_name")
        if any(one["name"] == name for one in self.pipelines):
            raise Said(409, f"Already exist error: The name {name} already exist")
        wanted |= {"pipeline_id": _id(), "name": name, "display_name": name}
        return self._made(self.pipelines, wanted, "Pipeline")

    def _of(self, pipeline_id: str) -> list[Document]:
        return [one for one in self.versions if one["pipeline_id"] == pipeline_id]

    def _version(self, query: dict[str, str], file: Any) -> Document:
        pipeline_id, name = query["pipelineid"], query["name"]
        if not any(one["pipeline_id"] == pipeline_id for one in self.pipelines):
            raise Said(400, "Failed to create a pipeline version")
        if any(one["name"] == name for one in self._of(pipeline_id)):
            raise Said(409, "Failed to create a pipeline version")
        spec, *platform = [d for d in yaml.safe_load_all(file) if d]
        whole = {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec
        made = {
            "pipeline_id": pipeline_id,
            "pipeline_version_id": _id(),
            "name": name,
            "display_name": name,
            "pipeline_spec": whole,
        }
        return self._made(self.versions, made, "PipelineVersion")

    def _experiment(self, body: Any) -> Document:
        wanted = self._read(body, "Experiment")
        self._spaced(wanted.get("namespace"), "CreateExperimentRequest")
        if any(one["display_name"] == wanted["display_name"] for one in self.experiments):
            raise Said(409, "Already exist error: experiment")
        wanted |= {"experiment_id": _id(), "storage_state": "AVAILABLE"}
        return self._made(self.experiments, wanted, "Experiment")

    def _runs(self, query: dict[str, str]) -> list[Document]:
        asked = query.get("experiment_id")
        return [one for one in self.runs if not asked or one["experiment_id"] == asked]

    def _referenced(self, wanted: Document) -> None:
        reference = wanted.get("pipeline_version_reference", {})
        held = [
            one
            for one in self._of(reference.get("pipeline_id", ""))
            if one["pipeline_version_id"] == reference.get("pipeline_version_id")
        ]
        if not held:
            raise Said(400, "Invalid input error: the pipeline version is not found")
        if not any(e["experiment_id"] == wanted.get("experiment_id") for e in self.experiments):
            raise Said(404, "experiment not found")
        spec = held[0]["pipeline_spec"]
        spec = spec.get("pipeline_spec", spec)
        arguments = wanted.get("runtime_config", {}).get("parameters", {})
        _take(spec["root"].get("inputDefinitions", {}).get("parameters", {}), arguments)

    def _run(self, body: Any) -> Document:
        wanted = self._read(body, "Run")
        if not wanted.get("display_name"):
            raise Said(500, "Run name cannot be empty")
        self._referenced(wanted)
        wanted |= {"run_id": _id(), "state": "PENDING", "storage_state": "AVAILABLE"}
        wanted["finished_at"] = NEVER
        return self._made(self.runs, wanted, "Run")

    def _found(self, run_id: str) -> Document:
        found = [one for one in self.runs if one["run_id"] == run_id]
        if not found:
            raise Said(404, f"run {run_id} not found")
        return found[0]

    def _look(self, run_id: str) -> Document:
        run = self._found(run_id)
        if self.script:
            happens = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            happens(run)
        return self._typed(run, "Run")

    def _terminate(self, run_id: str) -> Document:
        run = self._found(run_id)
        if run["state"] not in ("PENDING", "RUNNING"):
            raise Said(400, f"Failed to terminate a run {run['run_id']}: it is {run['state']}")
        run["state"] = "CANCELING"
        return {}

    def _schedule(self, body: Any) -> Document:
        wanted = self._read(body, "RecurringRun")
        self._referenced(wanted)
        if not 1 <= int(wanted.get("max_concurrency", 0)) <= 10:
            raise Said(400, "Max concurrency of a recurring run must be at least 1 and at most 10")
        if len(wanted["trigger"]["cron_schedule"]["cron"].split()) != 6:
            raise Said(400, "Schedule cron is not a supported format")
        on = wanted.get("mode") == "ENABLE"
        wanted |= {"recurring_run_id": _id(), "status": "ENABLED" if on else "DISABLED"}
        return self._made(self.schedules, wanted, "RecurringRun")

    def _disable(self, schedule_id: str) -> Document:
        found = [one for one in self.schedules if one["recurring_run_id"] == schedule_id]
        if not found:
            raise Said(404, "recurring run not found")
        found[0]["status"] = "DISABLED"
        return {}


def _id() -> str:
    return str(uuid.uuid4())


def _matches(one: Document, asked: str | None) -> bool:
    """Return whether a filter takes a thing; predicates that are not used here are refused."""
    if not asked:
        return True
    predicates = json.loads(asked)
    try:
        conform(predicates, "V2beta1Filter")
    except Unpublished as e:
        raise Said(400, f"Invalid input error: failed to parse the filter: {e}") from e
    return all(_holds(one, predicate) for predicate in predicates["predicates"])


def _holds(one: Document, predicate: Document) -> bool:
    value, wanted = one.get(predicate["key"]), predicate["string_value"]
    if value is None:
        raise Said(400, f"Invalid input error: no such field: {predicate['key']}")
    if predicate["operation"] == "IS_SUBSTRING":
        return wanted in value
    if predicate["operation"] != "EQUALS":
        raise Said(400, f"Invalid input error: {predicate['operation']}")
    return value == wanted


def _take(declared: Document, arguments: Document) -> None:
    if len(json.dumps(arguments)) > LARGEST:
        raise Said(400, f"The input parameter length exceed maximum size of {LARGEST}.")
    if extra := sorted(arguments.keys() - declared.keys()):
        raise Said(400, f"parameter(s) provided are not required by pipeline: {', '.join(extra)}")
    for name, said in declared.items():
        if name not in arguments:
            if "defaultValue" not in said and not said.get("isOptional"):
                text = "is not optional, yet has neither default value nor user provided value"
                raise Said(400, f"parameter {name} {text}")
            continue
        value = arguments[name]
        odd = isinstance(value, bool) and said["parameterType"] != "BOOLEAN"
        if odd or not isinstance(value, KINDS[said["parameterType"]]):
            raise Said(400, f"input parameter {name} requires type {said['parameterType']}")


def becomes(state: str, /, **steps: str) -> Callable[[Document], None]:
    """Return what happens to a run: its state, and those of its steps, as Argo's nodes.

    Of a step the server lists its driver, the step, and the executor below it, whose pod has the
    log; besides the steps the groups and the whole. No node says why it failed.
    """

    def happens(run: Document) -> None:
        run["state"] = state
        run["run_details"] = {"task_details": list(_nodes(run, steps))}

    return happens


def _nodes(run: Document, steps: dict[str, str]) -> Iterator[Document]:
    yield _node(run, "train-digits-x7k2", "RUNNING", "0", 0)
    yield _node(run, "root-driver", "SUCCEEDED", "1", 0)
    yield _node(run, "root", "RUNNING", "2", 0)
    yield _node(run, "condition-3-driver", "SUCCEEDED", "3", 0)
    yield _node(run, "condition-3", "SKIPPED", "4", 0)
    for i, (step, state) in enumerate(steps.items(), start=1):
        if step.endswith("_driver"):
            yield _node(run, step.replace("_", "-"), state, f"{i}01", i)
            continue
        yield _node(run, f"{step}-driver", "SUCCEEDED", f"{i}01", i)
        yield _node(run, step, state, f"{i}02", i, children=[f"wf-{i}03"])
        yield _node(run, "executor", state, f"{i}03", i)


def _node(
    run: Document,
    name: str,
    state: str,
    number: str,
    minute: int,
    children: list[str] | None = None,
) -> Document:
    over = state in ("SUCCEEDED", "FAILED")
    return {
        "run_id": run["run_id"],
        "task_id": _id(),
        "display_name": name,
        "create_time": THEN.format(0),
        "start_time": THEN.format(minute),
        "end_time": THEN.format(minute + 1) if over else "0001-01-01T00:00:00Z",
        "state": state,
        "execution_id": "0",
        "pod_name": f"wf-system-container-{number}",
        "child_tasks": [{"pod_name": child} for child in children or []],
    }
