"""Servers and traffic tables that cost nothing, so that what is measured is the controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.rollout.table import TrafficTable
from tests.rollout.machine_parts import MemoryPlane

FIRST = TrafficTable(sequence=3, salt="", champion="a", challenger=None, buckets=0, mirror=None)


@dataclass
class StillPlane(MemoryPlane):
    """A plane of one workload in memory: both slots serve, and nothing ever happens to them."""

    home: Path = Path()
    versions: Mapping[str, int] = field(default_factory=dict[str, int])
    """Of each slot."""

    def status(self) -> Mapping[str, Any]:
        """Return what a supervisor would say of its slots."""
        slots = {
            slot: {"version": str(version), "state": "ready", "seconds": 1.0, "error": ""}
            for slot, version in self.versions.items()
        }
        return {"slots": slots, "model": "told"}

    def ready(self, slot: str) -> bool:  # noqa: ARG002 - whichever
        """Say that every slot is ready."""
        return True

    def verify_slot(self, slot: str) -> str:  # noqa: ARG002 - whichever
        """Find nothing wrong with a slot's golden answers."""
        return ""

    def tables(self) -> Mapping[str, TrafficTable]:
        """Return the tables that were written last, by market."""
        return {market: self.written(market) for market in self.history}


def still(home: Path, versions: Mapping[str, int], table: TrafficTable | None = None) -> StillPlane:
    """Return a plane whose one table is in force."""
    return StillPlane(history={"all": [table or FIRST]}, home=home, versions=versions)
