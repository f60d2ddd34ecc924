"""KServe as far as a release meets it: InferenceServices become pods that answer, or refuse to.

Standard mode of v0.20: annotations go to the pods, ``serving.kserve.io/stop`` takes Deployment and
Service away, a change of what a pod is made of replaces pods, status says of which generation it
is. A pod is a real server that verifies what it was given as ours do: by digest.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from penstock.bundle import Bundle
from tests.rollout.adapters.fakeserver import FakeServer
from tests.rollout.adapters.fakestore import path_of
from tests.rollout.adapters.stage import PLACE, Edge

Object = dict[str, Any]


@dataclass(kw_only=True)
class Pod:
    """One pod of a slot."""

    slot: str
    version: str
    bundle: Bundle | None
    wrong: bool = False
    """Whether it answers otherwise than its package says."""

    def __post_init__(self) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _answers(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._http.server_port

    def predictions(self, n: int) -> list[Object]:
        """Return the golden answers of a package."""
        assert self.bundle is not None
        requests = self.bundle.json("golden.json")["requests"][:n]
        logits_nk = np.array([r["logits"] for r in requests]) + (
            np.arange(10) if self.wrong else 0.0
        )
        grown_nk = np.exp(logits_nk - logits_nk.max(axis=1, keepdims=True))
        chance_nk = grown_nk / grown_nk.sum(axis=1, keepdims=True)
        return [{"probability": chances.tolist()} for chances in chance_nk]

    def end(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def _answers(pod: Pod) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._send({"name": "digits", "ready": True})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert self.headers["x-rollout-arm"] == "probe"
            self._send({"predictions": pod.predictions(len(asked["instances"]))})

        def _send(self, said: Object) -> None:
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("x-penstock-slot", pod.slot)
            self.send_header("x-penstock-version", pod.version)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


@dataclass
class KServe:
    """The controller of InferenceServices, in the time that a call takes."""

    fake: FakeServer
    edges: list[Edge]
    packages: Mapping[str, Bundle]
    """By the address that an InferenceService names."""

    pods: dict[str, list[Pod]] = field(default_factory=dict)
    stuck: bool = False
    """While set, nobody looks after InferenceServices."""

    forgets: bool = False
    """While set, the last pod of slot b is one of version 1."""

    _one: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.fake.store.changed.append(self._changed)

    def _changed(self, path: str, found: Object) -> None:
        if found["kind"] == "InferenceService" and not self.stuck:
            with self._one:
                self.reconcile(path, found)

    def reconcile(self, path: str, found: Object) -> None:
        """Bring pods and status to what an InferenceService says."""
        slot = found["metadata"]["name"].rpartition("-")[2]
        said = found["metadata"].get("annotations", {})
        model = found["spec"]["predictor"].get("model", {})
        uri, wanted = model.get("storageUri"), found["spec"]["predictor"].get("minReplicas", 1)
        if said.get("serving.kserve.io/stop") == "true" or uri is None:
            self.replace(slot, [])
            self._say(path, found, "False", "Stopped")
            return
        bundle = self.packages.get(uri)
        if bundle is None or bundle.digest != said["penstock.io/digest"]:
            self.replace(slot, [])
            self._say(path, found, "False", "ModelLoadFailed", failed="another digest")
            return
        version = said["penstock.io/version"]
        held = self.pods.get(slot, [])
        if [(p.version, p.bundle) for p in held] != [(version, bundle)] * wanted:
            made = [Pod(slot=slot, version=version, bundle=bundle) for _ in range(wanted)]
            if self.forgets and slot == "b":
                made[-1].version = "1"
            self.replace(slot, made)
        self._say(path, found, "True", "Ready")

    def remember(self) -> None:
        """Let the pod that was forgotten be as the others."""
        self.forgets = False
        for pod in self.pods["b"]:
            pod.version = "2"

    def replace(self, slot: str, pods: list[Pod]) -> None:
        """Let these pods stand behind a slot's Service."""
        for pod in self.pods.get(slot, []):
            if pod not in pods:
                pod.end()
        self.pods[slot] = pods
        self.show(slot)

    def show(self, slot: str) -> None:
        """Write the slot's EndpointSlices, one a pod: they share an address here, not a port."""
        service, store = PLACE.service(slot), self.fake.store
        for edge in self.edges:
            edge.versions[service] = [pod.version for pod in self.pods[slot]] or ["nobody"]
        for n in range(max(3, len(self.pods[slot]))):
            made = endpoints(service, n, self.pods[slot][n : n + 1])
            if path_of(made) in store.objects:
                store.remove(path_of(made))
            if made["endpoints"]:
                store.write(path_of(made), made)

    def _say(self, path: str, found: Object, ready: str, reason: str, *, failed: str = "") -> None:
        status: Object = {
            "observedGeneration": found["metadata"]["generation"],
            "conditions": [{"type": "Ready", "status": ready, "reason": reason, "message": ""}],
            "modelStatus": {"transitionStatus": "UpToDate", "copies": {"failedCopies": 0}},
        }
        if failed:
            status["modelStatus"] |= {
                "transitionStatus": "BlockedByFailedLoad",
                "lastFailureInfo": {"reason": reason, "message": failed},
            }
        self.fake.say(path, status)

    def end(self) -> None:
        """Stop every pod."""
        self.stuck = True
        for pods in self.pods.values():
            for pod in pods:
                pod.end()


def endpoints(service: str, n: int, pods: list[Pod]) -> Object:
    """Return an EndpointSlice of a Service's pods, which share a port."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-{n}",
            "namespace": PLACE.namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}} for _ in pods],
        "ports": [{"name": "http", "port": pod.port, "protocol": "TCP"} for pod in pods],
    }
