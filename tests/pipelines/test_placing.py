"""Laws of placing: each word of a profile reaches its step, and without one nothing does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.images import image
from pipelines import profile
from pipelines.compiling import compile_to
from pipelines.ir import Compiled, compiled
from pipelines.steps import STEPS
from tests.pipelines import IMAGES, PROFILES, pinned

FULL = """
namespace = "penstock"
service_account = "penstock-pipeline"
pipeline_root = "s3://artifacts/penstock"
image_pull_policy = "Always"
image_pull_secrets = ["registry"]

[every_step]
timeout_s = 60
retries = 2
cpu = "500m"
cpu_limit = "2"
memory = "2Gi"

[steps.train]
gpus = 2
gpu_kind = "amd.com/gpu"
shared_memory = "3Gi"
env = { A = "1" }
node_selector = { pool = "gpu" }
labels = { team = "ml" }
annotations = { "example.com/why" = "trains it" }
tolerations = [{ key = "gpu", operator = "Equal", value = "yes", effect = "NoExecute" }]
secret_env = [{ secret = "s", key = "k", env = "B", optional = true }]
secret_mount = [{ secret = "m", path = "/etc/m" }]
config_env = [{ config = "c", key = "k", env = "C" }]
pvc = [{ claim = "d", path = "/data", sub_path = "digits" }]
scratch = [{ name = "e", path = "/scratch", size = "5Gi" }]
"""


def ir(folder: Path, given: profile.Profile | None) -> Compiled:
    compile_to(folder / "p.yaml", workload="digits", profile=given)
    made, problems = compiled((folder / "p.yaml").read_text(encoding="utf-8"))
    assert problems == []
    return made


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Return a pipeline compiled with a profile that says everything."""
    return ir(tmp_path_factory.mktemp("full"), pinned(profile.parsed(FULL, where="full.toml")))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Return a pipeline compiled for this machine."""
    return ir(tmp_path_factory.mktemp("plain"), None)


def tasks(made: Compiled) -> dict[str, Any]:
    """Return every task that is no group, by its name."""
    return {
        name: task
        for _, component in made.components()
        for name, task in component.dag.tasks.items()
        if name in STEPS
    }


def test_what_a_container_gets(full: Compiled):
    """Size, GPUs, plain variables and the image of its group."""
    container = full.executors["exec-train"].container
    said = container.resources

    assert container.image == IMAGES["train"]
    assert (said.resource_cpu_request, said.resource_cpu_limit) == ("500m", "2")
    assert (said.resource_memory_request, said.resource_memory_limit) == ("2Gi", "2Gi")
    assert said.accelerator.resource_type == "amd.com/gpu"
    assert said.accelerator.resource_count == "2"
    given = {one.name: one.value for one in container.env}
    assert given == {"A": "1", "PENSTOCK_IMAGE": IMAGES["train"]}


def test_what_a_pod_gets(full: Compiled):
    """Where it runs, what it is told, what it may read, and how long it may take."""
    pod = full.on_kubernetes["exec-train"]

    assert pod.active_deadline_seconds == 60
    assert (pod.image_pull_policy, pod.image_pull_secret[0].secret_name) == ("Always", "registry")
    assert dict(pod.node_selector.labels) == {"pool": "gpu"}
    (taint,) = pod.tolerations
    assert (taint.key, taint.operator, taint.value, taint.effect) == (
        "gpu",
        "Equal",
        "yes",
        "NoExecute",
    )
    assert dict(pod.pod_metadata.labels) == {"team": "ml"}
    assert dict(pod.pod_metadata.annotations) == {"example.com/why": "trains it"}
    (secret,), (config,) = pod.secret_as_env, pod.config_map_as_env
    assert (secret.secret_name, secret.key_to_env[0].env_var, secret.optional) == ("s", "B", True)
    assert (config.config_map_name, config.key_to_env[0].env_var) == ("c", "C")
    assert (config.optional, pod.secret_as_volume[0].optional) == (False, False)
    assert pod.secret_as_volume[0].mount_path == "/etc/m"
    (claim,) = pod.pvc_mount
    assert (claim.constant, claim.mount_path, claim.sub_path) == ("d", "/data", "digits")
    folders = [(m.mount_path, m.medium, m.size_limit) for m in pod.empty_dir_mounts]
    assert folders == [("/scratch", "", "5Gi"), ("/dev/shm", "Memory", "3Gi")]
    assert [(e.name, e.field_path) for e in pod.field_path_as_env] == [
        ("PENSTOCK_RUN", "metadata.labels['pipeline/runid']")
    ]


def test_every_step_is_nobody_in_particular(full: Compiled):
    """Not root, whatever its image says."""
    assert full.on_kubernetes.keys() == full.executors.keys()
    for label, pod in full.on_kubernetes.items():
        who = pod.security_context
        found = (who.run_as_user, who.run_as_group, who.run_as_non_root)
        assert found == (65532, 65532, True), label


def test_artifacts_go_where_the_profile_says(full: Compiled, plain: Compiled):
    """The root is part of the file, and so of the version that is submitted."""
    assert full.spec.default_pipeline_root == "s3://artifacts/penstock"
    assert plain.spec.default_pipeline_root == ""


def test_retries_are_for_steps_that_do_not_act(full: Compiled):
    """Every step has two; those that act have none that are not their own."""
    tries = {name: task.retry_policy.max_retry_count for name, task in tasks(full).items()}

    assert tries == {name: 0 if STEPS[name].acts else 2 for name in tries}
    assert len(tries) == 10
    assert tasks(full)["train"].retry_policy.backoff_duration.seconds == 30


@pytest.mark.parametrize("which", ["full", "plain"])
def test_only_what_hangs_on_its_inputs_is_cached(which: str, request: pytest.FixtureRequest):
    """And people read a verb."""
    for name, task in tasks(request.getfixturevalue(which)).items():
        assert task.caching_options.enable_cache == STEPS[name].cached, name
        assert task.task_info.name == STEPS[name].verb


def test_the_version_of_the_data_is_in_the_key_of_what_reads_them(plain: Compiled):
    """Kubeflow's key has a step's parameters; no other step reads data from outside the run."""
    given = tasks(plain)["features"].inputs.parameters["data_version"]

    assert given.component_input_parameter == "data_version"
    outside = [n for n, t in tasks(plain).items() if STEPS[n].cached and not t.inputs.artifacts]
    assert outside == ["features"]


def test_without_a_profile_nothing_is_there_that_only_a_cluster_heeds(plain: Compiled):
    """The local run executes the file as it is, and says nothing of settings it ignores."""
    assert plain.on_kubernetes == {}
    for label, executor in plain.executors.items():
        container, name = executor.container, label.removeprefix("exec-")
        assert not container.env, label
        assert not container.HasField("resources"), label
        # Its tag is of the sources as they are when it is asked for.
        assert container.image.split(":")[0] == image(STEPS[name].group).split(":")[0], label
    assert not any(task.HasField("retry_policy") for task in tasks(plain).values())


def test_only_who_needs_a_secret_gets_it():
    """The ledger's address and the key that signs its entries are for few, not for every step."""
    for file in PROFILES.glob("*.toml"):
        held = profile.read(file)
        readers, signers = (
            {name for name in STEPS if secret in {one.secret for one in secrets(held.of(name))}}
            for secret in ("penstock-ledger", "penstock-actor")
        )
        assert readers == {"register", "monitor", "retrain"}, file
        assert signers == {"register", "retrain"}, file


def secrets(settings: profile.Settings) -> list[Any]:
    return [*settings.secret_env, *settings.secret_mount]
