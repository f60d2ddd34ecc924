"""A stage for the adapters: a fake API server, its gateway's controller, and edges that answer.

The controller programs the edges and says so in the objects' status, a while after each change. An
edge routes by what it was programmed with, as :mod:`interpreting` reads it, and answers as the slot
that a request reaches. What is here stands in for a cluster; nothing here was run on one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hypothesis import strategies as st

from penstock.release import EVERYWHERE
from penstock.rollout.adapters.annotated import Tables, tables_of
from penstock.rollout.adapters.cluster import ClusterPlane
from penstock.rollout.adapters.gateway import Gateway
from penstock.rollout.adapters.istio import Istio
from penstock.rollout.adapters.kubernetes import Session
from penstock.rollout.adapters.place import Place
from penstock.rollout.adapters.server import Server
from penstock.rollout.table import BUCKETS, RULES, SLOTS, TrafficTable, bucket_of
from tests.rollout.adapters.fakeserver import TOKEN, FakeServer
from tests.rollout.adapters.interpreting import Answer, Asked, by_routes, by_virtual_services

Object = dict[str, Any]

HOST = "digits.example.com"
PLACE = Place(
    name="digits",
    namespace="models",
    model="digits",
    host=HOST,
    gateway="edge",
    gateway_namespace="gateways",
    edges=("http://127.0.0.1:1",),
)
LABELS = {"istio": "ingressgateway"}


def table(**changes: Any) -> TrafficTable:
    """Return a table of everybody: slot a, nobody exposed."""
    first = TrafficTable(
        sequence=0, salt="s", champion="a", challenger=None, buckets=0, mirror=None
    )
    return replace(first, **changes)


def first(**changes: Any) -> Tables:
    """Return the tables that a person creates the objects with."""
    return {EVERYWHERE: table(**changes)}


@st.composite
def tables_of_market(draw: st.DrawFn, market: str = EVERYWHERE) -> TrafficTable:
    """Return any table of a market that is allowed."""
    champion = draw(st.sampled_from(SLOTS))
    other = "b" if champion == "a" else "a"
    challenger = draw(st.sampled_from([None, other]))
    buckets = draw(st.integers(0, BUCKETS)) if challenger else 0
    copied = draw(st.sampled_from(["mirror", "trickle", "nobody"]))
    standby = champion if buckets == BUCKETS else other
    trickles = copied == "trickle" and (buckets in (0, BUCKETS))
    return TrafficTable(
        sequence=draw(st.integers(0, 9)),
        salt=draw(st.text('abc"\\\n\x00é-', max_size=5)),
        champion=champion,
        challenger=challenger,
        buckets=buckets,
        mirror=other if copied == "mirror" else None,
        market=market,
        trickle=standby if trickles else None,
        fallback=draw(st.sampled_from([None, *SLOTS, RULES])),
    )


@st.composite
def tables_of_markets(draw: st.DrawFn) -> Tables:
    """Return tables of up to three markets, that of everybody among them."""
    markets = draw(st.sets(st.sampled_from(["eu", "us"]), max_size=2))
    return {m: draw(tables_of_market(m)) for m in [*sorted(markets), EVERYWHERE]}


GATEWAY: Object = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "edge", "namespace": "gateways"},
    "spec": {
        "gatewayClassName": "istio",
        "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
    },
}


def service(slot: str) -> Object:
    """Return a slot's InferenceService."""
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": f"digits-{slot}", "namespace": "models"},
        "spec": {"predictor": {"minReplicas": 1}},
    }


class Programming:
    """The gateway's controller: programs edges and writes status, a while after each change."""

    def __init__(self, fake: FakeServer, *, delay_s: float = 0.02) -> None:
        self.fake, self.delay_s = fake, delay_s
        self.edges: list[Edge] = []
        self.held = threading.Event()
        """While set, nothing is programmed."""

        self.leaves: set[str] = set()
        """Kinds that another controller looks after."""

        self._timers: list[threading.Timer] = []
        fake.store.changed.append(self._later)

    def _later(self, path: str, found: Object) -> None:
        timer = threading.Timer(self.delay_s, self.program, (path, found))
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def program(self, path: str, found: Object) -> None:
        """Take one object over."""
        if self.held.is_set() or self.fake.closing.is_set() or found["kind"] in self.leaves:
            return
        for edge in self.edges:
            edge.objects[path] = found
        self.fake.say(path, _status(found))

    def settle(self) -> None:
        """Wait until everything that was changed is programmed."""
        for timer in self._timers:
            timer.join()

    def end(self) -> None:
        """Program nothing more."""
        for timer in self._timers:
            timer.cancel()
            timer.join()


def _condition(kind: str, generation: int | None) -> Object:
    said = {"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": ""}
    return said if generation is None else said | {"observedGeneration": generation}


def _status(found: Object) -> Object:
    """Return what a controller says of an object it has taken over."""
    generation = found["metadata"]["generation"]
    if found["kind"] == "Gateway":
        return {"conditions": [_condition("Programmed", generation)]}
    if found["kind"] == "HTTPRoute":
        conditions = [_condition(k, generation) for k in ("Accepted", "ResolvedRefs")]
        parents = found["spec"].get("parentRefs", [])
        return {"parents": [{"parentRef": p, "conditions": conditions} for p in parents]}
    if found["kind"] == "Service":
        traffic = found["spec"]["traffic"]
        return {
            "observedGeneration": generation,
            "conditions": [_condition("RoutesReady", None)],
            "traffic": traffic,
        }
    return {"observedGeneration": generation, "conditions": [_condition("Ready", None)]}


class Edge:
    """One replica of the gateway: it routes by what it was programmed with."""

    def __init__(self, versions: dict[str, list[str]]) -> None:
        self.objects: dict[str, Object] = {}
        self.versions = versions
        """Of each Service's pods, asked in turn."""

        self.assigns = True
        """Whether it runs the assigner."""

        self.users: list[tuple[str, Answer]] = []
        """Who asked, and where that went."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _answering(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def end(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def route(self, asked: Asked) -> Answer | None:
        """Return where a request of a user goes."""
        held = dict(self.objects)
        asked = self._assigned(asked, held)
        routes = [o for o in held.values() if o["kind"] == "HTTPRoute"]
        if routes:
            return by_routes(routes, asked)
        roots = {o["metadata"]["name"]: o for o in held.values() if o["kind"] == "VirtualService"}
        return by_virtual_services(roots, "digits", asked)

    def _assigned(self, asked: Asked, held: dict[str, Object]) -> Asked:
        filters = [o for o in held.values() if o["kind"] == "EnvoyFilter"]
        headers = {n: v for n, v in asked.headers if n != "x-rollout-bucket"}
        if not self.assigns or not filters:
            return asked
        tables = tables_of(filters[0])
        by = tables.get(headers.get("x-market", ""), tables[EVERYWHERE])
        headers["x-rollout-bucket"] = str(bucket_of(by.salt, headers.get("x-user-id", "")))
        return replace(asked, headers=tuple(headers.items()))


def _answering(edge: Edge) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            headers = tuple((n.lower(), v) for n, v in self.headers.items())
            asked = Asked(self.headers["host"], self.path, "GET", headers)
            found = edge.route(asked)
            if found is None:
                self.send_response(404)
                self.end_headers()
                return
            edge.users.append((self.headers.get("x-user-id", ""), found))
            pods = edge.versions[found.service]
            pods.append(pods.pop(0))
            self.send_response(200)
            self.send_header("x-penstock-slot", found.service.split("-")[1])
            self.send_header("x-penstock-version", pods[0])
            self.end_headers()

    return Handler


class Stage:
    """Everything that a test of an adapter needs."""

    def __init__(self, fake: FakeServer, kind: str, edges: int, delay_s: float) -> None:
        self.fake = fake
        self.programming = Programming(fake, delay_s=delay_s)
        self.edges = [
            Edge(
                {
                    PLACE.service("a"): ["1"],
                    PLACE.service("b"): ["2"],
                    PLACE.service(RULES): ["rules"],
                }
            )
            for _ in range(edges)
        ]
        self.programming.edges = self.edges
        self.place = replace(PLACE, edges=tuple(edge.url for edge in self.edges))
        self.dialect: Any = (
            Gateway(self.place) if kind == "gateway" else Istio(self.place, gateway_labels=LABELS)
        )
        for slot in SLOTS:
            fake.create(service(slot), manager="person")
        if kind == "gateway":
            fake.create(GATEWAY, manager="person")
        for found in self.dialect.manifests(first()):
            ours = found["metadata"]["name"] != "digits" or kind == "gateway"
            fake.create(found, manager="penstock-release" if ours else "person")
        self.plane = self.controller()
        self.main = self.dialect.main.path

    def controller(self, *, timeout_s: float = 5.0) -> ClusterPlane:
        """Return one more controller over the same objects."""
        server = Server(Session.at(self.fake.url, token=TOKEN), timeout_s=timeout_s)
        # Waiting is real, only shorter: what is polled here answers at once.
        return ClusterPlane(server, self.dialect, sleep=lambda seconds: time.sleep(seconds / 20))

    def put(self, wanted: TrafficTable) -> None:
        """Put a table in force."""
        self.plane.apply(wanted)
        self.plane.wait_applied(wanted, timeout_s=10.0)

    def asked(self, user: str, market: str | None = None) -> Answer | None:
        """Return where a user's request goes at the first edge."""
        headers = (("x-user-id", user), *((("x-market", market),) if market else ()))
        return self.edges[0].route(Asked(HOST, "/v2/models/digits/infer", "POST", headers))


@contextmanager
def stage(kind: str = "gateway", *, edges: int = 1, delay_s: float = 0.0) -> Iterator[Stage]:
    """Return a stage that ends with the block."""
    with ExitStack() as stack:
        fake = stack.enter_context(FakeServer())
        made = Stage(fake, kind, edges, delay_s)
        for edge in made.edges:
            stack.callback(edge.end)
        stack.callback(made.programming.end)
        yield made


def wait(true: Any, timeout_s: float = 10.0) -> None:
    """Wait until something is so."""
    tick = threading.Event()
    for _ in range(int(timeout_s / 0.01)):
        if true():
            return
        tick.wait(0.01)
    raise AssertionError("it never was so")
