"""Places: which workload is served where in a cluster, and how; one strict TOML file, or several.

What a file says wrong is refused when the controller starts: a misspelt name that is passed over
would be a default that nobody chose.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from penstock.rollout.adapters.gateway import Gateway
from penstock.rollout.adapters.istio import Istio
from penstock.rollout.adapters.place import Place

GATEWAY, ISTIO = "gateway", "istio"
KNATIVE = (
    " Knative shares no users: serve the two slots in Standard mode, as "
    "docs/how-to/release-on-a-cluster.md says."
)
_NOTHING = object()


class PlacesError(ValueError):
    """A file of places says what is not known, or not allowed; the text names file and key."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """A workload's place, and what the controller needs to know besides."""

    place: Place
    dialect: str
    assigned: bool
    """Whether the assigner is an EnvoyFilter kept here; else another hand sets the bucket."""

    labels: Mapping[str, str]
    """Of the gateway's pods, for Istio."""

    predictions: str
    """Where the serving pods copy finished prediction logs: a folder, ``s3://`` or ``gs://``."""

    outcomes: str | None
    """Folder or object of JSON lines with what became of requests."""

    copied_s: float
    """Longest time from an answer to its record at ``predictions``."""

    replicas: int
    """Pods of a slot that serves, the one that stands by too: it must take every user at once."""

    patience_s: float
    """How long a slot may say that its model does not load before that is believed."""

    def made(self) -> Gateway | Istio:
        """Return how this cluster says a traffic table."""
        if self.dialect == ISTIO:
            return Istio(self.place, gateway_labels=self.labels)
        return Gateway(self.place, istio=self.assigned)


FIELDS: Mapping[str, tuple[tuple[type, ...], Any]] = {
    "namespace": ((str,), _NOTHING),
    "host": ((str,), _NOTHING),
    "gateway": ((str,), _NOTHING),
    "gateway_namespace": ((str,), _NOTHING),
    "edges": ((list,), _NOTHING),
    "predictions": ((str,), _NOTHING),
    "outcomes": ((str,), ""),
    "copied_s": ((int, float), 120.0),
    "dialect": ((str,), GATEWAY),
    "assigner": ((str,), "istio"),
    "gateway_labels": ((dict,), {}),
    "replicas": ((int,), 2),
    "patience_s": ((int, float), 300.0),
    "timeout_ms": ((int, float), 1000.0),
    "port": ((int,), 80),
    "suffix": ((str,), "-predictor"),
}
"""Each key of a place: what it may be, and what it is where nothing is said."""

_AMONG: Mapping[str, Sequence[str]] = {
    "dialect": (GATEWAY, ISTIO),
    "assigner": ("istio", "none"),
    "suffix": ("-predictor", "-transformer"),
}


def read(path: Path) -> dict[str, Where]:
    """Return the places of a file, or of every ``*.toml`` of a folder, by workload.

    Raises:
        PlacesError: A file says what is not known, or not allowed.
        OSError: It cannot be read.
    """
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    found: dict[str, Where] = {}
    for file in files:
        for name, where in _of_file(file).items():
            if name in found:
                raise PlacesError(f"{file}: workload {name} has a place in another file already.")
            found[name] = where
    if not found:
        raise PlacesError(f"{path} holds no place; write a table [workloads.NAME] for each.")
    return found


def _of_file(file: Path) -> dict[str, Where]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as e:
        raise PlacesError(f"{file} is no TOML: {e}.") from e
    _known(str(file), document, ("workloads",))
    tables = document.get("workloads", {})
    if not isinstance(tables, dict):
        raise PlacesError(f"{file}: workloads is {tables!r}; a table [workloads.NAME] was wanted.")
    named = cast("dict[str, Any]", tables)
    return {name: _where(f"{file}: workloads.{name}", name, said) for name, said in named.items()}


def _where(at: str, name: str, said: Any) -> Where:
    if not isinstance(said, dict):
        raise PlacesError(f"{at} is {said!r}; a table was wanted.")
    table = cast("dict[str, Any]", said)
    _known(at, table, FIELDS)
    held = {key: _value(at, key, table) for key in FIELDS}
    where = Where(
        place=_place(at, name, held),
        dialect=held["dialect"],
        assigned=held["assigner"] == "istio",
        labels=_texts(at, "gateway_labels", held["gateway_labels"]),
        predictions=held["predictions"],
        outcomes=held["outcomes"] or None,
        copied_s=float(held["copied_s"]),
        replicas=held["replicas"],
        patience_s=float(held["patience_s"]),
    )
    if where.dialect == ISTIO and not where.labels:
        raise PlacesError(f"{at}.gateway_labels is empty; Istio needs those of the gateway's pods.")
    return where


def _place(at: str, name: str, held: Mapping[str, Any]) -> Place:
    edges = [edge for edge in held["edges"] if isinstance(edge, str)]
    if len(edges) != len(held["edges"]):
        raise PlacesError(f"{at}.edges is {held['edges']!r}; URLs were wanted.")
    try:
        return Place(
            name=name,
            model=name,
            edges=tuple(edges),
            timeout_ms=float(held["timeout_ms"]),
            **{k: held[k] for k in ("namespace", "host", "gateway", "gateway_namespace")},
            **{k: held[k] for k in ("port", "suffix")},
        )
    except ValueError as e:
        raise PlacesError(f"{at}: {e}") from e


def _value(at: str, key: str, table: Mapping[str, Any]) -> Any:
    kinds, default = FIELDS[key]
    found = table.get(key, default)
    if found is _NOTHING:
        raise PlacesError(f"{at}.{key} is not there; it has no default.")
    # True is a number to Python, and none here.
    if not isinstance(found, kinds) or isinstance(found, bool):
        raise PlacesError(f"{at}.{key} is {found!r}; {kinds[-1].__name__} was wanted.")
    if key in _AMONG and found not in _AMONG[key]:
        hint = KNATIVE if key == "dialect" else ""
        raise PlacesError(f"{at}.{key} is {found!r}; it is one of {', '.join(_AMONG[key])}.{hint}")
    if isinstance(found, (int, float)) and not 0 < found < float("inf"):
        raise PlacesError(f"{at}.{key} is {found!r}; it must be above 0.")
    return found


def _texts(at: str, key: str, found: Mapping[str, Any]) -> dict[str, str]:
    wrong = [name for name, value in found.items() if not isinstance(value, str)]
    if wrong:
        raise PlacesError(f"{at}.{key}.{wrong[0]} is {found[wrong[0]]!r}; text was wanted.")
    return dict(found)


def _known(at: str, table: Mapping[str, Any], names: Mapping[str, Any] | Sequence[str]) -> None:
    unknown = sorted(set(table) - set(names))
    if unknown:
        raise PlacesError(f"{at} says {unknown[0]!r}; known are {', '.join(names)}.")
