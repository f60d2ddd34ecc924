"""What the rest of Penstock asks of a model registry, and what every version in it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.bundle import Bundle
from penstock.request import Contract

PREFIX = "penstock."
"""Every tag of a version that is ours begins so; what people add under other names is theirs."""

FINGERPRINT, DIGEST = f"{PREFIX}fingerprint", f"{PREFIX}digest"
ORPHAN = f"{PREFIX}orphan"
"""Tag of a version that the ledger does not know, with the reason; nobody serves it."""

PLAIN = ("owner", "seed", "data", "data_digest", "feature_definitions")
"""Fields of ``lineage.json`` that are tags under their own name."""

BUDGET = ("latency_p50_ms", "latency_p99_ms", "throughput_per_s", "peak_memory_mb", "cores")
"""What the budget says of expected latency and needed resources, where it was measured."""

LONGEST_CARD = 5000
"""Characters of a version's description that every store takes."""

MORE = "\n\n… The whole card is in the package: card.md"


@dataclass(frozen=True, kw_only=True)
class Held:
    """One version as the registry has it."""

    version: int
    tags: Mapping[str, str]
    """Only ours, see ``PREFIX``."""


@dataclass(frozen=True, kw_only=True)
class State:
    """All that a registry holds of one workload, to be compared with the ledger."""

    versions: tuple[Held, ...] = ()
    aliases: Mapping[str, int]
    unfinished: Mapping[str, str]
    """Runs of registrations that no version names: identity to the package's fingerprint."""


class Registry(Protocol):
    """Keeps numbered versions of a workload's packages, and movable aliases."""

    def alone(self) -> AbstractContextManager[object]:
        """Return what is held while registering, where the registry's store needs it."""
        ...

    def add(
        self, workload: str, package: Bundle, *, experiment: str, tags: Mapping[str, str]
    ) -> int:
        """Keep a package as a new version and return its number; finish what was begun before."""
        ...

    def find(self, workload: str, *, digest: str) -> list[int]:
        """Return the versions that hold the package of this digest, oldest first."""
        ...

    def package(self, workload: str, version: int) -> Bundle:
        """Return a version's package in a folder of this machine, every byte of it checked."""
        ...

    def tag(self, workload: str, version: int, tags: Mapping[str, str | None]) -> None:
        """Set a version's tags; None takes one away."""
        ...

    def state(self, workload: str) -> State:
        """Return what is held."""
        ...

    def point(self, workload: str, aliases: Mapping[str, int | None]) -> None:
        """Let each alias name its version, or nothing."""
        ...


def described(package: Bundle, evidence: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a package's version, all under ``PREFIX``.

    Args:
        evidence: What the ledger's entry of it says besides; ``keep_until`` is shown here too.

    Texts stay as they are; everything else is JSON. A field that has no value gives no tag.
    """
    lineage: dict[str, Any] = package.json("lineage.json")
    inputs, outputs = schema(package)
    said = {
        "fingerprint": package.fingerprint,
        "digest": package.digest,
        **{name: lineage[name] for name in PLAIN},
        "code": lineage["code"]["git"] or lineage["code"]["sources"],
        "image": lineage["image"],
        "gate": package.json("verdicts/gate.json")["outcome"],
        "inputs": inputs,
        "outputs": outputs,
        **{name: lineage["budget"].get(name) for name in BUDGET},
        "keep_until": evidence.get("keep_until"),
        "rehearsal": lineage["rehearsal"],
    }
    return {PREFIX + name: _text(value) for name, value in said.items() if value is not None}


def schema(package: Bundle) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the tensors of a request and of its answer: name, v2 type, shape (-1: rows)."""
    contract = Contract.from_dict(package.json("serving.json"))
    inputs = [{"name": f.name, "datatype": f.datatype, "shape": f.shape} for f in contract.features]
    outputs = [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probability", "datatype": "FP32", "shape": [-1, contract.classes]},
    ]
    return inputs, outputs


def shown_card(package: Bundle) -> str:
    """Return the model card, or as much of its beginning as fits a version's description."""
    card = package.file("card.md").read_text(encoding="utf-8")
    if len(card) <= LONGEST_CARD:
        return card
    return card[: LONGEST_CARD - len(MORE)] + MORE


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
