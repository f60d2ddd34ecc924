"""The clusters' published schemas, where they are; they are no part of this repository.

Their folder is ``crds`` of what ``PENSTOCK_SHARED_SHELF`` names, or of ``shared`` beside the
repository, and ``tools/crd_validate.py`` there checks as an API server does with
``fieldValidation=Strict``. Rules in CEL are checked where ``celpy`` is installed.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

SHARED = Path(os.environ.get("PENSTOCK_SHARED_SHELF") or Path(__file__).parents[4] / "shared")
TOOL = SHARED / "tools" / "crd_validate.py"
GLOBS = (
    "gateway-api-v1.6.1/*.yaml",
    "istio/*.yaml",
    "knative-v1.23.0/*.yaml",
    "kserve-v0.20.0/inferenceservices.yaml",
)
LACKING = "no published schemas here: name their folder in PENSTOCK_SHARED_SHELF"

Object = dict[str, Any]


@cache
def tool() -> ModuleType | None:
    """Return the checker, None where it is not there."""
    if not TOOL.exists():
        return None
    described = importlib.util.spec_from_file_location("crd_validate", TOOL)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


@cache
def schemas() -> dict[tuple[str, str], Any]:
    """Return every schema, by version and kind."""
    files = [f for glob in GLOBS for f in sorted((SHARED / "crds").glob(glob))]
    return {
        (f"{spec['group']}/{version['name']}", spec["names"]["kind"]): version["schema"][
            "openAPIV3Schema"
        ]
        for file in files
        for document in yaml.load_all(file.read_text(), yaml.CSafeLoader)
        if document and document["kind"] == "CustomResourceDefinition"
        for spec in [document["spec"]]
        for version in spec["versions"]
        if version["served"]
    }


@cache
def _validator(version: str, kind: str) -> Draft202012Validator:
    schema = tool().conv(copy.deepcopy(schemas()[version, kind]))
    plain = {"type": "object"}
    schema.setdefault("properties", {}).update(
        apiVersion={"type": "string"}, kind={"type": "string"}, metadata=plain
    )
    return Draft202012Validator(schema)


def with_defaults(found: Object) -> Object:
    """Return an object with the defaults of its schema."""
    key = (found["apiVersion"], found["kind"])
    if key not in schemas():
        return found
    return tool().defaults(schemas()[key], copy.deepcopy(found))


def wrong(found: Object) -> list[str]:
    """Return what its schema says against an object, without rules in CEL."""
    key = (found["apiVersion"], found["kind"])
    if key not in schemas():
        return []
    errors = [
        f"{'.'.join(map(str, e.absolute_path))}: {e.message[:160]}"
        for e in _validator(*key).iter_errors(found)
    ]
    listed: list[tuple[str, str]] = []
    tool().listkeys(schemas()[key], found, "", listed)
    return errors + [f"{at}: {why}" for at, why in listed]


def broken_rules(found: Object) -> list[str]:
    """Return which of its schema's rules in CEL an object breaks."""
    if importlib.util.find_spec("celpy") is None:
        pytest.skip("no cel-python here: pip install cel-python")
    key = (found["apiVersion"], found["kind"])
    broken: list[tuple[str, str]] = []
    unknown: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tool().cel(schemas()[key], with_defaults(found), "", broken, unknown)
    assert unknown == [], "a rule that was not evaluated is no pass"
    return [f"{at}: {why}" for at, why in broken]


def need() -> None:
    """Skip a test where the schemas are not there."""
    if tool() is None:
        pytest.skip(LACKING)
