"""What the published schemas of custom resources say of an object, with every rule in CEL."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from types import ModuleType
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tests.manifests.built import Object, said
from tests.rollout.adapters import published

FILES = {
    "InferenceService": "kserve-v0.20.0/inferenceservices.yaml",
    "ServingRuntime": "kserve-v0.20.0/servingruntimes.yaml",
    "ClusterStorageContainer": "kserve-v0.20.0/clusterstoragecontainers.yaml",
    "HTTPRoute": "gateway-api-v1.6.1/httproutes.standard.yaml",
    "EnvoyFilter": "istio/envoyfilters.yaml",
    "VirtualService": "istio/virtualservices.yaml",
    "DestinationRule": "istio/destinationrules.yaml",
}


def _tool() -> ModuleType:
    published.need()
    found = published.tool()
    assert found is not None
    return found


@cache
def _schema(kind: str, api: str) -> Any:
    text = (published.SHARED / "crds" / FILES[kind]).read_text(encoding="utf-8")
    (found,) = (
        version["schema"]["openAPIV3Schema"]
        for one in yaml.load_all(text, yaml.CSafeLoader)
        if one and one["spec"].get("names", {}).get("kind") == kind
        for version in one["spec"]["versions"]
        if version["served"] and f"{one['spec']['group']}/{version['name']}" == api
    )
    return found


@cache
def _validator(kind: str, api: str) -> Draft202012Validator:
    schema = _tool().conv(copy.deepcopy(_schema(kind, api)))
    plain = {"type": "object"}
    schema.setdefault("properties", {}).update(
        apiVersion={"type": "string"}, kind={"type": "string"}, metadata=plain
    )
    return Draft202012Validator(schema)


def wrong(one: Object) -> list[str]:
    """Return what is wrong with an object, as an API server with strict validation says it.

    A rule that could not be evaluated is no pass.
    """
    tool, at = _tool(), (one["kind"], one["apiVersion"])
    found = [
        (".".join(map(str, e.absolute_path)), e.message) for e in _validator(*at).iter_errors(one)
    ]
    tool.listkeys(_schema(*at), one, "", found)
    unknown: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full = tool.defaults(_schema(*at), copy.deepcopy(one))
        tool.cel(_schema(*at), full, "", found, unknown)
    found += [(path, f"not evaluated: {rule}: {why}") for path, rule, why in unknown]
    return [f"{said(one)} {path}: {why[:160]}" for path, why in found]
