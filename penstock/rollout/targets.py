"""What Prometheus is to ask: a file that it reads again and again (``file_sd_configs``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "targets.json"
SLOTS_JOB = "penstock"
EDGE_JOB = "penstock-edge"


def file_of(folder: Path) -> Path:
    """Return where the targets of a home's servers are written."""
    return folder / FILE


def targets(model: str, slots: Mapping[str, Mapping[str, Any]], admin: str) -> list[dict[str, Any]]:
    """Return the groups of targets.

    A slot is asked as long as it should serve, so that one that is down is seen to be.

    Args:
        slots: By name, as a slot describes itself.
        admin: Envoy's ``host:port`` on loopback, empty while it has none.
    """
    found = [
        _group(f"127.0.0.1:{slot['metrics_port']}", job=SLOTS_JOB, model=model, slot=name)
        for name, slot in slots.items()
        if slot["version"] is not None
    ]
    if admin:
        at = {"__metrics_path__": "/stats/prometheus"}
        found.append(_group(admin, job=EDGE_JOB, model=model, **at))
    return found


def _group(address: str, **labels: str) -> dict[str, Any]:
    return {"targets": [address], "labels": labels}
