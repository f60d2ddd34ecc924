"""What the manifests start is there and takes what they say; what they probe is answered."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from penstock.cli import main
from penstock.register.triton import IMAGE
from penstock.register.tritonconfig import Model, Platform, Tensor
from penstock.register.tritonstart import write_start
from penstock.rollout.adapters.watched import command
from penstock.workload import load
from pipelines import profile
from serving.predictor import arguments
from tests.manifests.built import MANIFESTS as FOLDER
from tests.manifests.built import (
    ROOT,
    Pods,
    documents,
    named,
    needs_kubectl,
    objects,
    of_kind,
    overlays,
    pods,
)

VALUES = {
    "PENSTOCK_VERSION": "3",
    "PENSTOCK_DIGEST": "sha256:" + "1" * 64,
    "PENSTOCK_KFP_HOST": "http://ml-pipeline.kubeflow.svc:8888",
    "PENSTOCK_PROFILE": "/app/pipelines/profiles/gpu.toml",
    "JOB": "penstock-watch-digits-29384",
}
"""Of the variables that a pod's environment has when it starts."""


def filled(words: list[str], container: dict[str, Any]) -> list[str]:
    """Return a command line as the kubelet gives it: variables of this container replaced."""
    known = {one["name"] for one in container["env"]}

    def value(found: re.Match[str]) -> str:
        assert found[1] in known, f"$({found[1]}) is no variable of the container"
        return VALUES[found[1]]

    return [re.sub(r"\$\(([A-Z_]+)\)", value, word) for word in words]


def parsed(words: list[str]) -> dict[str, Any]:
    """Return what ``penstock`` makes of a command line; it is not run."""
    group: Any = typer.main.get_command(main.app)
    program, verb, *rest = words
    assert program == "penstock"
    return group.commands[verb].make_context(verb, rest).params


def of_workload(found: list[dict[str, Any]], name: str) -> list[Pods]:
    """Return the pods that serve a workload."""
    wanted = {"penstock.io/workload": name}.items()
    return [p for p in pods(found) if p.lasting and wanted <= p.labels.items()]


@needs_kubectl
@overlays
def test_the_controller_is_started_as_it_wants(overlay: str):
    """Options that it has; ports and folders of the probes, the mounts and the option are one."""
    found = objects(overlay)
    pod = named(found, "Deployment", "penstock-controller")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    said = parsed([*container["command"], *container["args"]])

    assert not said["workloads"], "every place that there is"
    assert said["listen"].split(":") == ["0.0.0.0", str(container["ports"][0]["containerPort"])]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert str(said["places"]) == mounts["places"]
    files = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    assert files["PENSTOCK_KEY"].startswith(mounts["actor"] + "/")
    assert files["PENSTOCK_SALT"].startswith(mounts["salt"] + "/")
    assert files["PENSTOCK_HOME"] == mounts["home"]


@pytest.mark.parametrize("name", ["digits", "streamrec", "credit"])
def test_a_watch_is_submitted_as_it_can_be(name: str):
    (job,) = documents((FOLDER / "workloads" / name / "watch.yaml").read_text(encoding="utf-8"))
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]

    said = parsed(filled(container["command"], container))

    assert container["command"] == command(name)
    assert (said["workload"], str(said["pipeline"])) == (name, "watch")
    mounts = [m["mountPath"] for m in container["volumeMounts"]]
    assert str(said["token_file"].parent) in mounts


@needs_kubectl
@overlays
def test_a_watch_runs_its_steps_with_what_they_need(overlay: str):
    """The profile is a file of the image; it names what there is, and what each step reads."""
    found = objects(overlay)
    values = named(found, "ConfigMap", "penstock", "penstock")["data"]
    (file,) = {ROOT / values["profile"].removeprefix("/app/")}
    (job, *_) = of_kind(found, "CronJob")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]

    given = profile.read(file)

    env = {one["name"]: one.get("valueFrom") for one in container["env"]}
    assert env["PENSTOCK_PROFILE"] == {"configMapKeyRef": {"name": "penstock", "key": "profile"}}
    assert "--profile=$(PENSTOCK_PROFILE)" in container["command"]
    named(found, "ServiceAccount", given.service_account, given.namespace)
    for step in ("monitor", "retrain", "register"):
        assert "PENSTOCK_LEDGER" in {one.env for one in given.of(step).secret_env}
    for step in ("monitor", "gate", "register"):
        settings = given.of(step)
        there = {one.env for one in (*settings.secret_env, *settings.config_env)}
        assert there >= {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_a_misspelt_option_is_found():
    with pytest.raises(Exception, match="No such option"):
        parsed(["penstock", "controller", "--place=x"])


@needs_kubectl
@overlays
@pytest.mark.parametrize("name", ["digits", "streamrec", "credit"])
def test_a_slot_is_started_as_the_server_wants(overlay: str, name: str):
    """It listens where it is asked, by its own name, and writes where it may."""
    found = objects(overlay)
    slots = of_workload(found, name)
    for held in slots:
        (container,) = held.spec["containers"]
        assert container["command"] == ["python", "-m", "serving.predictor"]
        given = arguments(filled(container["args"], container))
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        assert (given.host, given.port) == ("0.0.0.0", ports["http1"])
        assert given.metrics_port == ports["metrics"]
        assert given.slot == held.labels["penstock.io/slot"]
        assert given.rules_only is (given.slot == "rules")
        assert given.version == VALUES["PENSTOCK_VERSION"]
        assert given.digest == VALUES["PENSTOCK_DIGEST"]
        assert any(given.log.is_relative_to(m["mountPath"]) for m in container["volumeMounts"])
        assert given.runtime in ("onnxruntime", "tensorrt")
        for kind in ("startupProbe", "readinessProbe"):
            asked = container[kind]["httpGet"]
            assert asked == {"path": f"/v2/models/{given.model_name}/ready", "port": given.port}
        assert container["livenessProbe"]["httpGet"] == {"path": "/v2/health/live", "port": 8080}
    if slots:
        rules = ["rules"] if load(name).rollout.kill_to == "rules" else []
        assert sorted(p.labels["penstock.io/slot"] for p in slots) == ["a", "b", *rules]


@needs_kubectl
@overlays
def test_only_models_get_a_gpu(overlay: str):
    """TensorRT and a GPU come together; rules answer on a processor."""
    for held in pods(objects(overlay)):
        for container in held.spec["containers"]:
            on_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
            assert on_gpu is ("--runtime=tensorrt" in container.get("args", []))
            model = held.labels.get("penstock.io/answers-by") == "model"
            assert on_gpu is (model and overlay == "gpu")
            assert on_gpu is ("tolerations" in held.spec)


@needs_kubectl
def test_packages_are_brought_by_a_module_that_there_is():
    """KServe adds the address and the folder to what is said here."""
    brings = named(objects("laptop"), "ClusterStorageContainer", "penstock")["spec"]["container"]

    assert "args" not in brings
    python, flag, module = brings["command"]
    assert (python, flag) == ("python", "-m")
    assert importlib.util.find_spec(f"{module}.__main__") is not None


@needs_kubectl
def test_triton_is_started_as_its_repositories_say(tmp_path: Path):
    """The runtime here and the one beside a repository differ in the image and the model alone."""
    model = Model(
        name="digits",
        platform=Platform.PLAN,
        given=Tensor(name="x", dims=(64,)),
        made=Tensor(name="y", dims=(10,)),
        rows=64,
        endpoint=load("digits").endpoint,
        warmed_by=["golden-0.bin"],
        capabilities=("9.0",),
        gpu=True,
    )
    write_start(tmp_path, model, image="registry.example.com/nvidia/tritonserver:26.07-py3")
    theirs = yaml.safe_load((tmp_path / "runtime.yaml").read_text(encoding="utf-8"))["spec"]
    ours = named(objects("gpu"), "ServingRuntime", "penstock-triton")["spec"]
    asks_golden = theirs["containers"][0].pop("startupProbe")["exec"]["command"]
    theirs["containers"][0]["readinessProbe"]["httpGet"]["path"] = "/v2/health/ready"
    for held in (ours, theirs):
        held["containers"][0].pop("image")
        held.pop("annotations", None)
    ours["containers"][0].pop("startupProbe")

    assert ours == theirs
    assert asks_golden[1].endswith("/warmup/check.py")


def test_triton_is_the_one_that_plans_are_built_for():
    """The release that the repositories name is the one of the runtime, and of the image."""
    runtimes = documents((FOLDER / "base" / "runtimes.yaml").read_text(encoding="utf-8"))
    release = named(runtimes, "ServingRuntime", "penstock-triton")["metadata"]["annotations"][
        "penstock.io/triton"
    ]
    assert f":{release}-py3" in IMAGE
    for file in sorted(FOLDER.glob("overlays/*/values/images.env")):
        assert f"Triton {release}" in file.read_text(encoding="utf-8")
