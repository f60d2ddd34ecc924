"""First: the objects that a person creates once, before anything was ever released."""

from __future__ import annotations

from penstock.release import EVERYWHERE
from penstock.rollout.adapters.assigned import STOP
from penstock.rollout.adapters.places import Where
from penstock.rollout.adapters.server import Object
from penstock.rollout.table import RULES, SLOTS, TrafficTable

FIRST = TrafficTable(sequence=0, salt="", champion="a", challenger=None, buckets=0, mirror=None)
"""Everybody on slot a, where nobody answers until something is released."""


def first_objects(where: Where, *, rules: bool) -> list[Object]:
    """Return routes with everybody on slot a, and of each slot that it serves nothing yet.

    They are applied once, by the field manager ``penstock-release``: what is applied under that
    name is the controller's from then on, and only that.

    Args:
        rules: The policy falls back on rules, so there is a slot of them.
    """
    routes = where.made().manifests({EVERYWHERE: FIRST})
    slots = [*SLOTS, RULES] if rules else list(SLOTS)
    return [*routes, *(_stopped(where, slot) for slot in slots)]


def _stopped(where: Where, slot: str) -> Object:
    """Return of a slot what the controller owns of one that serves nothing."""
    place = where.place
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": f"{place.name}-{slot}",
            "namespace": place.namespace,
            "annotations": {STOP: "true"},
        },
    }
