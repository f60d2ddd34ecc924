"""Read a compiled pipeline as strictly as Kubeflow's API server does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.message import Message
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2 as messages

LARGEST = 900_000
"""Bytes of a file: Kubernetes keeps it inside a Workflow, whose etcd takes about 1.5 MB with all
that the server adds for each task."""

DEEPEST = 100
"""Levels of a document; the messages' own readers give up at as many."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Problem:
    """What a cluster would refuse, or take in another way than this machine does."""

    where: str
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.do}."


@dataclass(kw_only=True)
class Compiled:
    """A compiled pipeline, as messages."""

    spec: Any = field(default_factory=messages.PipelineSpec)
    executors: dict[str, Any] = field(default_factory=dict[str, Any])
    on_kubernetes: dict[str, Any] = field(default_factory=dict[str, Any])
    """By executor; what only a cluster heeds of it."""

    def components(self) -> Iterator[tuple[str, Any]]:
        """Yield every component with its name, the pipeline itself as ``root``."""
        yield "root", self.spec.root
        yield from sorted(self.spec.components.items())

    def importer(self, component: Any) -> bool:
        """Return whether a component imports an artifact rather than making one."""
        executor = self.executors.get(component.executor_label)
        return executor is not None and executor.WhichOneof("spec") == "importer"


def compiled(text: str) -> tuple[Compiled, list[Problem]]:
    """Return what can be read of a file, and everything that cannot be."""
    found = Compiled()
    if len(text.encode()) > LARGEST:
        what = f"{len(text.encode()):,} bytes came, at most {LARGEST:,} go into a cluster"
        return found, [Problem("file", what, "compile fewer steps into one pipeline")]
    documents, problems = _documents(text)
    if problems:
        return found, problems
    pipelines = [d for d in documents if "pipelineInfo" in d]
    platforms = [d for d in documents if "platforms" in d and "pipelineInfo" not in d]
    for document in documents:
        if document not in pipelines and document not in platforms:
            what = f"a document of {', '.join(sorted(map(str, document))[:3])}"
            problems.append(Problem("file", what, "leave the pipeline and its platforms"))
    for what, several in (("pipelines", pipelines), ("platforms", platforms)):
        if len(several) > 1:
            problems.append(Problem("file", f"{len(several)} {what}", "leave one"))
    if not pipelines:
        problems.append(Problem("file", "no pipeline in it", "compile one: penstock compile"))
        return found, problems
    problems += _pipeline(pipelines[0], found)
    problems += _platform(platforms[0] if platforms else {}, found)
    return found, problems


def _documents(text: str) -> tuple[list[Mapping[str, Any]], list[Problem]]:
    try:
        problems = [*_odd(text)]
        if not problems:
            nodes = [node for node in yaml.compose_all(text, Loader=_LOADER) if node]
            problems = [p for node in nodes for p in _twice(node)]
        if problems:
            return [], problems
        documents = [d for d in yaml.load_all(text, Loader=_LOADER) if d is not None]
    except (yaml.YAMLError, ValueError) as e:
        said = " ".join(str(e).split())[:200]
        return [], [Problem("file", f"no YAML: {said}", "compile it again")]
    tables = [d for d in documents if isinstance(d, dict)]
    problems = [
        Problem("file", f"a document that is a {type(d).__name__}", "leave tables alone in it")
        for d in documents
        if not isinstance(d, dict)
    ]
    return tables, problems


def _odd(text: str) -> Iterator[Problem]:
    """Yield what no compiler writes, and what a reader may drown in: it is found without reading.

    Only the first of each is yielded.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            yield Problem(where, "an alias", "write its value out")
            return
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            yield Problem(where, f"more than {DEEPEST} levels", "compile it again")
            return


def _twice(node: yaml.Node) -> Iterator[Problem]:
    """Yield keys that a table has twice: the server's reader refuses them, others take the last."""
    if isinstance(node, yaml.SequenceNode):
        for one in node.value:
            yield from _twice(one)
    elif isinstance(node, yaml.MappingNode):
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in keys.items():
            if count > 1:
                where = f"line {node.start_mark.line + 1}"
                yield Problem(where, f"the key {key!r} twice", "leave one")
        for _, value in node.value:
            yield from _twice(value)


def _pipeline(document: Mapping[str, Any], found: Compiled) -> Iterator[Problem]:
    problem = _read(document, found.spec, "pipeline")
    if problem is not None:
        yield problem
        return
    deployment = json_format.MessageToDict(found.spec.deployment_spec)
    for label, said in sorted(_table(deployment.get("executors")).items()):
        executor = messages.PipelineDeploymentConfig.ExecutorSpec()
        if problem := _read(said, executor, f"executor {label}"):
            yield problem
        else:
            found.executors[label] = executor


def _platform(document: Mapping[str, Any], found: Compiled) -> Iterator[Problem]:
    if not document:
        return
    platforms = messages.PlatformSpec()
    if problem := _read(document, platforms, "platforms"):
        yield problem
        return
    for name in sorted(platforms.platforms):
        if name != "kubernetes":
            what = "a platform of which Kubeflow reads nothing"
            yield Problem(f"platform {name}", what, "leave kubernetes")
            continue
        executors = platforms.platforms[name].deployment_spec.executors
        for label in sorted(executors):
            config = KubernetesExecutorConfig()
            said = json_format.MessageToDict(executors[label])
            if problem := _read(said, config, f"platform of {label}"):
                yield problem
            else:
                found.on_kubernetes[label] = config


def _read(document: object, message: Message, where: str) -> Problem | None:
    """Fill a message from a document; return what kept it from being read."""
    try:
        json_format.Parse(json.dumps(document, allow_nan=False), message)
    except (json_format.ParseError, TypeError, ValueError, RecursionError) as e:
        said = " ".join(str(e).split())[:300].rstrip(".")
        return Problem(where, f"it cannot be read: {said}", "compile it again with kfp 2.17")
    return None


def _table(came: object) -> Mapping[str, Any]:
    return came if isinstance(came, dict) else {}
