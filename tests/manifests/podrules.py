"""Rules of pods: what every pod of ours must be, whatever it does. Each returns what breaks it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

from tests.manifests.built import Object, Pods, every

DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
SECRET = re.compile(r"(?i)(password|passwd|secret|token|credential|access_key|_key\b)")
WITH_PASSWORD = re.compile(r"://[^/\s:]*:[^/\s@]+@")
RESOURCES = ("cpu", "memory", "ephemeral-storage")
LEAST_USER = 10_000
TOKENS = {"penstock-controller"}
"""Accounts whose pods ask the API server, and so get a token."""


def each_container(found: list[Object]) -> Iterator[tuple[str, Pods, Object]]:
    """Yield every container with its pods, and how a sentence names it."""
    for held in every(found):
        for container in held.containers:
            yield f"{held.of} {container['name']}", held, container


def privilege(found: list[Object]) -> Iterator[str]:
    """No privilege, none to be gained, no capability."""
    for at, _, container in each_container(found):
        said = container.get("securityContext", {})
        if said.get("privileged"):
            yield f"{at} is privileged"
        if said.get("allowPrivilegeEscalation") is not False:
            yield f"{at} may gain privileges"
        held = said.get("capabilities", {})
        if held.get("drop") != ["ALL"] or held.get("add"):
            yield f"{at} has capabilities"


def user(found: list[Object]) -> Iterator[str]:
    """A user of nobody's, by number, on a root that cannot be written, behind seccomp."""
    for at, held, container in each_container(found):
        said = {**held.spec.get("securityContext", {}), **container.get("securityContext", {})}
        if said.get("runAsNonRoot") is not True or said.get("runAsUser", 0) < LEAST_USER:
            yield f"{at} may be root, or a user of the machine's"
        if said.get("readOnlyRootFilesystem") is not True:
            yield f"{at} can write to its image"
        if said.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{at} has no seccomp profile"


def limits(found: list[Object]) -> Iterator[str]:
    """What it takes at least and at most; memory the same, since nobody gives it back."""
    for at, _, container in each_container(found):
        said = container.get("resources", {})
        least, most = said.get("requests", {}), said.get("limits", {})
        if missing := [n for n in RESOURCES if n not in least or n not in most]:
            yield f"{at} says nothing of {', '.join(missing)}"
        elif least["memory"] != most["memory"]:
            yield f"{at} may take more memory than it asked for"


def probes(found: list[Object]) -> Iterator[str]:
    """What lasts says when it has started, is ready, lives; and lives without its model."""
    for held in every(found):
        for container in held.spec["containers"] if held.lasting else []:
            at = f"{held.of} {container['name']}"
            kinds = ("startupProbe", "readinessProbe", "livenessProbe")
            for missing in [kind for kind in kinds if kind not in container]:
                yield f"{at} has no {missing}"
            live, ready = (
                container.get(kind, {}).get("httpGet", {}).get("path")
                for kind in ("livenessProbe", "readinessProbe")
            )
            if live is not None and (live == ready or "/models/" in live):
                yield f"{at} is ended where its model does not answer"


def images(found: list[Object]) -> Iterator[str]:
    """Each by its digest: no tag, which may be another image tomorrow."""
    for at, _, container in each_container(found):
        if not DIGEST.fullmatch(container.get("image", "")):
            yield f"{at} runs {container.get('image')!r}, which is no digest"


def host(found: list[Object]) -> Iterator[str]:
    """Nothing of the machine's: no namespaces, no folders, no ports."""
    for held in every(found):
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if held.spec.get(name):
                yield f"{held.of} has {name}"
        for volume in held.spec.get("volumes", []):
            if "hostPath" in volume:
                yield f"{held.of} mounts {volume['hostPath']['path']} of the machine"
    for at, _, container in each_container(found):
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{at} takes a port of the machine"


def literals(found: list[Object]) -> Iterator[str]:
    """No secret is written in a variable or on a command line; a path to its file may be."""
    for at, _, container in each_container(found):
        for one in container.get("env", []):
            value = str(one.get("value", ""))
            secret = SECRET.search(one["name"]) and not value.startswith("/")
            if value and (secret or WITH_PASSWORD.search(value)):
                yield f"{at} has a secret in {one['name']}"
        for word in [*container.get("command", []), *container.get("args", [])]:
            if WITH_PASSWORD.search(word):
                yield f"{at} has a secret on its command line"


def accounts(found: list[Object]) -> Iterator[str]:
    """An account of its own, and a token only where one is needed."""
    for held in every(found):
        name = held.spec.get("serviceAccountName", "default")
        if name == "default":
            yield f"{held.of} has the account that everybody has"
        if held.spec.get("automountServiceAccountToken") is not (name in TOKENS):
            yield f"{held.of} has a token of {name}'s and needs none, or lacks one"


def ends(found: list[Object]) -> Iterator[str]:
    """Who is asked by a gateway waits until nobody is sent there, and then has time to finish."""
    for held in every(found):
        grace = held.spec.get("terminationGracePeriodSeconds", 30)
        for container in held.spec["containers"] if held.namespace == "models" else []:
            stop: Object = container.get("lifecycle", {}).get("preStop", {}).get("exec", {})
            command = cast("list[str]", stop.get("command", ["sleep", "0"]))
            waits = int(command[-1])
            if not 5 <= waits <= grace - 20:
                yield f"{held.of} waits {waits} s of {grace} before it ends"


def folders(found: list[Object]) -> Iterator[str]:
    """What is mounted is there, what is there is mounted, and no empty folder fills a node."""
    for held in every(found):
        names = {volume["name"] for volume in held.spec.get("volumes", [])}
        mounted = {m["name"] for c in held.containers for m in c.get("volumeMounts", [])}
        if names != mounted:
            yield f"{held.of} mounts {sorted(mounted)} of {sorted(names)}"
        for volume in held.spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{held.of} may fill its node by volume {volume['name']}"


def labelled(found: list[Object]) -> Iterator[str]:
    """Every pod says what it is and that it is Penstock's, and is spread over machines."""
    for held in every(found):
        if held.labels.get("app.kubernetes.io/part-of") != "penstock":
            yield f"{held.of} does not say that it is Penstock's"
        if "app.kubernetes.io/name" not in held.labels:
            yield f"{held.of} does not say what it is"
        spread = held.spec.get("topologySpreadConstraints", [])
        if held.lasting and not spread:
            yield f"{held.of} may have all of its pods on one machine"
        for one in spread:
            if not one["labelSelector"]["matchLabels"].items() <= held.labels.items():
                yield f"{held.of} is spread by the labels of others"
        if "priorityClassName" not in held.spec:
            yield f"{held.of} says nothing of what it may take the place of"


RULES = (
    privilege, user, limits, probes, images, host, literals, accounts, ends, folders, labelled,
)  # fmt: skip
