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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from tests.rollout.adapters import published
from tests.rollout.adapters.fakestore import (
    Object,
    Refused,
    Store,
    apply,
    check,
    check_partial,
    merged,
    path_of,
    precondition,
    update,
)

TOKEN = "a-token"
APPLY, JSON = "application/apply-patch+yaml", "application/json-patch+json"


class Handler(BaseHTTPRequestHandler):
    """One request; bound to its server by a subclass."""

    fake: FakeServer

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: two would wait for each other's receipt
    disable_nagle_algorithm = True

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
        self.fake.requests.append((method, parts.path, query))
        while self.fake.silent.is_set() and not self.fake.closing.is_set():
            time.sleep(0.01)
        try:
            self._allowed(method)
            if query.get("watch") == "true":
                self._watch(parts.path, query)
                return
            if method == "PATCH":
                found = self._patch(parts.path, query, json.loads(body))
            elif "labelSelector" in query:
                found = self.fake.store.labelled(parts.path, query["labelSelector"])
            else:
                found = self.fake.store.read(parts.path)
        except Refused as e:
            self._send(e.status["code"], e.status)
            return
        if method == "PATCH" and self.fake.breaks:
            self.fake.breaks -= 1
            self.close_connection = True
            self.connection.close()
            return
        self._send(200, found)

    def _allowed(self, method: str) -> None:
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Unauthorized", "Unauthorized")
        if method in self.fake.denied:
            verb = method.lower()
            raise Refused(403, "Forbidden", f'cannot {verb} resource: role "release" lacks it')

    def _patch(self, path: str, query: dict[str, str], asked: Any) -> Object:
        kind = self.headers["content-type"]
        with self.fake.store.lock:
            live = self.fake.store.read(path)
            if kind == JSON:
                return self._replace(path, live, asked)
            if kind != APPLY or not query.get("fieldManager"):
                raise Refused(400, "BadRequest", f"{kind}; an apply names its fieldManager")
            precondition(live, asked["metadata"].get("resourceVersion"))
            whole = published.with_defaults(asked)
            if query.get("fieldValidation") == "Strict":
                check_partial(whole)
            made = apply(
                live,
                whole,
                query["fieldManager"],
                force=query.get("force") == "true",
                now=self.fake.store.now(),
            )
            check(made)
            return self.fake.store.write(path, made)

    def _replace(self, path: str, live: Object, asked: list[Object]) -> Object:
        said = {op["path"]: op["value"] for op in asked if op["op"] == "replace"}
        precondition(live, said["/metadata/resourceVersion"])
        live["metadata"]["managedFields"] = said["/metadata/managedFields"]
        return self.fake.store.write(path, live)

    def _send(self, status: int, found: Object) -> None:
        text = json.dumps(found).encode()
        with suppress(OSError):
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def _watch(self, path: str, query: dict[str, str]) -> None:
        since = int(query.get("resourceVersion") or self.fake.store.version)
        if since < self.fake.store.compacted:
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
        while time.monotonic() < end and not self.fake.closing.is_set():
            with self.fake.store.lock:
                if (
                    since < self.fake.store.compacted
                    and not self.fake.store.events
                    and marked == since
                ):
                    self._event("ERROR", Refused(410, "Expired", "compacted").status)
                    return
                fresh = [e for e in self.fake.store.events if e[0] > since]
                newest = self.fake.store.version
                if not fresh:
                    self.fake.store.lock.wait(self.fake.bookmark_s)
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
        self._http = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Bound", (Handler,), {"fake": self})
        )
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
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
        check(made)
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
            check(made)
            return self.store.write(path, made)

    def say(self, path: str, status: Object) -> None:
        """Write an object's status, as its own controller does."""
        with self.store.lock:
            if path in self.store.objects:
                live = self.store.read(path)
                self.store.write(path, live | {"status": status})


@contextmanager
def serving() -> Iterator[FakeServer]:
    """Return a server that ends with the block."""
    with FakeServer() as fake:
        yield fake
