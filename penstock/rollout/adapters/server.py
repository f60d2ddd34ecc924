"""An API server's verbs that a release needs: read, apply, watch. Never by force.

Writes are server-side applies under one field manager, with strict validation and the version of
the object that was read: who read something older is refused by the server itself. What each
answer means follows kubernetes.io/docs/reference/using-api (server-side-apply, api-concepts).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.rollout.ports import Stale, TableError

MANAGER = "penstock-release"
"""Under this name the API server keeps which fields are ours."""

OURS = ("f:penstock.io/", "f:serving.kserve.io/stop")
"""Annotations that are ours alone, as a field set names them."""

APPLY = "application/apply-patch+yaml"
PATCH = "application/json-patch+json"
GONE = 410
TIMEOUT_S = 10.0
WATCH_S = 60.0
"""Longest that one watch is asked for; then it is taken up again where it ended."""

Object = dict[str, Any]


class Missing(TableError):
    """The object is not there."""


class Moved(Stale):
    """The object was written since it was read."""


class Held(TableError):
    """Another manager holds fields that would have been changed."""


class Unanswered(TableError):
    """Nobody answered: what was asked may have been done or not."""


class Expired(TableError):
    """A watch asks for what the server remembers no more."""


@dataclass(frozen=True, kw_only=True)
class Ref:
    """Which object."""

    group: str
    version: str
    plural: str
    kind: str
    name: str
    namespace: str

    @property
    def api(self) -> str:
        """Group and version, as a manifest says them."""
        return f"{self.group}/{self.version}"

    @property
    def collection(self) -> str:
        """Path of all of its kind in its namespace."""
        return f"/apis/{self.api}/namespaces/{self.namespace}/{self.plural}"

    @property
    def path(self) -> str:
        """Path of the object."""
        return f"{self.collection}/{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Transport(Protocol):
    """Requests to one API server; :class:`penstock.rollout.adapters.kubernetes.Session` is one."""

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Any = None,
        kind: str = "application/json",
        timeout_s: float = 10.0,
    ) -> tuple[int, bytes]:
        """Send one request; return status and body, whatever the status is."""
        ...

    def lines(
        self, path: str, *, query: Mapping[str, str], timeout_s: float
    ) -> Iterator[tuple[int, bytes]]:
        """Yield the status with each line of an answer, until it ends."""
        ...


@dataclass(frozen=True, kw_only=True)
class Change:
    """One event of a watch."""

    kind: str
    """``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``."""

    object: Object


class Server:
    """One API server, as one field manager."""

    def __init__(self, transport: Transport, *, timeout_s: float = TIMEOUT_S) -> None:
        """Take the way to it, and the longest wait for an answer."""
        self._transport, self._timeout_s = transport, timeout_s

    def get(self, ref: Ref) -> Object:
        """Return an object.

        Raises:
            Missing: There is none.
            TableError: Nobody answers, or not to us.
        """
        return self._ask("GET", ref, query={})

    def labelled(self, ref: Ref, *, labels: Mapping[str, str]) -> list[Object]:
        """Return the objects of a kind and namespace that bear labels.

        Args:
            ref: Of its kind; its name does not count.

        Raises:
            TableError: Nobody answers, or not to us.
        """
        query = {"labelSelector": ",".join(f"{k}={v}" for k, v in labels.items())}
        said = self._ask("GET", ref, query=query, path=ref.collection)
        return said.get("items") or []

    def apply(self, ref: Ref, manifest: Object, *, version: str) -> Object:
        """Apply a manifest to the object of the version that was read; return what it is now.

        Raises:
            Moved: It was written since.
            Held: Another manager holds fields that would change.
            TableError: It is refused, or nobody answers.
        """
        named = {"name": ref.name, "namespace": ref.namespace, "resourceVersion": version}
        body = {
            "apiVersion": ref.api,
            "kind": ref.kind,
            **manifest,
            "metadata": {**manifest.get("metadata", {}), **named},
        }
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict", "force": "false"}
        return self._ask("PATCH", ref, query=query, body=body, kind=APPLY)

    def disown(self, ref: Ref, read: Object, fields: Sequence[str]) -> Object:
        """Take other managers off fields, so that the next apply is nobody's conflict.

        The values stay. It is what the API server's own documentation describes for the change
        from one manager to another: the list of managers is written, if nobody wrote since.

        Args:
            read: The object as it was read.
            fields: Names within ``spec``, deeper ones with dots; our annotations always.

        Raises:
            Moved, TableError: As for :meth:`apply`.
        """
        metadata = read["metadata"]
        kept = [_without(entry, fields) for entry in metadata.get("managedFields", [])]
        body = [
            {"op": "replace", "path": "/metadata/managedFields", "value": [k for k in kept if k]},
            {
                "op": "replace",
                "path": "/metadata/resourceVersion",
                "value": metadata["resourceVersion"],
            },
        ]
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        return self._ask("PATCH", ref, query=query, body=body, kind=PATCH)

    def watch(self, ref: Ref, *, since: str, seconds: float = WATCH_S) -> Iterator[Change]:
        """Yield what becomes of an object after a version, bookmarks too, until the watch ends.

        Raises:
            Expired: The server remembers that version no more: read the object again.
            TableError: Nobody answers, or not to us.
        """
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={ref.name}",
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        try:
            lines = self._transport.lines(
                ref.collection, query=query, timeout_s=seconds + self._timeout_s
            )
            for status, line in lines:
                yield _change(ref, status, line)
        except OSError as e:
            raise TableError(f"the watch of {ref} ended: {e}") from e

    def _ask(
        self,
        method: str,
        ref: Ref,
        *,
        query: Mapping[str, str],
        body: Any = None,
        kind: str = "application/json",
        path: str = "",
    ) -> Object:
        try:
            status, text = self._transport.request(
                method,
                path or ref.path,
                query=query,
                body=body,
                kind=kind,
                timeout_s=self._timeout_s,
            )
        except OSError as e:
            raise Unanswered(f"{ref} is not known: {e}; ask again.") from e
        said = _read(text)
        if status >= 400:
            raise _refusal(ref, method, status, said)
        return said


def _read(text: bytes) -> Object:
    try:
        said = json.loads(text)
    except ValueError as e:
        raise TableError(f"what answered is no API server: {text[:80]!r}") from e
    return said if isinstance(said, dict) else {}


def _change(ref: Ref, status: int, line: bytes) -> Change:
    said = _read(line)
    if status >= 400:
        raise _refusal(ref, "WATCH", status, said)
    if said.get("type") == "ERROR":
        raise _refusal(ref, "WATCH", int(said["object"].get("code", 500)), said["object"])
    return Change(kind=str(said["type"]), object=said["object"])


def _refusal(ref: Ref, method: str, status: int, said: Object) -> TableError:
    """Return what a refusal means for who asked."""
    why = str(said.get("message") or f"status {status}")
    found: TableError
    if status == 404:
        found = Missing(f"{ref} is not there; create it: see docs/how-to/release-on-a-cluster.md.")
    elif status == GONE:
        found = Expired(f"{ref}: {why}")
    elif status == 409:
        held = holders(said)
        found = Held(f"{ref} is held by others: {held}.") if held else Moved(f"{ref}: {why}")
    elif status in (401, 403):
        found = TableError(f"the API server denies {method} of {ref}: {why}; see the role it needs")
    elif status in (400, 422):
        found = TableError(f"the API server refuses {ref}: {why}")
    else:
        found = TableError(f"the API server answers {status} for {ref}: {why}; ask again.")
    return found


def holders(said: Object) -> str:
    """Return who holds which field, of a conflict between managers; empty of another one."""
    causes = (said.get("details") or {}).get("causes") or []
    found = [c for c in causes if c.get("reason") == "FieldManagerConflict"]
    return "; ".join(f"{c.get('message', '')}: {c.get('field', '')}" for c in found)


def _without(entry: Object, fields: Sequence[str]) -> Object | None:
    """Return a manager's entry without fields; None where nothing is left of it."""
    if entry.get("manager") == MANAGER and entry.get("operation") == "Apply":
        return entry
    if entry.get("subresource"):
        return entry
    kept = json.loads(json.dumps(entry.get("fieldsV1") or {}))
    for field in fields:
        _strike(kept, ["f:spec", *(f"f:{name}" for name in field.split("."))])
    annotations = kept.get("f:metadata", {}).get("f:annotations", {})
    for name in [n for n in annotations if n.startswith(OURS)]:
        _strike(kept, ["f:metadata", "f:annotations", name])
    return {**entry, "fieldsV1": kept} if kept else None


def _strike(fields: Object, path: Sequence[str]) -> None:
    """Remove a field of a field set, and the branches that own nothing without it."""
    name, *rest = path
    if rest and name in fields:
        _strike(fields[name], rest)
    if not rest or (name in fields and set(fields[name]) <= {"."}):
        fields.pop(name, None)
