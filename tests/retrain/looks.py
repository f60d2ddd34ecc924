"""Short ways to say what the monitor found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.bundle import Bundle, Recipe, Summary, write, write_json
from penstock.retrain.signals import QUESTIONS, Signals
from penstock.verdict import Outcome
from tests.bundles import NOW

PASS, FAIL, ERROR, UNSURE = Outcome.PASS, Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE


def signals(**said: Any) -> Signals:
    """Return signals of a champion that is as it was, save what is said."""
    usual: dict[str, Any] = {
        "evidence": PASS, "quality": PASS, "drift": PASS, "scores": PASS, "performance": PASS,
        "psi": 0.01, "drop": 0.0, "registered": 0.9,
        "reasons": {name: f"reason of {name}" for name in QUESTIONS},
    }  # fmt: skip
    return Signals(**{**usual, **said})


def drifted(psi: float = 0.3, **said: Any) -> Signals:
    """Return signals of a world that moved, of which no outcome is known."""
    return signals(**{"drift": FAIL, "psi": psi, "performance": None, "drop": None, **said})


def fell(drop: float = 0.05, **said: Any) -> Signals:
    """Return signals of a metric that fell from 0.9."""
    return signals(**{"performance": FAIL, "drop": drop, **said})


def document(found: Signals, *, version: int = 1, since: str = "2026-01-04") -> dict[str, Any]:
    """Return ``signals.json`` as the monitor writes it."""

    def told(name: str) -> dict[str, Any]:
        outcome: Outcome | None = getattr(found, name)
        return {"outcome": str(outcome or "unknown"), "reason": found.why(name)}

    return {
        "version": version,
        "since": since,
        "until": "2026-01-05",
        "errors": list(found.errors),
        **{name: told(name) for name in QUESTIONS},
        "drift": {**told("drift"), "feature": "use", "psi": found.psi},
        "performance": {
            **told("performance"), "metric": "accuracy", "registered": found.registered,
            "drop": found.drop, "fallen": list(found.fallen),
        },
        "diagnosis": "made for a test",
    }  # fmt: skip


def look(path: Path, found: Signals, *, workload: str = "digits", since: str = "") -> Bundle:
    """Write the monitor's bundle with these signals."""

    def fill(folder: Path) -> Summary:
        write_json(folder / "signals.json", document(found, since=since or path.name))
        return Summary("pass", "made for a test")

    recipe = Recipe(kind="monitor", workload=workload, settings={"of": path.name})
    return write(path, recipe, make=fill, now=NOW)
