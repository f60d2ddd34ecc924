"""Manifests: the files of one workload in a cluster, all from its place and its declaration.

A folder that a kustomize overlay takes as a component: slots, the controller's role, the place, and
the schedule by which it is watched. ``first.yaml`` lies beside it and is in nobody's overlay: it
creates the tables with everybody on slot a, once, and whoever applied it again later would take
users off the version that serves them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from penstock.rollout.adapters.first import first_objects
from penstock.rollout.adapters.granted import HOME, roles
from penstock.rollout.adapters.places import Where
from penstock.rollout.adapters.server import Object
from penstock.rollout.adapters.slots import services
from penstock.rollout.adapters.watched import schedule

KUSTOMIZATION = "kustomization.yaml"
FIRST = "first.yaml"

_ABOUT = "# Written by penstock manifests {name}; write it again rather than change it here.\n"
_ONCE = """\
# Applied once, by hand: everybody on slot a, no pod in a slot without a version. Whoever applies it
# again takes users off the version that serves them.
#   kubectl apply --server-side --field-manager=penstock-release -f first.yaml
"""


class _Plain(yaml.SafeDumper):
    """Writes every value where it stands: nobody should look an anchor up."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class's own signature
        return True


def _text(dumper: _Plain, data: str) -> yaml.ScalarNode:
    """A script is written as its lines, to be read."""
    style = "|" if "\n" in data else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Plain.add_representer(str, _text)


def files(where: Where, said: str, *, rules: bool) -> dict[str, str]:
    """Return the files of a workload's folder, by name.

    Args:
        said: Text of the file of places that ``where`` was read from.
        rules: Whether the kill switch goes to rules, which then are a slot of their own.
    """
    name = where.place.name
    about = _ABOUT.format(name=name)
    objects: Mapping[str, Iterable[Object]] = {
        "slots.yaml": services(where, rules=rules),
        "roles.yaml": roles(where, rules=rules),
        "watch.yaml": schedule(name, outcomes=where.outcomes),
    }
    kustomization = about + text([component(name, list(objects))])
    first = about + _ONCE + text(first_objects(where, rules=rules))
    return {
        KUSTOMIZATION: kustomization,
        **{file: about + text(made) for file, made in objects.items()},
        f"{name}.toml": said,
        FIRST: first,
    }


def component(name: str, resources: list[str]) -> Object:
    """Return the component that adds a workload to what the base brings."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "resources": resources,
        "configMapGenerator": [
            {
                "name": "penstock-places",
                "namespace": HOME,
                "behavior": "merge",
                "files": [f"{name}.toml"],
            }
        ],
    }


def text(objects: Iterable[Object]) -> str:
    """Return objects as documents of YAML, in the order in which they are given."""
    # What came from JSON's own values is written as such: no tuples, no subclasses of str.
    plain = json.loads(json.dumps(list(objects)))
    return yaml.dump_all(plain, Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True)


def place_text(name: str, place: Mapping[str, Any]) -> str:
    """Return a file of places with one workload's; numbers, text and lists of text.

    >>> print(place_text("digits", {"host": "a.example.com", "replicas": 2}), end="")
    [workloads.digits]
    host = "a.example.com"
    replicas = 2
    """
    lines = [f"{key} = {json.dumps(value)}" for key, value in place.items()]
    return "\n".join([f"[workloads.{name}]", *lines, ""])
