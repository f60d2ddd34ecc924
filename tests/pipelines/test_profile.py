"""Laws of a deployment profile: what it says is what a step gets; what it cannot say is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.profile import (
    Claim,
    ConfigEnv,
    Profile,
    ProfileError,
    Scratch,
    SecretEnv,
    SecretMount,
    Settings,
    Toleration,
    cores,
    parsed,
    read,
)
from pipelines.steps import GROUPS, STEPS
from tests.pipelines import PROFILES

ROOT = PROFILES.parents[1]
HEAD = 'namespace = "penstock"\nservice_account = "penstock-pipeline"\n'
EMPTY = Settings()


def said(text: str) -> Profile:
    """Return the profile of a text below the head that every profile needs."""
    return parsed(HEAD + text, where="gpu.toml")


@pytest.mark.parametrize("file", sorted(PROFILES.glob("*.toml")), ids=lambda f: f.name)
def test_the_profiles_that_are_here_are_read(file: Any):
    """A person starts from them."""
    profile = read(file)

    assert profile.namespace == "penstock"
    assert profile.of("train").timeout_s


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("file", sorted(PROFILES.glob("*.toml")), ids=lambda f: f.name)
def test_no_step_asks_for_more_than_its_namespace_lets_it_have(file: Any, step: str):
    """Who names no limit has the namespace's, and a pod that asks for more is refused."""
    objects = yaml.safe_load_all((ROOT / "manifests" / "base" / "quota.yaml").read_text())
    (defaults,) = (
        one["spec"]["limits"][0]["default"]
        for one in objects
        if (one["kind"], one["metadata"]["namespace"]) == ("LimitRange", "penstock")
    )
    settings = read(file).of(step)

    assert settings.cpu
    assert settings.memory
    assert cores(settings.cpu) <= cores(settings.cpu_limit or defaults["cpu"])


REFUSED = {
    "unknown key": ('colour = "red"', "gpu.toml: unknown key 'colour'; known are namespace"),
    "unknown step": ("[steps.tran]", "gpu.toml: steps.tran: there is features, datachecks, train"),
    "unknown group": ('[images]\nserve = "a"', "images.serve: there is data, train"),
    "number as text": ('[every_step]\nretries = "2"', "every_step.retries: text came, a whole nu"),
    "truth as number": ("[every_step]\nretries = true", "a truth value came, a whole number was"),
    "fraction": ("[every_step]\ntimeout_s = 1.5", "a number with a point came, a whole number"),
    "table as list": ("[every_step]\ntolerations = {}", "a table came, a list was wanted"),
    "list as table": ("[every_step]\nenv = []", "every_step.env: a list came, a table was wanted"),
    "no time at all": ("[every_step]\ntimeout_s = 0", "0 came, 1 to 2592000 was wanted"),
    "amount": ('[steps.train]\nmemory = "2 GB"', "steps.train.memory: '2 GB' came, an amount su"),
    "no cores": ('[every_step]\ncpu = "0"', "every_step.cpu: '0' came, cores such as 2 or 500m"),
    "relative path": (
        '[[every_step.pvc]]\nclaim = "a"\npath = "data"',
        "every_step.pvc[0].path: 'data' came, a path that begins with /",
    ),
    "missing key": ('[[every_step.pvc]]\nclaim = "a"', "every_step.pvc[0]: 'path' is missing"),
    "variable": ('[every_step.env]\n"A B" = "c"', "'A B' came, the name of a variable was wanted"),
    "filled in by Argo": ('[every_step.env]\nA = "{{x}}"', "'{{x}}' came, text without {{"),
    "secret in git": ('[every_step.env]\nMLFLOW_TRACKING_TOKEN = "x"', "name it as secret_env"),
    "password in git": ('[every_step.env]\nA = "postgresql://u:p@db/x"', "holds a secret"),
    "taint": ('[[every_step.tolerations]]\nkey = "a"\nvalue = "b"', "say operator Equal"),
    "effect": ('[[every_step.tolerations]]\nkey = "a"\neffect = "Never"', "'Never' came, NoSched"),
    "image": ('[images]\ntrain = "Train Image"', "images.train: 'Train Image' came, an image su"),
    "root": ('pipeline_root = "https://x"', "pipeline_root: 'https://x' came, empty, s3://"),
    "variable twice": (
        '[every_step.env]\nA = "1"\n[[steps.train.config_env]]\nconfig="c"\nkey="k"\nenv="A"',
        "step train: variable 'A' is given twice",
    ),
    "variable of every step": (
        '[every_step.env]\nPENSTOCK_IMAGE = "mine"',
        "step features: variable 'PENSTOCK_IMAGE' is given twice",
    ),
    "run of every step": (
        '[every_step.env]\nPENSTOCK_RUN = "mine"',
        "step features: variable 'PENSTOCK_RUN' is given twice",
    ),
    "more cores than the most": (
        '[every_step]\ncpu_limit = "500m"\n[steps.train]\ncpu = "0.6"',
        "step train: cpu 0.6 came, at most its cpu_limit 500m was wanted",
    ),
    "path twice": (
        '[steps.train]\nshared_memory = "1Gi"\nscratch = [{ name = "a", path = "/dev/shm" }]',
        "step train: path '/dev/shm' is given twice",
    ),
    "volume twice": (
        '[every_step]\nscratch = [{ name = "a", path = "/a" }, { name = "a", path = "/b" }]',
        "volume 'a' is given twice",
    ),
    "retried on purpose": ("[steps.reject]\nretries = 1", "step reject fails to say why"),
    "no TOML": ("x", "gpu.toml is no TOML"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_a_profile_cannot_say_is_refused(text: str, reason: str):
    """Where, what came, what was wanted."""
    with pytest.raises(ProfileError, match=r"^gpu\.toml") as refused:
        said(text)

    assert reason in str(refused.value)


def test_a_profile_without_its_head_is_refused():
    """Where a pipeline runs, and as whom, has no default."""
    with pytest.raises(ProfileError, match="'service_account' is missing"):
        parsed('namespace = "penstock"', where="gpu.toml")


def test_a_step_gets_what_every_step_gets_and_its_own_over_it():
    """Values replace; tables and lists add."""
    step = said(
        """
[every_step]
timeout_s = 60
cpu = "1"
env = { A = "1", B = "1" }
tolerations = [{ key = "all" }]
[steps.train]
timeout_s = 90
env = { B = "2" }
tolerations = [{ key = "gpu" }]
"""
    ).of("train")

    assert (step.timeout_s, step.cpu, step.env) == (90, "1", {"A": "1", "B": "2"})
    assert [one.key for one in step.tolerations] == ["all", "gpu"]


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_acts_is_not_tried_again_unless_it_is_named(name: str):
    """Whatever every step gets."""
    every = said("[every_step]\nretries = 3")

    assert every.of(name).retries == (0 if STEPS[name].acts else 3)
    if STEPS[name].repeatable:
        assert said(f"[steps.{name}]\nretries = 1").of(name).retries == 1


WORDS = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
UPPER = st.from_regex(r"[A-Z][A-Z0-9]{0,8}", fullmatch=True)
PATHS = st.lists(WORDS, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
AMOUNTS = st.from_regex(r"[1-9][0-9]{0,3}(Mi|Gi)", fullmatch=True)
TEXTS = st.text(st.characters(min_codepoint=32, exclude_characters="{\x7f"), max_size=12)


def listed(kind: Any, **of: Any) -> Any:
    return st.lists(st.builds(kind, **of), max_size=2).map(tuple)


SETTINGS = st.builds(
    Settings,
    timeout_s=st.none() | st.integers(1, 86_400),
    retries=st.none() | st.integers(0, 10),
    cpu=st.none() | st.sampled_from(["1", "500m", "0.5", "16"]),
    memory=st.none() | AMOUNTS,
    gpus=st.none() | st.integers(0, 8),
    shared_memory=st.none() | AMOUNTS,
    env=st.dictionaries(UPPER, TEXTS.filter(lambda t: "://" not in t), max_size=2),
    node_selector=st.dictionaries(WORDS, WORDS, max_size=2),
    labels=st.dictionaries(WORDS, WORDS, max_size=2),
    tolerations=listed(Toleration, key=WORDS, effect=st.sampled_from(["", "NoSchedule"])),
    secret_env=listed(SecretEnv, secret=WORDS, key=WORDS, env=UPPER, optional=st.booleans()),
    secret_mount=listed(SecretMount, secret=WORDS, path=PATHS, optional=st.booleans()),
    config_env=listed(ConfigEnv, config=WORDS, key=WORDS, env=UPPER, optional=st.booleans()),
    pvc=listed(Claim, claim=WORDS, path=PATHS, sub_path=st.none() | WORDS),
    scratch=listed(Scratch, name=WORDS, path=PATHS, size=st.none() | AMOUNTS),
)


def toml(value: Any) -> str:
    """Return a value as TOML in one line; what is None is left out."""
    if is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        pairs = [f"{json.dumps(k)} = {toml(v)}" for k, v in value.items() if v is not None]
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def distinct(settings: Settings) -> bool:
    """Return whether nothing is given twice."""
    named = (settings.variables(), settings.mounts(), settings.volumes())
    return all(len(every) == len(set(every)) for every in map(list, named))


@given(SETTINGS.filter(distinct))
def test_what_is_written_is_what_is_read(settings: Settings):
    """Every kind of setting goes through a file and comes back as it was."""
    held = said(f"every_step = {toml(settings)}")

    assert held.every_step == settings
    assert held.of("train") == settings


@given(SETTINGS, SETTINGS, SETTINGS)
def test_settings_add_up_in_any_grouping(one: Settings, two: Settings, three: Settings):
    """Laying over is associative, and nothing is its neutral part."""
    assert one.over(EMPTY) == one == EMPTY.over(one)
    assert one.over(two).over(three) == one.over(two.over(three))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([f.name for f in fields(Settings)]), JSON)
def test_whatever_a_setting_holds_it_is_read_or_refused_with_its_place(name: str, held: Any):
    """No value of any kind ends in a traceback."""
    try:
        said(f"[every_step]\n{name} = {toml(tuple(held) if isinstance(held, list) else held)}")
    except ProfileError as e:
        refused = str(e)
    else:
        return
    assert refused.startswith("gpu.toml")


def test_every_group_that_a_step_runs_in_may_be_named():
    """A step whose image no profile can name could not be moved to a cluster."""
    assert {step.group for step in STEPS.values()} <= set(GROUPS)


def test_what_acts_or_looks_at_what_changes_is_never_cached():
    """Kubeflow's cache knows neither the champion, nor the traffic, nor the machine."""
    fresh = {name for name, step in STEPS.items() if not step.cached}

    assert fresh >= {name for name, step in STEPS.items() if step.acts}
    assert fresh >= {"engine", "gate", "monitor"}
