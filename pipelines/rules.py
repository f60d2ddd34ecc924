"""What Kubeflow's server refuses of a pipeline, and what it takes otherwise than this machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType, PipelineTaskSpec

from pipelines.ir import Compiled, Problem
from pipelines.steps import STEPS

SCHEMA = "2.1.0"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")
MAX_PARAMETER_BYTES = 10_000
"""Of all parameters of a run, as JSON: the server's limit unless its administrator says."""

UNNAMED = "Output"
"""Key of the one output of a step that returns a plain value."""

_INSTALLS = re.compile(r"\bpip3?\s+install\b")
_CHANNEL = re.compile(r"inputs\.parameter_values\['([^']+)'\]")
_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'")
_WORD = re.compile(r"[\w.-]+", re.ASCII)
_EXIT = PipelineTaskSpec.TriggerPolicy.ALL_UPSTREAM_TASKS_COMPLETED

Rule = Callable[[Compiled], Iterator[Problem]]


def header(ir: Compiled) -> Iterator[Problem]:
    """Yield what is wrong with the pipeline as a whole."""
    if ir.spec.schema_version != SCHEMA:
        what = f"{ir.spec.schema_version!r} came, the server reads {SCHEMA} alone"
        yield Problem("schemaVersion", what, "compile with kfp 2.17")
    name = ir.spec.pipeline_info.name
    if not NAME.fullmatch(name):
        what = f"{name!r} came; lower case letters, digits and -, at most 63, were wanted"
        yield Problem("pipelineInfo.name", what, "name the pipeline so")
    if "root" in ir.spec.components:
        yield Problem("component root", "the name is the pipeline's own", "name it otherwise")
    size = sum(
        len(name) + len(json_format.MessageToJson(given.default_value, indent=None))
        for name, given in ir.spec.root.input_definitions.parameters.items()
    )
    if size > MAX_PARAMETER_BYTES:
        what = f"the defaults are {size:,} bytes, at most {MAX_PARAMETER_BYTES:,} are taken"
        yield Problem("parameters", what, "pass the address of a file in place of what it holds")


def executors(ir: Compiled) -> Iterator[Problem]:
    """Yield what is wrong with what runs a step."""
    for label, executor in sorted(ir.executors.items()):
        where, kind = f"executor {label}", executor.WhichOneof("spec")
        if kind not in ("container", "importer"):
            yield Problem(where, f"a {kind or 'nothing'} in it", "give it a container")
        if kind != "container":
            continue
        container = executor.container
        if not container.image:
            yield Problem(where, "no image", "name one")
        if any(map(_INSTALLS.search, (*container.command, *container.args))):
            what = "it installs packages when it runs"
            yield Problem(where, what, "put them into its image; packages_to_install stays empty")


def pinned(ir: Compiled) -> Iterator[Problem]:
    """Yield images that may be another tomorrow: Kubeflow's cache knows their name alone."""
    loose: dict[str, list[str]] = {}
    for label, executor in sorted(ir.executors.items()):
        image = executor.container.image
        if executor.WhichOneof("spec") == "container" and not PINNED.fullmatch(image):
            loose.setdefault(image, []).append(label)
    for image, labels in sorted(loose.items()):
        do = "name it as …@sha256:… in the profile's [images]"
        yield Problem(", ".join(labels), f"image {image!r} has no digest", do)


def platform(ir: Compiled) -> Iterator[Problem]:
    """Yield settings for a cluster that belong to no step, and are lost without a word."""
    for label in sorted(ir.on_kubernetes.keys() - ir.executors.keys()):
        yield Problem(f"platform of {label}", "there is no such executor", "compile it again")


def components(ir: Compiled) -> Iterator[Problem]:
    """Yield what is wrong with components, and with each of their tasks."""
    for name, component in ir.components():
        kind = component.WhichOneof("implementation")
        if kind is None:
            yield Problem(f"component {name}", "nothing in it", "compile it again")
        if kind == "executor_label" and component.executor_label not in ir.executors:
            what = f"no executor {component.executor_label!r}"
            yield Problem(f"component {name}", what, "compile it again")
        if kind != "dag":
            continue
        tasks = component.dag.tasks
        if all(task.trigger_policy.strategy == _EXIT for task in tasks.values()):
            yield Problem(f"component {name}", "no task in it that runs first", "give it one")
        for label, task in sorted(tasks.items()):
            where = f"{name}/{label}" if name != "root" else label
            yield from _task(ir, where, task, component)
        if loop := _loop(tasks):
            yield Problem(f"component {name}", f"{loop} wait for each other", "cut the circle")
    if loop := _nested(ir):
        yield Problem("components", f"{loop} hold each other", "cut the circle")


def _task(ir: Compiled, where: str, task: Any, parent: Any) -> Iterator[Problem]:
    called = task.component_ref.name
    if called not in ir.spec.components:
        yield Problem(where, f"no component {called!r}", "compile it again")
        return
    component = ir.spec.components[called]
    if task.WhichOneof("iterator") == "artifact_iterator":
        what = "it loops over artifacts, which runs here and is not implemented there"
        yield Problem(where, what, "loop inside the step")
    yield from _inputs(where, task, parent, component)
    yield from _trigger(ir, where, task, parent, component)
    yield from _cached(where, task, called)


def _inputs(where: str, task: Any, parent: Any, component: Any) -> Iterator[Problem]:
    tasks = parent.dag.tasks
    for producer in sorted({*_producers(task)} - tasks.keys()):
        yield Problem(
            where, f"it waits for {producer!r}, which is not beside it", "compile it again"
        )
    held = parent.input_definitions
    for kind, own, given in (
        ("parameter", held.parameters, task.inputs.parameters),
        ("artifact", held.artifacts, task.inputs.artifacts),
    ):
        for name, said in sorted(given.items()):
            taken = getattr(said, f"component_input_{kind}")
            if taken and taken not in own:
                what = f"its {name} is {taken!r}, which there is not"
                yield Problem(where, what, "compile it again")
    for name, wanted in sorted(component.input_definitions.parameters.items()):
        free = wanted.is_optional or wanted.HasField("default_value")
        if not free and name not in task.inputs.parameters and not task.WhichOneof("iterator"):
            yield Problem(where, f"its {name} is not given", "give it, or a default")


def _producers(task: Any) -> Iterator[str]:
    yield from task.dependent_tasks
    for given in (*task.inputs.parameters.values(), *task.inputs.artifacts.values()):
        for kind in ("task_output_parameter", "task_output_artifact"):
            if kind in given.DESCRIPTOR.fields_by_name and given.HasField(kind):
                yield getattr(given, kind).producer_task


def _trigger(ir: Compiled, where: str, task: Any, parent: Any, component: Any) -> Iterator[Problem]:
    condition = task.trigger_policy.condition
    if condition and ir.importer(component):
        yield Problem(where, "a condition on an importer", "put the importer before the condition")
    if task.trigger_policy.strategy == _EXIT:
        if task.caching_options.enable_cache:
            what = "a step that ends a run, and may be cached"
            yield Problem(where, what, "set_caching_options(False) on it")
        own = where.rsplit("/", 1)[-1]
        after = [n for n, t in sorted(parent.dag.tasks.items()) if own in _producers(t)]
        if after:
            what = f"{after[0]} waits for it, and it becomes a hook that nobody can wait for"
            yield Problem(where, what, "let it be the last")
    for channel in _CHANNEL.findall(condition):
        if channel in task.inputs.parameters:
            yield from _asked(where, task.inputs.parameters[channel], parent)
        else:
            what = f"its condition looks at {channel!r}, which it is not given"
            yield Problem(where, what, "compile it again")
    for literal in _LITERAL.findall(_CHANNEL.sub("", condition)):
        if not _WORD.fullmatch(literal):
            what = f"its condition compares with {literal!r}"
            yield Problem(where, what, "compare with a word: a quote inside skips both branches")


def _asked(where: str, given: Any, parent: Any) -> Iterator[Problem]:
    """Yield what is wrong with one value that a condition looks at."""
    made = given.task_output_parameter
    if made.producer_task and made.output_parameter_key != UNNAMED:
        what = f"its condition looks at {made.output_parameter_key!r} of {made.producer_task}"
        do = "return one unnamed value: a named one is skipped without a word on this machine"
        yield Problem(where, what, do)
    taken = given.component_input_parameter
    known = parent.input_definitions.parameters
    typed = taken in known and not taken.startswith("pipelinechannel--")
    if typed and known[taken].parameter_type == ParameterType.STRING:
        what = f"its condition looks at {taken}, in which a person may write anything"
        yield Problem(where, what, "let a step turn it into one of a few words")


def _cached(where: str, task: Any, called: str) -> Iterator[Problem]:
    name = re.sub(r"^comp-|-\d+$", "", called)
    if name in STEPS and not STEPS[name].cached and task.caching_options.enable_cache:
        what = "it acts, or looks at what no cache knows, and may be cached"
        yield Problem(where, what, "set_caching_options(False) on it")


def _loop(tasks: Any) -> str:
    """Return tasks of one level that wait for each other, as text; empty where none do."""
    graph = {name: {*_producers(task)} & tasks.keys() for name, task in tasks.items()}
    return _circle(graph)


def _nested(ir: Compiled) -> str:
    graph = {
        name: {task.component_ref.name for task in component.dag.tasks.values()}
        for name, component in ir.components()
    }
    return _circle(graph)


def _circle(graph: dict[str, set[str]]) -> str:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        return " → ".join(sorted(set(e.args[1])))
    return ""


RULES: tuple[Rule, ...] = (header, executors, components, platform)
"""All that hold whatever the pipeline is for."""
