"""Slots: the InferenceServices of a workload, as a person creates them.

What is here lasts: how a slot's pods run and when they are ready. What a version is made of is left
out (:mod:`penstock.rollout.adapters.assigned` writes it), and what an apply does not name stays
with whoever set it.
"""

from __future__ import annotations

from penstock.rollout.adapters.places import Where
from penstock.rollout.adapters.server import Object
from penstock.rollout.table import RULES, SLOTS

RUNTIME = "penstock-serve"
"""ServingRuntime that says how a slot's pods are started; ``manifests/base/runtimes.yaml``."""

ACCOUNT = PRIORITY = "penstock-serving"
BRINGS = "penstock"
"""ClusterStorageContainer that brings a package to a pod."""

PORT = 8080
NOBODY = 65532
START_S = 600
"""Longest that a package may take to be fetched, verified, warmed and asked."""


def services(where: Where, *, rules: bool) -> list[Object]:
    """Return an InferenceService and a disruption budget for each slot of a workload.

    Args:
        rules: Whether the kill switch goes to rules, which then are a slot of their own.
    """
    names = [*SLOTS, RULES] if rules else SLOTS
    return [made for name in names for made in (_service(where, name), _budget(where, name))]


def labels(where: Where, slot: str) -> dict[str, str]:
    """Return the labels of a slot's objects; KServe gives them to its pods."""
    return {
        "app.kubernetes.io/name": where.place.name,
        "app.kubernetes.io/part-of": "penstock",
        "penstock.io/workload": where.place.name,
        "penstock.io/slot": slot,
        "penstock.io/answers-by": "rules" if slot == RULES else "model",
    }


def _service(where: Where, slot: str) -> Object:
    place = where.place
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": f"{place.name}-{slot}",
            "namespace": place.namespace,
            "labels": {
                **labels(where, slot),
                # KServe makes no route of its own: who is sent where is the table's to say.
                "networking.kserve.io/visibility": "cluster-local",
            },
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                # A standby that had shrunk could not take everybody at once.
                "serving.kserve.io/autoscalerClass": "none",
            },
        },
        "spec": {"predictor": _predictor(where, slot)},
    }


def _predictor(where: Where, slot: str) -> Object:
    pods = {"matchLabels": {"app": _app(where, slot)}}
    return {
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": PRIORITY,
        "storageContainerName": BRINGS,
        # Above preStop, what is in flight, and the last copy of the log.
        "terminationGracePeriodSeconds": 60,
        "deploymentStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "fsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": pods,
            }
            for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
        "model": _model(where, slot),
    }


def _model(where: Where, slot: str) -> Object:
    name = where.place.model
    ready = {"httpGet": {"path": f"/v2/models/{name}/ready", "port": PORT}}
    rules = ["--rules-only"] if slot == RULES else []
    return {
        "modelFormat": {"name": "penstock"},
        "runtime": RUNTIME,
        "protocolVersion": "v2",
        "args": [f"--model-name={name}", f"--slot={slot}", *rules],
        # It listens when its package is verified, warm and right, and not before.
        "startupProbe": {
            **ready,
            "periodSeconds": 5,
            "timeoutSeconds": 2,
            "failureThreshold": START_S // 5,
        },
        "readinessProbe": {
            **ready,
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        },
    }


def _budget(where: Where, slot: str) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": f"{where.place.name}-{slot}",
            "namespace": where.place.namespace,
            "labels": labels(where, slot),
        },
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {"app": _app(where, slot)}},
        },
    }


def _app(where: Where, slot: str) -> str:
    """Return the label by which KServe, in Standard mode, knows the pods of a slot."""
    return f"isvc.{where.place.name}-{slot}-predictor"
