"""The plan of a release: its steps and limits, declared before the first user is exposed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from penstock.release import EVERYWHERE, Rollout, Trigger
from penstock.workload import settings_of


class Phase(StrEnum):
    """Where a release is."""

    PREPARE = "PREPARE"
    SHADOW = "SHADOW"
    CANARY = "CANARY"
    PROGRESSIVE = "PROGRESSIVE"
    BAKE = "BAKE"
    AWAIT = "AWAIT"
    STEPPED_BACK = "STEPPED_BACK"
    PAUSED = "PAUSED"
    DONE = "DONE"
    ROLLED_BACK = "ROLLED_BACK"
    FAILED = "FAILED"
    KILLED = "KILLED"


ENDED = frozenset({Phase.DONE, Phase.ROLLED_BACK, Phase.FAILED, Phase.KILLED})
"""Phases that nothing leads out of."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One planned share of users."""

    index: int
    name: str
    """``shadow``, ``canary 10 %``, ``progressive 25 %``, ``bake``; unique within a plan."""

    phase: Phase
    """``SHADOW``, ``CANARY``, ``PROGRESSIVE`` or ``BAKE``."""

    percent: int
    """Of users, that the challenger answers; 0 in shadow."""

    soak: timedelta
    deadline: timedelta
    approve: bool = False
    """Whether a person lets the release enter it."""

    @property
    def shadow(self) -> bool:
        """Whether the challenger only gets copies."""
        return self.percent == 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a release does and asks, in real time. Its hash is in the ledger."""

    policy: Rollout
    market: str
    steps: tuple[Step, ...]
    cool_down: timedelta
    burn_in: timedelta
    attribution: timedelta
    slow_for: timedelta
    evidence_timeout: timedelta
    documents: tuple[str, ...] = ()
    first: bool = False
    """There is no champion: nothing to compare with, and nobody to go back to."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, durations in seconds."""
        return settings_of(self)

    def fingerprint(self) -> str:
        """Return the sha256 of everything declared; another plan is another fingerprint."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def named(self, name: str) -> Step:
        """Return the step of a name.

        Raises:
            ValueError: There is none; the text names those there are.
        """
        for step in self.steps:
            if step.name == name:
                return step
        known = ", ".join(repr(s.name) for s in self.steps)
        raise ValueError(f"no step {name!r}; there are {known}.")


def plan_of(
    policy: Rollout,
    *,
    market: str = EVERYWHERE,
    first: bool = False,
    trigger: Trigger = Trigger.MANUAL,
) -> Plan:
    """Return the plan of a policy in one of its markets; times are scaled once, here.

    Raises:
        ValueError: The policy has no such market.
    """
    if market not in policy.market_names():
        raise ValueError(f"no market {market!r}; there are {', '.join(policy.market_names())}.")
    branch = next((m for m in policy.markets if m.name == market), None)
    scale = policy.time_scale
    deadline, soak = policy.deadline * scale, policy.soak * scale
    percents = policy.canary_percents if branch is None else branch.canary_percents
    approve = branch is not None and branch.approve

    def scaled(*choices: timedelta | None) -> timedelta:
        return next((c * scale for c in choices if c is not None), soak)

    canary_soak = scaled(branch.soak if branch else None)
    later = scaled(branch.progressive_soak if branch else None, policy.progressive_soak)
    steps: list[Step] = []

    def add(name: str, phase: Phase, percent: int, wait: timedelta, *, asks: bool = False) -> None:
        steps.append(
            Step(
                index=len(steps),
                name=name,
                phase=phase,
                percent=percent,
                soak=wait,
                deadline=max(deadline, 2 * wait),
                approve=asks,
            )
        )

    if first:
        # Nobody else could answer the users: the one step is all of them, before it counts.
        add("first version", Phase.BAKE, 100, soak, asks=approve)
    else:
        add("shadow", Phase.SHADOW, 0, scaled(policy.shadow_soak))
        for n, percent in enumerate(percents):
            canary = n == 0
            asks = approve or (canary and trigger in policy.approve_triggers)
            name = f"{'canary' if canary else 'progressive'} {percent} %"
            phase = Phase.CANARY if canary else Phase.PROGRESSIVE
            add(name, phase, percent, canary_soak if canary else later, asks=asks)
        add("bake", Phase.BAKE, 100, scaled(policy.bake))
    return Plan(
        policy=policy,
        market=market,
        steps=tuple(steps),
        cool_down=scaled(policy.cool_down),
        burn_in=policy.burn_in * scale,
        attribution=policy.attribution * scale,
        slow_for=policy.slow_for * scale,
        evidence_timeout=policy.evidence_timeout * scale,
        documents=branch.documents if branch else (),
        first=first,
    )


def declared(document: Mapping[str, Any]) -> str:
    """Return the fingerprint of what :meth:`Plan.to_dict` gave, as the ledger keeps it."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
