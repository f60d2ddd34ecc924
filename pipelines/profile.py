"""Deployment profile: with what steps run on a cluster, read strictly from one file."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pipelines.reading import FORM, Form, Span, Unreadable, built
from pipelines.steps import GROUPS, STEPS

SHARED = "/dev/shm"  # noqa: S108 - where torch's worker processes share tensors, in any container

SHARED_VOLUME = "shared-memory"

_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
LABEL = Form(re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"), "a name such as penstock-train")
NAME = Form(re.compile(rf"(?=.{{1,253}}\Z){_PART}(\.{_PART})*"), "a name such as penstock-ledger")
KEY = Form(re.compile(r"[-._a-zA-Z0-9]{1,253}"), "a key of a secret or config map such as url")
VARIABLE = Form(re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "the name of a variable")
PATH = Form(re.compile(r"(/[^/:{}\0]+)+"), "a path that begins with / and does not end with it")
SUBPATH = Form(re.compile(r"[^/:{}\0]+(/[^/:{}\0]+)*"), "a path below a volume's root")
CPU = Form(re.compile(r"(?=.*[1-9])([0-9]+|[0-9]*\.[0-9]+|[0-9]+m)"), "cores such as 2 or 500m")
BYTES = Form(
    re.compile(r"[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|K|M|G|T)?"), "an amount such as 2Gi or 512Mi"
)
QUALIFIED = Form(
    re.compile(
        rf"((?=[^/]{{1,253}}/){_PART}(\.{_PART})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?"
    ),
    "a label's name such as pool or nvidia.com/gpu",
)
TEXT = re.compile(r"(?:(?!\{\{)[^\0])*", re.DOTALL)
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
LABELS = Form(VALUE, "a label's value: letters, digits, - _ and .", keys=QUALIFIED)
TAINT = Form(VALUE, "a taint's value: letters, digits, - _ and .")
NOTES = Form(TEXT, "text without {{, which Argo fills in", keys=QUALIFIED)
VARIABLES = Form(TEXT, "text without {{, which Kubeflow fills in", keys=VARIABLE)
IMAGE = Form(
    re.compile(r"[a-z0-9]([-a-z0-9._:/]*[a-z0-9])?(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?"),
    "an image such as registry.example.com/penstock-python-train@sha256:…",
)
ROOT = Form(re.compile(r"((s3|gs|minio)://[^\s{}]+)?"), "empty, s3://…, gs://… or minio://…")
POLICY = Form(re.compile("Always|IfNotPresent|Never"), "Always, IfNotPresent or Never")
OPERATOR = Form(re.compile("Exists|Equal"), "Exists or Equal")
EFFECT = Form(re.compile("NoSchedule|PreferNoSchedule|NoExecute|"), "NoSchedule or NoExecute")
MEDIUM = Form(re.compile("Memory|"), "Memory, or nothing for the node's disk")
DAY_S = 86_400

OWN = ("PENSTOCK_IMAGE", "PENSTOCK_RUN")
"""Variables that every step is given: a version says with them what made it."""

_SECRET = re.compile(r"(?i)(password|token|secret|secret_access_key|access_key_id)$")
_WITH_PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@")


class ProfileError(ValueError):
    """A profile says what cannot be: the file and the key, what came, what was wanted."""


def _said(form: Form | Span, **default: Any) -> Any:
    return field(metadata={FORM: form}, **default)


@dataclass(frozen=True, kw_only=True)
class SecretEnv:
    """A variable whose value is a secret's."""

    secret: str = _said(NAME)
    key: str = _said(KEY)
    env: str = _said(VARIABLE)
    optional: bool = False
    """The step starts where the secret does not exist, without the variable."""


@dataclass(frozen=True, kw_only=True)
class SecretMount:
    """A folder with a secret's keys as files."""

    secret: str = _said(LABEL)
    """Kubeflow names the volume after it, so it may hold no point."""

    path: str = _said(PATH)
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class ConfigEnv:
    """A variable whose value is a config map's."""

    config: str = _said(NAME)
    key: str = _said(KEY)
    env: str = _said(VARIABLE)
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A folder on a persistent volume claim, which must exist."""

    claim: str = _said(LABEL)
    path: str = _said(PATH)
    sub_path: str | None = _said(SUBPATH, default=None)


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """An empty folder that ends with its step."""

    name: str = _said(LABEL)
    path: str = _said(PATH)
    size: str | None = _said(BYTES, default=None)
    medium: str = _said(MEDIUM, default="")


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """A taint of nodes that a step does not mind."""

    key: str = _said(QUALIFIED)
    operator: str = _said(OPERATOR, default="Exists")
    value: str = _said(TAINT, default="")
    effect: str = _said(EFFECT, default="")

    def __post_init__(self) -> None:
        if self.operator == "Exists" and self.value:
            raise ValueError(
                f"operator Exists came with the value {self.value!r}; say operator Equal."
            )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one step is given; what is None, or not named, is what every step gets."""

    timeout_s: int | None = _said(Span(1, 30 * DAY_S), default=None)
    """Of one attempt; its pod is ended then."""

    retries: int | None = _said(Span(0, 10), default=None)
    cpu: str | None = _said(CPU, default=None)
    cpu_limit: str | None = _said(CPU, default=None)
    memory: str | None = _said(BYTES, default=None)
    """Asked for and the most it may take: memory cannot be taken back from a step."""

    gpus: int | None = _said(Span(0, 64), default=None)
    gpu_kind: str | None = _said(QUALIFIED, default=None)
    shared_memory: str | None = _said(BYTES, default=None)
    env: Mapping[str, str] = _said(VARIABLES, default_factory=dict)
    node_selector: Mapping[str, str] = _said(LABELS, default_factory=dict)
    labels: Mapping[str, str] = _said(LABELS, default_factory=dict)
    annotations: Mapping[str, str] = _said(NOTES, default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    secret_env: tuple[SecretEnv, ...] = ()
    secret_mount: tuple[SecretMount, ...] = ()
    config_env: tuple[ConfigEnv, ...] = ()
    pvc: tuple[Claim, ...] = ()
    scratch: tuple[Scratch, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.env.items():
            if _SECRET.search(name) or _WITH_PASSWORD.search(value):
                raise ValueError(
                    f"env {name!r} holds a secret; a profile is in git, name it as secret_env."
                )

    def over(self, every: Settings) -> Settings:
        """Return these with what every step gets: values replace, tables and lists add."""
        merged: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):
            mine, theirs = getattr(self, name), getattr(every, name)
            if isinstance(mine, Mapping):
                merged[name] = {**theirs, **mine}
            elif isinstance(mine, tuple):
                merged[name] = (*theirs, *mine)
            else:
                merged[name] = theirs if mine is None else mine
        return Settings(**merged)

    def variables(self) -> Iterator[str]:
        """Yield the name of every variable, wherever its value is from."""
        yield from self.env
        yield from (one.env for one in (*self.secret_env, *self.config_env))

    def mounts(self) -> Iterator[str]:
        """Yield every path at which something is mounted."""
        yield from (one.path for one in (*self.secret_mount, *self.pvc, *self.scratch))
        if self.shared_memory is not None:
            yield SHARED

    def volumes(self) -> Iterator[str]:
        """Yield the name that Kubeflow gives each volume."""
        yield from (one.secret for one in self.secret_mount)
        yield from (one.claim for one in self.pvc)
        yield from (one.name for one in self.scratch)
        if self.shared_memory is not None:
            yield SHARED_VOLUME


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Everything about a deployment that a pipeline is compiled with."""

    namespace: str = _said(LABEL)
    service_account: str = _said(NAME)
    pipeline_root: str = _said(ROOT, default="")
    """Where artifacts are kept; empty is where the server keeps them."""

    image_pull_policy: str = _said(POLICY, default="IfNotPresent")
    image_pull_secrets: tuple[str, ...] = _said(NAME, default=())
    images: Mapping[str, str] = _said(IMAGE, default_factory=dict)
    """By group; of one that is not named, the image that the environment names."""

    every_step: Settings = field(default_factory=Settings)
    steps: Mapping[str, Settings] = field(default_factory=dict[str, Settings])

    def __post_init__(self) -> None:
        for what, named, known in (("images", self.images, GROUPS), ("steps", self.steps, STEPS)):
            if unknown := sorted(named.keys() - set(known)):
                raise ValueError(f"{what}.{unknown[0]}: there is {', '.join(known)}.")
        for name in STEPS:
            _consistent(name, self.of(name))

    def of(self, step: str) -> Settings:
        """Return all that a step is given; one that acts has no retries that are not its own."""
        own = self.steps.get(step, Settings())
        merged = own.over(self.every_step)
        return replace(merged, retries=own.retries or 0) if STEPS[step].acts else merged


def _consistent(name: str, settings: Settings) -> None:
    """Refuse what Kubernetes would, or would take in a way that nobody meant.

    Raises:
        ValueError: Two values of one variable, two things at one path, less than is asked for as
            the most, or a retry that harms.
    """
    for what, listed in (
        ("variable", (*OWN, *settings.variables())),
        ("path", settings.mounts()),
        ("volume", settings.volumes()),
    ):
        twice = [one for one, count in Counter(listed).items() if count > 1]
        if twice:
            raise ValueError(f"step {name}: {what} {twice[0]!r} is given twice; leave one.")
    asked, most = settings.cpu, settings.cpu_limit
    if asked and most and cores(asked) > cores(most):
        raise ValueError(f"step {name}: cpu {asked} came, at most its cpu_limit {most} was wanted.")
    if settings.retries and not STEPS[name].repeatable:
        raise ValueError(f"step {name} fails to say why; retries came, 0 was wanted.")


def cores(cpu: str) -> float:
    """Return how many cores a text says."""
    return float(cpu.removesuffix("m")) / (1_000 if cpu.endswith("m") else 1)


def read(path: Path) -> Profile:
    """Return the profile in a TOML file.

    Raises:
        ProfileError: It is no TOML, or says what cannot be.
        OSError: There is no such file, or it cannot be read.
    """
    try:
        return parsed(path.read_text(encoding="utf-8"), where=path.name)
    except UnicodeDecodeError as e:
        raise ProfileError(f"{path} is no text: {e}; a profile is TOML in UTF-8.") from e


def parsed(text: str, *, where: str) -> Profile:
    """Return the profile in a text.

    Args:
        where: What errors call it.

    Raises:
        ProfileError: It is no TOML, or says what cannot be.
    """
    try:
        return built(Profile, tomllib.loads(text), where)
    except tomllib.TOMLDecodeError as e:
        raise ProfileError(f"{where} is no TOML: {e}.") from e
    except Unreadable as e:
        raise ProfileError(str(e)) from e
