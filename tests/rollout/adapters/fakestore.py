"""Objects of a fake API server: versions, managers of fields, what an apply makes of them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.rollout.adapters import published

Object = dict[str, Any]
Path = tuple[str, ...]

NAMED = {"name", "namespace", "resourceVersion", "managedFields", "generation", "uid"}


class Refused(Exception):
    """An answer that is no object."""

    def __init__(self, code: int, reason: str, message: str, causes: Any = None) -> None:
        super().__init__(message)
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
            **({"details": {"causes": causes}} if causes else {}),
        }


class Store:
    """Objects, their versions, and who holds which field."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.version = 100
        self.objects: dict[str, Object] = {}
        self.events: list[tuple[int, str, str, Object]] = []
        self.compacted = 0
        self.clock = 0
        self.changed: list[Callable[[str, Object], None]] = []

    def read(self, path: str) -> Object:
        """Return an object."""
        with self.lock:
            if path not in self.objects:
                raise Refused(404, "NotFound", f"{path} not found")
            return copy.deepcopy(self.objects[path])

    def write(self, path: str, found: Object, *, kind: str = "MODIFIED") -> Object:
        """Keep an object under a new version, unless nothing changed."""
        with self.lock:
            before = self.objects.get(path)
            if before is not None and _plain(before) == _plain(found):
                return copy.deepcopy(before)
            self.version += 1
            metadata = found["metadata"]
            generation = before["metadata"]["generation"] if before else 0
            changed = before is None or before.get("spec") != found.get("spec")
            seen = changed or _noted(before) != _noted(found)
            metadata["generation"] = generation + changed
            metadata["resourceVersion"] = str(self.version)
            if before is None:
                metadata["creationTimestamp"] = self.now()
            self.objects[path] = copy.deepcopy(found)
            self._tell("ADDED" if before is None else kind, path, found)
            if seen:
                for told in self.changed:
                    told(path, copy.deepcopy(found))
            return copy.deepcopy(found)

    def labelled(self, collection: str, selector: str) -> Object:
        """Return the objects of a collection that bear labels."""
        wanted = dict(pair.split("=", 1) for pair in selector.split(",") if pair)
        with self.lock:
            found = [
                copy.deepcopy(held)
                for path, held in sorted(self.objects.items())
                if path.rpartition("/")[0] == collection
                and wanted.items() <= held["metadata"].get("labels", {}).items()
            ]
        return {"kind": "List", "apiVersion": "v1", "items": found}

    def _tell(self, kind: str, path: str, found: Object) -> None:
        self.events.append((self.version, kind, path, copy.deepcopy(found)))
        self.lock.notify_all()

    def remove(self, path: str) -> None:
        """Delete an object."""
        with self.lock:
            found = self.objects.pop(path)
            self.version += 1
            found["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", path, found)

    def compact(self) -> None:
        """Forget every change up to now."""
        with self.lock:
            self.compacted = self.version
            self.events.clear()

    def now(self) -> str:
        """Return a time that only goes forward."""
        self.clock += 1
        return f"2026-01-01T00:{self.clock // 60 % 60:02d}:{self.clock % 60:02d}Z"


def _noted(found: Object | None) -> Any:
    return None if found is None else found["metadata"].get("annotations")


def _plain(found: Object) -> Object:
    """Return an object without what changes by itself, and the times of managers."""
    kept = copy.deepcopy(found)
    for name in ("resourceVersion", "generation", "creationTimestamp"):
        kept["metadata"].pop(name, None)
    for entry in kept["metadata"].get("managedFields", []):
        entry.pop("time", None)
    return kept


def leaves(found: Any, at: Path = ()) -> dict[Path, Any]:
    """Return an object's fields: maps are taken apart, lists and values are whole."""
    if isinstance(found, dict) and found:
        return {
            p: v for name, value in found.items() for p, v in leaves(value, (*at, name)).items()
        }
    return {at: found}


def owned(found: Object) -> dict[Path, Any]:
    """Return the fields that managers can hold."""
    return {
        path: value
        for path, value in leaves(found).items()
        if path[0] not in ("apiVersion", "kind", "status")
        and not (path[0] == "metadata" and (len(path) < 3 or path[1] in NAMED))
    }


def fields_v1(paths: Any) -> Object:
    """Return a set of fields as managedFields says it."""
    made: Object = {}
    for path in sorted(paths):
        here = made
        for name in path:
            here = here.setdefault(f"f:{name}", {})
    return made


def paths_v1(fields: Object, at: Path = ()) -> set[Path]:
    """Return the fields that managedFields names."""
    inner = {k: v for k, v in fields.items() if k.startswith("f:")}
    if not inner:
        return {at}
    return {p for k, v in inner.items() for p in paths_v1(v, (*at, k[2:]))}


def put(found: Object, path: Path, value: Any) -> None:
    """Set a field."""
    for name in path[:-1]:
        found = found.setdefault(name, {})
    found[path[-1]] = copy.deepcopy(value)


def drop(found: Object, path: Path) -> None:
    """Remove a field and what is empty without it."""
    trail = [found]
    for name in path[:-1]:
        if name not in trail[-1]:
            return
        trail.append(trail[-1][name])
    trail[-1].pop(path[-1], None)
    for name, here in zip(reversed(path[:-1]), reversed(trail[:-1]), strict=True):
        if here.get(name) == {}:
            here.pop(name)


class Managers:
    """Who holds which field of one object."""

    def __init__(self, found: Object) -> None:
        self.entries: list[Object] = found["metadata"].get("managedFields", [])

    def others(self, name: str, operation: str) -> Iterator[tuple[Object, set[Path]]]:
        for entry in self.entries:
            if (entry["manager"], entry["operation"]) != (name, operation):
                yield entry, paths_v1(entry["fieldsV1"])

    def of(self, name: str, operation: str) -> set[Path]:
        for entry in self.entries:
            if (entry["manager"], entry["operation"]) == (name, operation):
                return paths_v1(entry["fieldsV1"])
        return set()

    def hold(self, name: str, operation: str, paths: set[Path], now: str) -> None:
        """Let a manager hold exactly these fields."""
        before = self.of(name, operation)
        kept = [e for e in self.entries if (e["manager"], e["operation"]) != (name, operation)]
        if paths:
            made = {
                "manager": name,
                "operation": operation,
                "apiVersion": "v1",
                "time": now,
                "fieldsType": "FieldsV1",
                "fieldsV1": fields_v1(paths),
            }
            if paths == before:
                made = next(e for e in self.entries if e not in kept) | {"time": now}
            kept.append(made)
        self.entries = kept

    def take(self, paths: set[Path]) -> None:
        """Take fields off everybody."""
        for entry in list(self.entries):
            left = paths_v1(entry["fieldsV1"]) - paths
            self.entries.remove(entry)
            if left:
                self.entries.append({**entry, "fieldsV1": fields_v1(left)})


def apply(live: Object, asked: Object, manager: str, *, force: bool, now: str) -> Object:
    """Return what a server-side apply makes of an object."""
    wanted = owned(asked)
    managers = Managers(live)
    here = owned(live)
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{entry["manager"]}"',
            "field": f".{'.'.join(path)}",
        }
        for entry, held in managers.others(manager, "Apply")
        for path in sorted(held)
        for at, value in wanted.items()
        if _overlap(path, at) and here.get(at) != value
    ]
    if causes and not force:
        message = f"Apply failed with {len(causes)} conflicts"
        raise Refused(409, "Conflict", message, causes)
    made = copy.deepcopy(live)
    if force:
        managers.take({p for p, v in wanted.items() if here.get(p) != v})
    elsewhere = {p for _, held in managers.others(manager, "Apply") for p in held}
    for path in managers.of(manager, "Apply") - set(wanted) - elsewhere:
        drop(made, path)
    for path, value in wanted.items():
        put(made, path, value)
    managers.hold(manager, "Apply", set(wanted), now)
    made["metadata"]["managedFields"] = managers.entries
    return made


def _overlap(one: Path, other: Path) -> bool:
    least = min(len(one), len(other))
    return one[:least] == other[:least]


def update(live: Object, made: Object, manager: str, *, now: str) -> Object:
    """Return an object after any other write: it takes the fields whose values it changes."""
    before, after = owned(live), owned(made)
    changed = {p for p, v in after.items() if before.get(p, object()) != v}
    gone = set(before) - set(after)
    managers = Managers(live)
    mine = managers.of(manager, "Update")
    managers.take(changed | gone)
    managers.hold(manager, "Update", (mine | changed) - gone, now)
    made["metadata"]["managedFields"] = managers.entries
    return made


def merged(found: Any, patch: Any) -> Any:
    """Return a JSON merge patch's result (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    made = dict(found) if isinstance(found, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), value)
    return made


def path_of(found: Object) -> str:
    """Return the path of an object."""
    plural = {"Gateway": "gateways"}.get(found["kind"], f"{found['kind'].lower()}s")
    metadata = found["metadata"]
    folder = f"/apis/{found['apiVersion']}/namespaces/{metadata['namespace']}"
    return f"{folder}/{plural}/{metadata['name']}"


def check(found: Object) -> None:
    """Refuse what the schema refuses."""
    without = {k: v for k, v in found.items() if k != "status"}
    errors = published.wrong(without)
    unknown = [e for e in errors if "Additional properties" in e]
    if unknown:
        raise Refused(400, "BadRequest", f"strict decoding error: {'; '.join(unknown)}")
    if errors:
        raise Refused(422, "Invalid", "; ".join(errors))


def precondition(live: Object, version: str | None) -> None:
    if version is not None and version != live["metadata"]["resourceVersion"]:
        message = "the object has been modified; please apply your changes to the latest version"
        raise Refused(409, "Conflict", message)


def check_partial(asked: Object) -> None:
    """Refuse fields that the schema does not know; what lacks may be there already."""
    unknown = [e for e in published.wrong(asked) if "Additional properties" in e]
    if unknown:
        raise Refused(400, "BadRequest", f"strict decoding error: {'; '.join(unknown)}")
