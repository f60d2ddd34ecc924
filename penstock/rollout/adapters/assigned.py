"""Assigned: what the InferenceServices of a workload serve, and how that is changed.

An InferenceService is a person's (:mod:`slots` renders it), but for five fields: the package's
address, how many pods, whether it is stopped, and two annotations that say which version and
digest that is. Those are the controller's. A pod learns version and digest from the annotations,
which KServe puts on it, so that what a pod says of itself is what its slot was told, or its slot is
not ready.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from penstock.rollout.adapters import replicas
from penstock.rollout.adapters.place import Place, holds
from penstock.rollout.adapters.replicas import Replica
from penstock.rollout.adapters.server import Held, Moved, Object, Ref, Server
from penstock.rollout.ports import TableError
from penstock.rollout.table import SLOTS

VERSION, DIGEST = "penstock.io/version", "penstock.io/digest"
STOP = "serving.kserve.io/stop"
"""KServe's own: ``true`` takes Deployment and Service away and keeps the InferenceService."""

FIELDS = ("predictor.minReplicas", "predictor.model.storageUri")
"""Of ``spec``, what is ours."""

FAILED = ("BlockedByFailedLoad", "InvalidSpec")
"""What KServe's ``modelStatus`` says of a model that does not load."""

TRIES = 5
SILENT_S = 10.0
"""How long a pod of several may not answer before the slot is not ready any more."""

FRESH_S = 1.0
"""For how long a look at a slot counts: one tick looks several times."""

Named = tuple[str, str]
"""A slot and a version."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A slot, as it was seen last."""

    state: str
    """``stopped``, ``starting``, ``ready``, or ``failed``."""

    version: str | None
    error: str = ""
    """Why it is not ready."""

    urls: tuple[str, ...] = ()
    """Its pods."""


STOPPED = Seen(state="stopped", version=None)


@dataclass(kw_only=True)
class Slots:
    """The InferenceServices of one workload."""

    server: Server
    place: Place
    replicas: int
    patience_s: float = 300.0
    """How long a model may say that it does not load before that is believed."""

    fresh_s: float = FRESH_S
    monotonic: Callable[[], float] = time.monotonic
    _looked: dict[str, tuple[float, Seen]] = field(default_factory=dict[str, tuple[float, Seen]])
    _up: set[Named] = field(default_factory=set[Named])
    """What was ready once."""

    _failing: dict[Named, float] = field(default_factory=dict[Named, float])
    """Since when one says that it does not load."""

    _told: dict[Named, float] = field(default_factory=dict[Named, float])
    """When a slot was told to serve a version."""

    _took: dict[Named, float] = field(default_factory=dict[Named, float])

    _silent: dict[Named, float] = field(default_factory=dict[Named, float])
    """Since when a pod of one that was ready does not answer."""

    def ref(self, slot: str) -> Ref:
        """Return a slot's InferenceService."""
        name = f"{self.place.name}-{slot}"
        return self.place.ref("serving.kserve.io", "v1beta1", "InferenceService", name)

    def seen(self, slot: str) -> Seen:
        """Return what a slot does.

        Raises:
            TableError: The API server does not say.
        """
        now_s = self.monotonic()
        known = self._looked.get(slot)
        if known is not None and now_s - known[0] < self.fresh_s:
            return known[1]
        found = self._look(slot)
        self._looked[slot] = now_s, found
        return found

    def took_s(self, slot: str, version: str) -> float:
        """Return how long a version took to be ready; 0 where it was when it was met."""
        return self._took.get((slot, version), 0.0)

    def assign(self, slot: str, *, uri: str, digest: str, version: str) -> None:
        """Let a slot serve a package.

        Raises:
            TableError: The InferenceService is not there, or is not taken.
        """
        said = {VERSION: version, DIGEST: digest, STOP: "false"}
        predictor = {"minReplicas": self.replicas, "model": {"storageUri": uri}}
        self._up = {named for named in self._up if named[0] != slot}
        self._told[slot, version] = self.monotonic()
        self._put(slot, lambda _: _manifest(said, {"predictor": predictor}))

    def stop(self, slot: str) -> None:
        """Let a slot serve nothing; what it served is still written on it.

        Raises:
            TableError: The InferenceService is not taken.
        """
        self._put(slot, _stopped)

    def _put(self, slot: str, manifest_of: Callable[[Object], Object]) -> None:
        ref = self.ref(slot)
        for _ in range(TRIES):
            self._looked.clear()
            found = self.server.get(ref)
            try:
                return self._apply(ref, found, manifest_of(found))
            except Moved:  # KServe writes its status all the time
                continue
        raise TableError(f"{ref} is written to all the time; try again.")

    def _apply(self, ref: Ref, found: Object, manifest: Object) -> None:
        version = found["metadata"]["resourceVersion"]
        try:
            self.server.apply(ref, manifest, version=version)
        except Held:
            # Which version a slot serves is for the release to say, whoever said so before.
            freed = self.server.disown(ref, found, FIELDS)
            self.server.apply(ref, manifest, version=freed["metadata"]["resourceVersion"])

    def _look(self, slot: str) -> Seen:
        found = self.server.get(self.ref(slot))
        said = annotations_of(found)
        version = said.get(VERSION)
        if version is None or said.get(STOP) == "true":
            return STOPPED
        if slot in SLOTS and not version.isdecimal():
            why = f"{VERSION} of {self.ref(slot)} is {version!r}, which Penstock never said"
            return Seen(state="starting", version=None, error=why)
        urls = replicas.addresses(self.server, self.place, slot)
        every = [*urls, *replicas.behind(self.server, self.place, slot)]
        pods = replicas.said_by(every if urls else urls, self.place.model)
        heard = self._heard(pods, (slot, version))
        problem = replicas.other_than(heard, slot, version) or self._unready(found, slot, version)
        if not problem:
            self._note_ready(slot, version)
            return Seen(state="ready", version=version, urls=tuple(urls))
        failed = self._fails(found, slot, version)
        state = "failed" if failed else "starting"
        return Seen(state=state, version=version, error=failed or problem, urls=tuple(urls))

    def _heard(self, pods: list[Replica], named: Named) -> list[Replica]:
        """Return the pods by which a slot is known; one may be silent for a moment.

        A pod that ends is behind its Service a little longer than it answers. That is no reason to
        end a release either, as long as another one answers.
        """
        answering = [pod for pod in pods if not pod.problem]
        if len(answering) in (0, len(pods)) or named not in self._up:
            self._silent.pop(named, None)
            return pods
        since_s = self._silent.setdefault(named, self.monotonic())
        return pods if self.monotonic() - since_s >= SILENT_S else answering

    def _unready(self, found: Object, slot: str, version: str) -> str:
        """Return why KServe does not call it ready; once it has, its pods say whether it still is.

        A node that is drained takes one pod of several: no reason to end a release.
        """
        return "" if (slot, version) in self._up else unready(found)

    def _note_ready(self, slot: str, version: str) -> None:
        self._failing.pop((slot, version), None)
        begun_s = self._told.pop((slot, version), None)
        if begun_s is not None:
            self._took[slot, version] = round(self.monotonic() - begun_s, 2)
        self._up.add((slot, version))

    def _fails(self, found: Object, slot: str, version: str) -> str:
        """Return why a model will never load, once it has said so for long; empty while it may."""
        why = _does_not_load(found)
        if not why:
            self._failing.pop((slot, version), None)
            return ""
        since_s = self._failing.setdefault((slot, version), self.monotonic())
        return why if self.monotonic() - since_s >= self.patience_s else ""


def annotations_of(found: Object) -> Mapping[str, str]:
    """Return the annotations of an object."""
    return cast("dict[str, str]", found["metadata"].get("annotations") or {})


def unready(found: Object) -> str:
    """Return why an InferenceService is not ready, in the generation that was asked for."""
    status = cast("Object", found.get("status") or {})
    wanted = int(found["metadata"].get("generation", 0))
    if int(status.get("observedGeneration", 0)) < wanted:
        return f"KServe has not seen generation {wanted} yet"
    conditions = cast("list[Object]", status.get("conditions") or [])
    return holds(conditions, "Ready")


def _does_not_load(found: Object) -> str:
    status = cast("Object", found.get("status") or {})
    said: Mapping[str, Any] = status.get("modelStatus") or {}
    if said.get("transitionStatus") not in FAILED:
        return ""
    failure: Mapping[str, Any] = said.get("lastFailureInfo") or {}
    reason, message = failure.get("reason", "it does not load"), failure.get("message", "")
    return f"{reason}: {message}" if message else str(reason)


def _manifest(annotations: Mapping[str, str], spec: Object | None = None) -> Object:
    made: Object = {"metadata": {"annotations": dict(annotations)}}
    return made if spec is None else made | {"spec": spec}


def _stopped(found: Object) -> Object:
    """Return everything of ours as it is, and stopped: what an apply leaves out it takes away."""
    held = annotations_of(found)
    said = {name: held[name] for name in (VERSION, DIGEST) if name in held}
    predictor = cast("Object", (found.get("spec") or {}).get("predictor") or {})
    uri = (predictor.get("model") or {}).get("storageUri")
    if VERSION not in held or uri is None:
        return _manifest({**said, STOP: "true"})
    ours = {"minReplicas": predictor.get("minReplicas", 1), "model": {"storageUri": uri}}
    return _manifest({**said, STOP: "true"}, {"predictor": ours})
