"""The prohibited-features check: what a version reads, held against what no model may read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.bundle import Bundle
from penstock.stage import Refused
from penstock.workload import Workload

NAME = "prohibited-features"
"""Of the document that the check's result is."""


def check(declared: Workload, package: Bundle, *, also: Iterable[str] = ()) -> dict[str, Any]:
    """Return the result of the check as plain values; ``outcome`` is pass or fail.

    A feature is prohibited if a word of its name is one of a sensitive attribute or of the column
    that holds it: ``age_band`` and ``log_age`` are, ``usage`` is not. That a permitted feature
    stands in for one (a proxy) no name tells; the gate compares the groups for that.

    Args:
        package: Of the version. What its server takes and what its feature service gives are
            looked at, whatever the declaration says today.
        also: Further names that are prohibited.

    Raises:
        Refused: Nothing is prohibited, so there is nothing to check.
    """
    columns = {part.column for attribute in declared.sensitive for part in attribute.groups}
    prohibited = {a.name for a in declared.sensitive} | columns | {*declared.prohibited, *also}
    if not prohibited:
        raise Refused(
            f"{declared.name} declares no sensitive attribute, so a check would find nothing "
            "whatever is read; declare them, or name what is prohibited by --also."
        )
    features = read_by(package)
    found = {f: by for f in features if (by := _named_in(f, prohibited))}
    reason = "; ".join(f"{f} holds {', '.join(by)}" for f, by in found.items())
    return {
        "check": NAME,
        "workload": declared.name,
        "package": package.digest,
        "feature_service": declared.feature_service,
        "features": list(features),
        "prohibited": sorted(prohibited),
        "found": {f: list(by) for f, by in found.items()},
        "outcome": "fail" if found else "pass",
        "reason": reason or f"none of {len(features)} features is one of {len(prohibited)}",
    }


def read_by(package: Bundle) -> tuple[str, ...]:
    """Return the features of a package's server, and of the contract of its features."""
    served = [feature["name"] for feature in package.json("serving.json")["features"]]
    promised = [column["name"] for column in package.json("contract.json")["schema"]]
    return tuple(dict.fromkeys([*served, *promised]))


def _named_in(feature: str, prohibited: Iterable[str]) -> tuple[str, ...]:
    words = feature.lower().split("_")
    return tuple(sorted(p for p in prohibited if _within(p.lower().split("_"), words)))


def _within(wanted: list[str], words: list[str]) -> bool:
    """Return whether some words follow one another in others."""
    return any(words[i : i + len(wanted)] == wanted for i in range(len(words)))
