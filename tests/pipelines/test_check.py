"""Laws of the check: a real compiled pipeline passes, and each thing a cluster refuses is found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import profile
from pipelines.check import (
    MAX_PARAMETER_BYTES,
    check,
    check_arguments,
    parameters,
    pods,
)
from pipelines.compiling import compile_to
from pipelines.ir import LARGEST
from tests.pipelines import PROFILES, pinned

Documents = list[Any]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the digits pipeline as it goes to a cluster with GPUs."""
    out = tmp_path_factory.mktemp("ir") / "pipeline.yaml"
    compile_to(out, workload="digits", profile=pinned(profile.read(PROFILES / "gpu.toml")))
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def documents(text: str) -> Documents:
    """Return its pipeline and its platform."""
    return list(yaml.safe_load_all(text))


def written(documents: Documents) -> str:
    return yaml.dump_all(documents, Dumper=yaml.CSafeDumper)


def at(*path: str) -> Callable[[Documents], Any]:
    """Return what finds a part of the pipeline's document."""

    def found(documents: Documents) -> Any:
        held = documents[0]
        for key in path:
            held = held[key]
        return held

    return found


TASKS = at("root", "dag", "tasks")
EXECUTORS = at("deploymentSpec", "executors")


def container(name: str, documents: Documents) -> Any:
    return EXECUTORS(documents)[f"exec-{name}"]["container"]


def on_kubernetes(documents: Documents) -> Any:
    return documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def looped(d: Documents) -> None:
    TASKS(d)["features"]["dependentTasks"] = ["datachecks"]


def nested(d: Documents) -> None:
    inner = at("components", "comp-condition-1", "dag", "tasks")(d)
    inner["again"] = {"componentRef": {"name": "comp-condition-1"}, "taskInfo": {"name": "again"}}


def condition(said: str, **channel: Any) -> Callable[[Documents], None]:
    """Return what gives the first branch another condition, and what it looks at."""

    def mutated(d: Documents) -> None:
        branch = TASKS(d)["condition-1"]
        branch["triggerPolicy"]["condition"] = said
        branch["inputs"]["parameters"]["pipelinechannel--asked"] = channel

    return mutated


ASKED = "inputs.parameter_values['pipelinechannel--asked']"


def imported(d: Documents) -> None:
    importer = {"importer": {"artifactUri": {"constant": "s3://a"}, "typeSchema": {}}}
    EXECUTORS(d)["exec-bring"] = importer
    d[0]["components"]["comp-bring"] = {"executorLabel": "exec-bring"}
    TASKS(d)["bring"] = {
        "componentRef": {"name": "comp-bring"},
        "taskInfo": {"name": "bring"},
        "triggerPolicy": {"condition": "true"},
    }


def ended_by(name: str, **caching: Any) -> Callable[[Documents], None]:
    """Return what makes a step one that runs whatever came of the steps before."""

    def mutated(d: Documents) -> None:
        task = TASKS(d)[name]
        task["triggerPolicy"] = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
        task["cachingOptions"] = caching

    return mutated


def put(found: Callable[[Documents], Any], key: str, value: Any) -> Callable[[Documents], None]:
    return lambda d: found(d).__setitem__(key, copy.deepcopy(value))


def cut(found: Callable[[Documents], Any], key: str) -> Callable[[Documents], None]:
    return lambda d: found(d).pop(key)


SOURCE = {"taskOutputArtifact": {"outputArtifactKey": "snapshot", "producerTask": "nobody"}}
BIG = {"defaultValue": "x" * MAX_PARAMETER_BYTES, "isOptional": True, "parameterType": "STRING"}
LOOP = {"itemInput": "snapshot", "items": {"inputArtifact": "snapshot"}}

MUTATIONS: dict[str, tuple[Callable[[Documents], Any], str]] = {
    "no pipeline": (lambda d: d.pop(0), "file: no pipeline in it"),
    "two pipelines": (lambda d: d.append(copy.deepcopy(d[0])), "file: 2 pipelines; leave one"),
    "two platforms": (lambda d: d.append(copy.deepcopy(d[1])), "file: 2 platforms; leave one"),
    "another document": (lambda d: d.append({"kind": "Pod"}), "file: a document of kind"),
    "a list": (lambda d: d.append([1]), "file: a document that is a list"),
    "unknown field": (put(at("root"), "colour", "red"), "pipeline: it cannot be read"),
    "wrong word": (
        put(at("root", "inputDefinitions", "parameters", "seed"), "parameterType", "NUMBER"),
        "pipeline: it cannot be read",
    ),
    "schema": (put(at(), "schemaVersion", "2.2.0"), "schemaVersion: '2.2.0' came"),
    "name": (put(at("pipelineInfo"), "name", "Train_digits"), "pipelineInfo.name: 'Train_digits'"),
    "reserved": (
        put(at("components"), "root", {"executorLabel": "exec-gate"}),
        "component root: the name is the pipeline's own",
    ),
    "large defaults": (
        put(at("root", "inputDefinitions", "parameters"), "config", BIG),
        "parameters: the defaults are 10,0",
    ),
    "executor's field": (
        lambda d: container("gate", d).__setitem__("colour", "red"),
        "executor exec-gate: it cannot be read",
    ),
    "custom job": (
        put(EXECUTORS, "exec-gate", {"customJob": {}}),
        "executor exec-gate: a custom_job in it",
    ),
    "no image": (lambda d: container("gate", d).pop("image"), "executor exec-gate: no image"),
    "not pinned": (
        lambda d: container("gate", d).__setitem__("image", "registry.example.com/gate:1"),
        "exec-gate: image 'registry.example.com/gate:1' has no digest",
    ),
    "pip": (
        lambda d: container("gate", d)["command"].append("python3 -m pip install kfp"),
        "executor exec-gate: it installs packages when it runs",
    ),
    "no executor": (cut(EXECUTORS, "exec-gate"), "component comp-gate: no executor 'exec-gate'"),
    "no component": (cut(at("components"), "comp-gate"), "gate: no component 'comp-gate'"),
    "no implementation": (
        cut(at("components", "comp-gate"), "executorLabel"),
        "component comp-gate: nothing in it",
    ),
    "artifact loop": (
        lambda d: TASKS(d)["train"].__setitem__("artifactIterator", LOOP),
        "train: it loops over artifacts",
    ),
    "unknown producer": (
        lambda d: TASKS(d)["train"]["inputs"]["artifacts"].__setitem__("snapshot", SOURCE),
        "train: it waits for 'nobody'",
    ),
    "unknown dependency": (
        lambda d: TASKS(d)["train"].__setitem__("dependentTasks", ["ghost"]),
        "train: it waits for 'ghost'",
    ),
    "unknown parameter": (
        lambda d: TASKS(d)["train"]["inputs"]["parameters"].__setitem__(
            "seed", {"componentInputParameter": "sead"}
        ),
        "train: its seed is 'sead', which there is not",
    ),
    "parameter not given": (
        lambda d: TASKS(d)["train"]["inputs"]["parameters"].pop("seed"),
        "train: its seed is not given",
    ),
    "wait for each other": (looped, "component root: datachecks → features wait for each other"),
    "hold each other": (nested, "components: comp-condition-1 hold each other"),
    "nothing runs first": (
        put(at("components", "comp-condition-2", "dag"), "tasks", {}),
        "component comp-condition-2: no task in it that runs first",
    ),
    "importer in a branch": (imported, "bring: a condition on an importer"),
    "exit step cached": (
        ended_by("gate", enableCache=True),
        "gate: a step that ends a run, and may be cached",
    ),
    "exit step awaited": (
        ended_by("equivalence"),
        "equivalence: condition-1 waits for it, and it becomes a hook",
    ),
    "side effect cached": (
        lambda d: TASKS(d)["gate"].__setitem__("cachingOptions", {"enableCache": True}),
        "gate: it acts, or looks at what no cache knows, and may be cached",
    ),
    "side effect in a branch cached": (
        lambda d: at("components", "comp-condition-1", "dag", "tasks")(d)["register"].__setitem__(
            "cachingOptions", {"enableCache": True}
        ),
        "comp-condition-1/register: it acts",
    ),
    "named output": (
        condition(
            f"{ASKED} == 'promote'",
            taskOutputParameter={"producerTask": "gate", "outputParameterKey": "decision"},
        ),
        "condition-1: its condition looks at 'decision' of gate",
    ),
    "free text": (
        condition(f"{ASKED} == 'promote'", componentInputParameter="champion"),
        "condition-1: its condition looks at champion, in which a person may write anything",
    ),
    "a sentence": (
        condition(f"{ASKED} == 'it is good'", componentInputParameter="seed"),
        "condition-1: its condition compares with 'it is good'",
    ),
    "nothing to look at": (
        condition("inputs.parameter_values['pipelinechannel--other'] == 'promote'"),
        "condition-1: its condition looks at 'pipelinechannel--other', which it is not given",
    ),
    "platform of nobody": (
        lambda d: on_kubernetes(d).__setitem__("exec-ghost", {}),
        "platform of exec-ghost: there is no such executor",
    ),
    "platform's field": (
        lambda d: on_kubernetes(d)["exec-gate"].__setitem__("tolerationz", []),
        "platform of exec-gate: it cannot be read",
    ),
    "another platform": (
        lambda d: d[1]["platforms"].__setitem__("nomad", {}),
        "platform nomad: a platform of which Kubeflow reads nothing",
    ),
    "too large": (
        put(at("pipelineInfo"), "description", "x" * LARGEST),
        "file: 95",
    ),
}


def test_a_real_pipeline_is_taken(text: str):
    """Compiled by kfp itself with all that a cluster heeds; none of the rules is about nothing."""
    assert check(text, pinned=True) == []


@pytest.mark.parametrize(("mutate", "said"), MUTATIONS.values(), ids=MUTATIONS)
def test_each_thing_that_a_cluster_refuses_is_found(
    documents: Documents, mutate: Callable[[Documents], Any], said: str
):
    """One change to a real pipeline, and the check says where, what, and what to do."""
    changed = copy.deepcopy(documents)
    mutate(changed)

    found = [str(problem) for problem in check(written(changed), pinned=True)]

    assert any(one.startswith(said) for one in found), found


def test_all_problems_are_said_at_once(documents: Documents):
    """Three changes, three problems."""
    changed = copy.deepcopy(documents)
    for name in ("name", "side effect cached", "not pinned"):
        MUTATIONS[name][0](changed)

    assert len(check(written(changed), pinned=True)) == 3
    assert len(check(written(changed), pinned=False)) == 2


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("", "no pipeline in it"),
        ("a: [", "no YAML"),
        ("a: 1\na: 2", "line 1: the key 'a' twice"),
        ("a: &x {}\nb: *x", "line 2: an alias"),
        ("[" * 100_000, "more than 100 levels"),
        ("{a: " * 100_000, "more than 100 levels"),
        ("pipelineInfo: {name: .nan}", "pipeline: it cannot be read"),
        ("pipelineInfo: {name: 2026-01-01}", "pipeline: it cannot be read"),
        ("? [1]\n: 2", "no YAML"),
        ("\0", "no YAML"),
    ],
)
def test_odd_text_is_a_problem_and_no_crash(odd: str, said: str):
    """Also what would drown a reader."""
    assert said in str(check(odd, pinned=False)[0])


YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


def places(held: Any) -> list[tuple[Any, Any]]:
    """Return every place of a document where something may be put: holder and key."""
    if isinstance(held, dict | list):
        keys = [*(held if isinstance(held, dict) else range(len(held)))]
        return [(held, key) for key in keys] + [p for key in keys for p in places(held[key])]
    return []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_put_into_a_pipeline_the_check_ends(documents: Documents, data: st.DataObject):
    """Anything, anywhere: it passes or has problems, and every problem says what to do."""
    changed = copy.deepcopy(documents)
    every = places(changed)
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = every[data.draw(st.integers(0, len(every) - 1))]
        if key in holder if isinstance(holder, dict) else key < len(holder):
            holder[key] = data.draw(YAML)

    for problem in check(written(changed), pinned=True):
        assert problem.where
        assert problem.what
        assert problem.do


@given(st.text(max_size=60))
def test_whatever_text_comes_the_check_ends(text: str):
    """It is refused: no text so short is a pipeline."""
    assert check(text, pinned=False)


def test_the_types_of_parameters_are_known(text: str):
    """By the words of the server's own schema."""
    assert parameters(text)["seed"] == "NUMBER_INTEGER"
    assert parameters(text)["data_version"] == "STRING"


ARGUMENTS = {
    "unknown": ({"sead": 1}, "parameter sead: there is champion, data_version"),
    "text for a number": ({"seed": "7"}, "parameter seed: '7' came, NUMBER_INTEGER was wanted"),
    "truth for a number": ({"seed": True}, "parameter seed: True came"),
    "fraction": ({"seed": 1.5}, "parameter seed: 1.5 came"),
    "number for text": ({"champion": 3}, "parameter champion: 3 came, STRING was wanted"),
    "nothing": ({"champion": None}, "parameter champion: None came"),
    "filled in": ({"champion": "{{$.inputs}}"}, "parameter champion: '{{$.inputs}}' holds {{"),
    "too much": ({"champion": "x" * MAX_PARAMETER_BYTES}, "parameters: 10,0"),
}


@pytest.mark.parametrize(("arguments", "said"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_each_argument_that_the_server_refuses_is_found(
    text: str, arguments: dict[str, Any], said: str
):
    """Before anything is sent."""
    (problem,) = check_arguments(text, arguments)

    assert str(problem).startswith(said)


def test_arguments_of_the_right_kind_are_taken(text: str):
    """All of them, or none: each has a default."""
    given = {"seed": 7, "champion": "s3://packages/digits/1", "rehearsal": "", "data_version": "a"}

    assert check_arguments(text, given) == []
    assert check_arguments(text, {}) == []


def test_an_argument_that_has_no_default_must_be_given(documents: Documents):
    """As the server says."""
    changed = copy.deepcopy(documents)
    wanted = {"parameterType": "STRING"}
    at("root", "inputDefinitions", "parameters")(changed)["reason"] = wanted

    (problem,) = check_arguments(written(changed), {})

    assert str(problem) == "parameter reason: it is not given and has no default; give it."


def test_pods_are_counted(text: str):
    """Eight steps before the branches, two branches of one step each, and the whole."""
    assert pods(text) == 2 * 8 + 2 * (1 + 2) + 1


def test_pods_of_what_cannot_be_read_are_not_counted():
    """An error says why, where a number would be a guess."""
    with pytest.raises(ValueError, match="no pipeline in it"):
        pods("")
