"""What should run: ``desired.json`` as the supervisor takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.rollout.table import RULES, SLOTS


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a slot should run."""

    package: str
    digest: str
    """Of the package as it was registered; another is not served."""

    version: str
    model: str
    fault: Mapping[str, str] | None = None


def whole(desired: Any) -> dict[str, Any]:
    """Return a desired state in which nothing lacks that every round needs.

    Raises:
        ValueError: Something does.
    """
    try:
        # What was written before there were rules names no slot of theirs.
        for wanted in (*(desired["slots"][name] for name in SLOTS), desired["slots"].get(RULES)):
            _ = wanted is None or Wanted(model=desired["model"], **wanted)
        _ = desired["stop"]
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"{type(e).__name__}: {e}") from e
    return desired
