"""Pipelines and their versions on a server: named by content, uploaded once."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api as api
import yaml

from pipelines.submission.service import Service

LOCAL = "local"
"""In place of a revision where the sources have none, or are not what it says."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A pipeline's version on a server."""

    pipeline_id: str
    version_id: str
    name: str
    uploaded: bool


def version_name(text: str, revision: str) -> str:
    """Return the name of a compiled pipeline: the same bytes at the same revision, the same name.

    >>> version_name("pipelineInfo: {}", "3f2a1c9")
    '3f2a1c9-48b5bd5e3c8d'
    """
    return f"{revision}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def git_revision(folder: Path) -> str:
    """Return the commit that a folder's sources are, or ``local`` where they are no commit's."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        # A tag's name may hold anything; what follows takes the commit alone.
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return LOCAL
    said = done.stdout.strip()
    return said if done.returncode == 0 and re.fullmatch("[0-9a-f]{7,40}", said) else LOCAL


def uncached(text: str) -> str:
    """Return a compiled pipeline none of whose steps is answered from Kubeflow's cache.

    A run of a version cannot say so itself: ``enable_caching`` has no effect on it.
    """
    documents = list(yaml.load_all(text, Loader=LOADER))
    for document in documents:
        _uncache(document)
    return yaml.dump_all(documents, Dumper=_Plain, sort_keys=True, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """Writes values out where they are: the server refuses aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _uncache(part: Any) -> None:
    if isinstance(part, dict):
        if isinstance(part.get("dag"), dict):
            for task in part["dag"].get("tasks", {}).values():
                task["cachingOptions"] = {}
        for value in part.values():
            _uncache(value)


def name_of(text: str) -> str:
    """Return the pipeline's name."""
    documents = yaml.load_all(text, Loader=LOADER)
    return next(d["pipelineInfo"]["name"] for d in documents if d and "pipelineInfo" in d)


def equals(name: str, *, operation: str = "EQUALS") -> str:
    """Return the filter that lists take, for what people read as the name."""
    predicate = {"operation": operation, "key": "display_name", "string_value": name}
    return json.dumps({"predicates": [predicate]})


def ensured(
    service: Service, *, name: str, version: str, file: Path, namespace: str | None, about: str
) -> Version:
    """Return the version on the server, uploaded where it is not there.

    The pipeline is created empty: uploading it whole would make a first version that bears the
    pipeline's name.

    Raises:
        Ended: The server would not.
    """
    asked = _given(namespace=namespace)

    def pipeline() -> Any | None:
        listed = service.pipelines.pipeline_service_list_pipelines
        found = service.every(
            "list the pipelines", listed, "pipelines", filter=equals(name), **asked
        )
        return _named(found, name)

    wanted = api.V2beta1Pipeline(name=name, display_name=name, description=about, **asked)
    there, _ = service.settled(
        "make the pipeline",
        pipeline,
        service.pipelines.pipeline_service_create_pipeline,
        wanted,
    )

    def uploaded() -> Any | None:
        listed = service.pipelines.pipeline_service_list_pipeline_versions
        found = service.every(
            "list the versions",
            listed,
            "pipeline_versions",
            pipeline_id=there.pipeline_id,
            filter=equals(version),
        )
        return _named(found, version)

    held, made = service.settled(
        "upload the version",
        uploaded,
        service.uploads.upload_pipeline_version,
        str(file),
        name=version,
        pipelineid=there.pipeline_id,
    )
    return Version(
        pipeline_id=there.pipeline_id,
        version_id=held.pipeline_version_id,
        name=version,
        uploaded=made,
    )


def experiment(service: Service, name: str, namespace: str | None) -> str:
    """Return the id of an experiment, created where there is none of the name."""
    asked = _given(namespace=namespace)

    def there() -> Any | None:
        listed = service.experiments.experiment_service_list_experiments
        found = service.every(
            "list the experiments", listed, "experiments", filter=equals(name), **asked
        )
        return _named(found, name)

    found, _ = service.settled(
        "make the experiment",
        there,
        service.experiments.experiment_service_create_experiment,
        api.V2beta1Experiment(display_name=name, **asked),
    )
    return found.experiment_id


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _named(found: list[Any], name: str) -> Any | None:
    """Return the one of a name; a server that knows no filter lists others too."""
    return next((one for one in found if one.display_name == name), None)
