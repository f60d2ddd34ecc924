"""What should run: ``desired.json`` as the supervisor takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.rollout.table import SLOTS


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
        for name in SLOTS:
            wanted = desired["slots"][name]
            _ = wanted is None or Wanted(model=desired["model"], **wanted)
        owner = desired["owner"]
        _ = desired["stop"], desired["champion"], owner is None or (owner["pid"], owner["start"])
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"{type(e).__name__}: {e}") from e
    return desired
