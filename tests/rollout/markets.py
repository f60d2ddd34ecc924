"""Releases in markets for tests of people's part: entries as values, or in a real ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from penstock.ledger import MOVED, REGISTERED, Entry, Ledger, Stage
from penstock.ledger.standing import Standing
from penstock.release import Market, Measure, Rollout
from penstock.rollout import folding
from penstock.rollout.plan import Plan, plan_of
from penstock.rollout.state import IN_FORCE, INTENT, OPENED, Act, State
from tests.people import person

BEGIN = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
DIGEST = "sha256:77aa"
DOCUMENTS = ("dpia", "human-review")
EU = Market(
    name="eu",
    canary_percents=(5, 10, 100),
    soak=timedelta(days=7),
    approve=True,
    documents=DOCUMENTS,
)
US = Market(name="us", canary_percents=(10, 100))


def a_policy(**over: Any) -> Rollout:
    """Return a policy of two markets, of which one asks people."""
    plain = {
        "canary_percents": (10, 100),
        "soak": timedelta(days=3),
        "deadline": timedelta(days=90),
        "primary": Measure(name="right", source="right", margin=0.1, deviation=0.4),
        "markets": (US, EU),
    }
    return Rollout(**{**plain, **over})


def standing(name: str, *roles: str, since: int = 0) -> Standing:
    """Return what the ledger would know of somebody."""
    return Standing(roles=frozenset(roles), key_id=person(name).key_id, since=since)


ROLES = {
    "robot": standing("robot", "pipeline"),
    "otto": standing("otto", "operator"),
    "olga": standing("olga", "owner"),
    "carl": standing("carl", "compliance"),
    "ann": standing("ann", "approver"),
    "abe": standing("abe", "approver"),
}
"""Who is who: a pipeline, an operator, an owner, a compliance officer and two approvers."""


@dataclass
class Story:
    """Entries of one workload, a minute apart; in a ledger where there is one."""

    ledger: Ledger | None = None
    policy: Rollout = field(default_factory=a_policy)
    entries: list[Entry] = field(default_factory=list[Entry])
    now: datetime = BEGIN
    n: dict[str, int] = field(default_factory=dict[str, int])

    def add(
        self, kind: str, version: int | None, body: Mapping[str, Any], *, by: str = "robot",
        target: Stage | None = None,
    ) -> Entry:  # fmt: skip
        """Enter something."""
        self.now += timedelta(minutes=1)
        if self.ledger is not None:
            made = self.ledger.append(
                workload="credit", version=version, kind=kind, body=body, actor=person(by),
                now=self.now,
            )  # fmt: skip
        else:
            made = Entry(
                sequence=len(self.entries) + 1, at=self.now.isoformat(), actor=by,
                key_id=person(by).key_id, workload="credit", version=version, kind=kind,
                subject=None, origin=None, target=target, body=body, previous="", hash="",
                signature="",
            )  # fmt: skip
        self.entries.append(made)
        return made

    def register(
        self, version: int, *, by: str = "robot", digest: str = DIGEST, package: Path | None = None
    ) -> None:
        """Register a version and let it in."""
        said = {"package": str(package or f"packages/{version}"), "digest": digest}
        self.add(REGISTERED, version, said, by=by)
        self.move(version, Stage.STAGING)

    def move(self, version: int, *stages: Stage) -> None:
        """Move a version through its lifecycle."""
        for stage in stages:
            self.add(MOVED, version, {"to": str(stage), "reason": "told"}, target=stage)

    def plan(self, market: str) -> Plan:
        """Return the plan of a market."""
        return plan_of(self.policy, market=market)

    def open(self, version: int, market: str, *, by: str = "otto", digest: str = DIGEST) -> str:
        """Open a release; return its name."""
        release = folding.next_release(self.entries, "credit", version, market)
        plan = self.plan(market)
        arms = {
            "challenger": {"version": version, "digest": digest, "slot": "b"},
            "champion": {"version": 1, "digest": "sha256:11cc", "slot": "a"},
        }
        body = {"release": release, "market": market, "trigger": "manual", **arms}
        declared = {"plan": plan.to_dict(), "plan_hash": plan.fingerprint()}
        self.add(OPENED, version, {**body, **declared}, by=by)
        return release

    def intend(
        self, release: str, act: Act, step: int | None = None, *, fingerprint: str = "e1",
        answers: int | None = None,
    ) -> None:  # fmt: skip
        """Enter an intent whose effect is not read back."""
        self.n[release] = self.n.get(release, 0) + 1
        body = {
            "release": release, "n": self.n[release], "action": str(act), "step": step,
            "why": "told", "table": None, "verdict": None, "fingerprint": fingerprint,
            "answers": answers,
        }  # fmt: skip
        self.add(INTENT, int(release.split("/")[1]), body)

    def confirm(self, release: str) -> None:
        """Enter that the last intent is in force."""
        body = {"release": release, "n": self.n[release], "milliseconds": 1.0}
        self.add(IN_FORCE, int(release.split("/")[1]), body)

    def do(self, release: str, act: Act, step: int | None = None, **named: Any) -> None:
        """Enter an intent and that it is in force."""
        self.intend(release, act, step, **named)
        self.confirm(release)

    def climb(self, release: str, last: int | None = None) -> None:
        """Enter every step up to one, or to the plan's last."""
        steps = self.plan(release.split("/")[2]).steps
        for step in range(len(steps) if last is None else last + 1):
            self.do(release, Act.ENTER, step)

    def finish(self, version: int, market: str) -> str:
        """Carry a release to its end; return its name."""
        release = self.open(version, market)
        self.climb(release)
        self.do(release, Act.FINISH)
        return release

    def state(self, release: str) -> State:
        """Return where a release stands."""
        return folding.fold(self.entries, release)


def waiting(story: Story, *, fingerprint: str = "e1", registered: bool = False) -> str:
    """Let a release of version 3 in the EU wait for its canary; return its name."""
    if not registered:
        story.register(3)
    release = story.open(3, "eu")
    story.do(release, Act.ENTER, 0)
    story.do(release, Act.AWAIT, 1, fingerprint=fingerprint)
    return release
