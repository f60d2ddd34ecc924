"""The overlays as kustomize renders them, and what their pods come to."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(
    KUBECTL is None, reason="no kubectl here; its kustomize is what renders the overlays"
)
# An id with the word would be taken for the mark of tests that need one.
overlays = pytest.mark.parametrize("overlay", ["laptop", pytest.param("gpu", id="large")])

Object = dict[str, Any]


@cache
def text_of(folder: Path) -> str:
    """Return what kustomize makes of a folder."""
    return render(folder)


def render(folder: Path) -> str:
    """Render a folder anew."""
    assert KUBECTL is not None
    done = subprocess.run(
        [KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def _parsed(folder: Path) -> list[Object]:
    return documents(text_of(folder))


def objects(overlay: str) -> list[Object]:
    """Return an overlay's objects, to do with as one likes."""
    return copy.deepcopy(_parsed(MANIFESTS / "overlays" / overlay))


def documents(text: str) -> list[Object]:
    """Return the objects of a file."""
    return [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]


def named(found: list[Object], kind: str, name: str, namespace: str | None = None) -> Object:
    """Return the one object of a kind and name."""
    (one,) = (
        o for o in of_kind(found, kind)
        if o["metadata"]["name"] == name and namespace in (None, o["metadata"].get("namespace"))
    )  # fmt: skip
    return one


def of_kind(found: list[Object], *kinds: str) -> list[Object]:
    """Return the objects of some kinds."""
    return [o for o in found if o["kind"] in kinds]


def said(found: Object) -> str:
    """Return how a sentence names an object."""
    metadata = found["metadata"]
    return f"{found['kind']} {metadata.get('namespace', '')}/{metadata['name']}".replace(" /", " ")


@dataclass(frozen=True, kw_only=True)
class Pods:
    """The pods that one object makes."""

    of: str
    namespace: str
    labels: dict[str, str]
    spec: Object
    lasting: bool
    """Whether they answer until they are told to end."""

    replicas: int

    @property
    def containers(self) -> list[Object]:
        """Those that run, and those that run before them."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def every(found: list[Object]) -> Iterator[Pods]:
    """Yield all pods, and for each runtime that no service of ours names, those of somebody's."""
    yield from pods(found)
    yield from pods([*of_kind(found, "ServingRuntime", "ClusterStorageContainer"), *_more(found)])


def pods(found: list[Object]) -> Iterator[Pods]:
    """Yield the pods of every object that makes some, as they will be."""
    for one in found:
        metadata, spec = one["metadata"], one.get("spec", {})
        if one["kind"] == "Deployment":
            template, lasting, replicas = spec["template"], True, spec["replicas"]
        elif one["kind"] == "CronJob":
            template, lasting, replicas = spec["jobTemplate"]["spec"]["template"], False, 1
        elif one["kind"] == "InferenceService":
            template, lasting, replicas = _slot(one, found), True, 2
        else:
            continue
        yield Pods(
            of=said(one),
            namespace=metadata["namespace"],
            labels=template["metadata"]["labels"],
            spec=template["spec"],
            lasting=lasting,
            replicas=replicas,
        )


def _more(found: list[Object]) -> Iterator[Object]:
    ours = of_kind(found, "InferenceService")
    named_by_ours = {o["spec"]["predictor"]["model"]["runtime"] for o in ours}
    for runtime in of_kind(found, "ServingRuntime"):
        name = runtime["metadata"]["name"]
        if name not in named_by_ours:
            text = json.dumps(ours[0]).replace(ours[0]["metadata"]["name"], name)
            made = json.loads(text)
            made["spec"]["predictor"]["model"] = {"runtime": name}
            yield made


def _slot(service: Object, found: list[Object]) -> Object:
    """Return a slot's pod, as KServe makes it of its runtime, its own spec, and what brings models.

    As its source does, by reading: arguments are put behind the runtime's, environments are one,
    everything else of the service's own takes the place of the runtime's.
    """
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    predictor = copy.deepcopy(service["spec"]["predictor"])
    model = predictor.pop("model")
    runtime = copy.deepcopy(named(found, "ServingRuntime", model["runtime"], namespace)["spec"])
    (container,) = runtime["containers"]
    own = {k: v for k, v in model.items() if k in _OWN}
    joined = {**container, **own, "args": [*container["args"], *model.get("args", [])]}
    brings = named(found, "ClusterStorageContainer", predictor.pop("storageContainerName"))
    labels = {
        **service["metadata"]["labels"],
        "app": f"isvc.{name}-predictor",
        "serving.kserve.io/inferenceservice": name,
    }
    spec = {
        **predictor,
        "containers": [joined],
        "initContainers": [copy.deepcopy(brings["spec"]["container"])],
        "volumes": runtime.get("volumes", []),
    }
    return {"metadata": {"labels": labels}, "spec": spec}


_OWN = ("startupProbe", "readinessProbe", "livenessProbe", "resources", "lifecycle", "image")
