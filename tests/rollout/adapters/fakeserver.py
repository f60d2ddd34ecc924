"""An API server over HTTP, as far as a release needs one, with what it must refuse.

What it enforces, and where that is described:

- server-side apply, field by field: kubernetes.io/docs/reference/using-api/server-side-apply
  (*Conflicts*, *Field management*, *Transferring ownership*). Every writer but an apply takes the
  fields whose values it changes. Lists are atomic, as in all schemas used here.
- ``metadata.resourceVersion`` in a patch is a precondition, 409 otherwise; unchanged objects keep
  their version: …/using-api/api-concepts (*Resource versions*).
- ``fieldValidation=Strict``: unknown fields are refused with 400, invalid values with 422:
  …/using-api/api-concepts (*Validation for unrecognized or duplicate fields*).
- watches of one kind, with bookmarks and 410 Gone for versions that were compacted away, both as
  a status and as an ``ERROR`` event: …/using-api/api-concepts (*Efficient detection of changes*).
- ``metadata.generation`` counts changes of ``spec`` alone; ``status`` is written aside.

Schemas and their defaults are the published ones where those are at hand.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.rollout.adapters import published

Object = dict[str, Any]
Path = tuple[str, ...]

TOKEN = "a-token"
APPLY, MERGE, JSON = (
    "application/apply-patch+yaml",
    "application/merge-patch+json",
    "application/json-patch+json",
)
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
            metadata["generation"] = generation + changed
            metadata["resourceVersion"] = str(self.version)
            if before is None:
                metadata["creationTimestamp"] = self.now()
            self.objects[path] = copy.deepcopy(found)
            self._tell("ADDED" if before is None else kind, path, found)
            if changed:
                for told in self.changed:
                    told(path, copy.deepcopy(found))
            return copy.deepcopy(found)

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


class FakeServer:
    """The server, its store, and what tests do to it."""

    def __init__(self) -> None:
        self.store = Store()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.denied: set[str] = set()
        """Methods that the role does not allow."""

        self.silent = threading.Event()
        """While set, nobody is answered."""

        self.breaks = 0
        """Applies to come whose answer is lost after they were made."""

        self.bookmark_s = 0.05
        self.closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.silent.clear()
        with self.store.lock:
            self.store.lock.notify_all()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def create(self, found: Object, *, manager: str = "penstock-release") -> Object:
        """Create an object as ``kubectl apply --server-side`` would."""
        path = path_of(found)
        live = {
            **{k: found[k] for k in ("apiVersion", "kind")},
            "metadata": {
                "name": found["metadata"]["name"],
                "namespace": found["metadata"]["namespace"],
                "uid": path,
            },
        }
        asked = published.with_defaults(found)
        made = apply(live, asked, manager, force=False, now=self.store.now())
        _check(made)
        return self.store.write(path, made)

    def kubectl(self, command: list[str]) -> Object:
        """Do what ``kubectl patch`` with these arguments does."""
        flags = dict(zip(command, [*command[1:], ""], strict=True))
        kind, name = command[command.index("patch") + 1 :][:2]
        plural = f"{ {'ksvc': 'service'}.get(kind, kind) }s"
        path = next(p for p in self.store.objects if p.endswith(f"{flags['-n']}/{plural}/{name}"))
        manager = next(a.partition("=")[2] for a in command if a.startswith("--field-manager"))
        return self.edit(path, json.loads(flags["-p"]), manager=manager)

    def edit(self, path: str, patch: Object, *, manager: str = "kubectl-edit") -> Object:
        """Write as a person does: a merge patch."""
        with self.store.lock:
            live = self.store.read(path)
            made = update(live, merged(copy.deepcopy(live), patch), manager, now=self.store.now())
            _check(made)
            return self.store.write(path, made)

    def say(self, path: str, status: Object) -> None:
        """Write an object's status, as its own controller does."""
        with self.store.lock:
            if path in self.store.objects:
                live = self.store.read(path)
                self.store.write(path, live | {"status": status})


def path_of(found: Object) -> str:
    """Return the path of an object."""
    plural = {"Gateway": "gateways"}.get(found["kind"], f"{found['kind'].lower()}s")
    metadata = found["metadata"]
    return f"/apis/{found['apiVersion']}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


def _check(found: Object) -> None:
    """Refuse what the schema refuses."""
    without = {k: v for k, v in found.items() if k != "status"}
    errors = published.wrong(without)
    unknown = [e for e in errors if "Additional properties" in e]
    if unknown:
        raise Refused(400, "BadRequest", f"strict decoding error: {'; '.join(unknown)}")
    if errors:
        raise Refused(422, "Invalid", "; ".join(errors))


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer("GET")

        def do_PATCH(self) -> None:
            self._answer("PATCH")

        def _answer(self, method: str) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            fake.requests.append((method, parts.path, query))
            while fake.silent.is_set() and not fake.closing.is_set():
                time.sleep(0.01)
            try:
                self._allowed(method)
                if query.get("watch") == "true":
                    self._watch(parts.path, query)
                    return
                found = (
                    fake.store.read(parts.path)
                    if method == "GET"
                    else self._patch(parts.path, query, json.loads(body))
                )
            except Refused as e:
                self._send(e.status["code"], e.status)
                return
            if method == "PATCH" and fake.breaks:
                fake.breaks -= 1
                self.close_connection = True
                self.connection.close()
                return
            self._send(200, found)

        def _allowed(self, method: str) -> None:
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                raise Refused(401, "Unauthorized", "Unauthorized")
            if method in fake.denied:
                verb = method.lower()
                raise Refused(403, "Forbidden", f'cannot {verb} resource: role "release" lacks it')

        def _patch(self, path: str, query: dict[str, str], asked: Any) -> Object:
            kind = self.headers["content-type"]
            with fake.store.lock:
                live = fake.store.read(path)
                if kind == JSON:
                    return self._replace(path, live, asked)
                if kind != APPLY or not query.get("fieldManager"):
                    raise Refused(400, "BadRequest", f"{kind}; an apply names its fieldManager")
                _precondition(live, asked["metadata"].get("resourceVersion"))
                whole = published.with_defaults(asked)
                if query.get("fieldValidation") == "Strict":
                    _check_partial(whole)
                made = apply(
                    live,
                    whole,
                    query["fieldManager"],
                    force=query.get("force") == "true",
                    now=fake.store.now(),
                )
                _check(made)
                return fake.store.write(path, made)

        def _replace(self, path: str, live: Object, asked: list[Object]) -> Object:
            said = {op["path"]: op["value"] for op in asked if op["op"] == "replace"}
            _precondition(live, said["/metadata/resourceVersion"])
            live["metadata"]["managedFields"] = said["/metadata/managedFields"]
            return fake.store.write(path, live)

        def _send(self, status: int, found: Object) -> None:
            text = json.dumps(found).encode()
            with suppress(OSError):
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        def _watch(self, path: str, query: dict[str, str]) -> None:
            since = int(query.get("resourceVersion") or fake.store.version)
            if since < fake.store.compacted:
                raise Refused(410, "Expired", f"too old resource version: {since}")
            with suppress(OSError):
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                end = time.monotonic() + int(query["timeoutSeconds"])
                name = query["fieldSelector"].partition("=")[2]
                self._follow(f"{path}/{name}", since, end)
                self.wfile.write(b"0\r\n\r\n")

        def _follow(self, path: str, since: int, end: float) -> None:
            marked = since
            while time.monotonic() < end and not fake.closing.is_set():
                with fake.store.lock:
                    if since < fake.store.compacted and not fake.store.events and marked == since:
                        self._event("ERROR", Refused(410, "Expired", "compacted").status)
                        return
                    fresh = [e for e in fake.store.events if e[0] > since]
                    newest = fake.store.version
                    if not fresh:
                        fake.store.lock.wait(fake.bookmark_s)
                for version, kind, at, found in fresh:
                    since = version
                    if at == path:
                        self._event(kind, found)
                if not fresh and newest > marked:
                    marked = since = newest
                    bookmark = {"kind": "Bookmark", "metadata": {"resourceVersion": str(newest)}}
                    self._event("BOOKMARK", bookmark)

        def _event(self, kind: str, found: Object) -> None:
            text = json.dumps({"type": kind, "object": found}).encode() + b"\n"
            self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
            self.wfile.flush()

    return Handler


def _precondition(live: Object, version: str | None) -> None:
    if version is not None and version != live["metadata"]["resourceVersion"]:
        message = "the object has been modified; please apply your changes to the latest version"
        raise Refused(409, "Conflict", message)


def _check_partial(asked: Object) -> None:
    """Refuse fields that the schema does not know; what lacks may be there already."""
    unknown = [e for e in published.wrong(asked) if "Additional properties" in e]
    if unknown:
        raise Refused(400, "BadRequest", f"strict decoding error: {'; '.join(unknown)}")


@contextmanager
def serving() -> Iterator[FakeServer]:
    """Return a server that ends with the block."""
    with FakeServer() as fake:
        yield fake
