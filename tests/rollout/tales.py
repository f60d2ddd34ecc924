"""Releases for tests of what is told: real ledger entries in the grammar of ``state.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from penstock.ledger import Ledger
from penstock.ledger.entry import Entry
from penstock.release import Measure, Rollout
from penstock.rollout.judgement import Effect, Judgement, Seen
from penstock.rollout.looks import look
from penstock.rollout.plan import Plan, plan_of
from penstock.rollout.state import APPROVAL, COMMAND, IN_FORCE, INTENT, OPENED, Act
from penstock.rollout.table import TrafficTable, buckets_for
from penstock.verdict import Check, Outcome, Verdict
from tests.people import person

BEGIN = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
RELEASE = "digits/2/all/1"


def a_policy(**over: Any) -> Rollout:
    """Return a policy of a short canary."""
    plain = {
        "canary_percents": (10, 50, 100),
        "soak": timedelta(hours=1),
        "deadline": timedelta(hours=6),
        "primary": Measure(name="clicks", source="label", margin=0.01, deviation=0.2),
        "evidence_timeout": timedelta(hours=2),
        "bake": timedelta(hours=12),
    }
    return Rollout(**{**plain, **over})


def a_row(name: str, outcome: str = "pass", **over: Any) -> dict[str, Any]:
    """Return a row of evidence as the judge gives it."""
    plain = {
        "name": name,
        "role": "guardrail",
        "estimate": 1.1,
        "low": 0.7,
        "high": 1.8,
        "limit": 2.0,
        "side": "below",
        "unit": "×",
        "outcome": outcome,
        "reason": "1.10 [0.70, 1.80], below 2",
        "users": {"champion": 900, "challenger": 101},
        "needed": 100,
    }
    return {**plain, **over}


ROWS = (
    a_row("clicks", role="primary", unit="per user", estimate=0.004, low=-0.002, high=0.011,
          limit=-0.01, side="above", needed=400),
    a_row("failing users"),
    a_row("slow users", "inconclusive", role="latency", estimate=0.02, low=0.0, high=0.09,
          limit=0.05, unit="share"),
)  # fmt: skip


@dataclass
class Tale:
    """Writes the entries of one release, a minute apart."""

    ledger: Ledger
    release: str = RELEASE
    plan: Plan = field(default_factory=lambda: plan_of(a_policy()))
    now: datetime = BEGIN
    n: int = 0
    sequence: int = 10

    @classmethod
    def begun(cls, folder: Path, **over: Any) -> Tale:
        """Open a release in a ledger of a folder."""
        tale = cls(Ledger(f"sqlite:///{folder / 'ledger.db'}"), **over)
        tale.open()
        return tale

    @property
    def workload(self) -> str:
        """The workload of the release."""
        return self.release.split("/")[0]

    @property
    def version(self) -> int:
        """The version that is released."""
        return int(self.release.split("/")[1])

    def append(self, kind: str, body: Mapping[str, Any], *, by: str = "tester") -> Entry:
        """Enter something, a minute after what was before."""
        self.now += timedelta(minutes=1)
        return self.ledger.append(
            workload=self.workload,
            version=self.version,
            kind=kind,
            body=body,
            actor=person(by),
            now=self.now,
        )

    def open(self) -> Entry:
        """Enter the opening."""
        arms = {"challenger": {"version": self.version, "digest": "sha256:77aa", "slot": "b"},
                "champion": {"version": 1, "digest": "sha256:11cc", "slot": "a"}}  # fmt: skip
        body = {"release": self.release, "market": "all", "trigger": "manual", **arms}
        plan = {"plan": self.plan.to_dict(), "plan_hash": self.plan.fingerprint()}
        return self.append(OPENED, {**body, **plan})

    def decide(
        self, act: Act, step: int | None = None, *, why: str = "each check passed", **more: Any
    ) -> Entry:
        """Enter an intent, and that its effect was read back."""
        self.n += 1
        body = {
            "release": self.release,
            "n": self.n,
            "action": str(act),
            "step": step,
            "why": why,
            "table": self.table(act, step),
            "verdict": {"outcome": "pass", "checks": []},
            "fingerprint": "sha256:33ee",
            "answers": None,
            "rows": list(ROWS),
            **more,
        }
        intent = self.append(INTENT, body)
        self.append(IN_FORCE, {"release": self.release, "n": self.n, "milliseconds": 41.5})
        return intent

    def table(self, act: Act, step: int | None) -> dict[str, Any] | None:
        """Return the table of an act, where it has one."""
        if step is None and act not in (Act.ROLL_BACK, Act.FINISH):
            return None
        self.sequence += 1
        percent = 0 if step is None else self.plan.steps[step].percent
        champion = "b" if act is Act.FINISH else "a"
        return TrafficTable(
            sequence=self.sequence,
            salt=self.release,
            champion=champion,
            challenger="b" if percent else None,
            buckets=buckets_for(percent),
            mirror="b" if step == 0 else None,
        ).to_dict()

    def climb(self, last: int) -> None:
        """Enter every step up to one."""
        for step in range(last + 1):
            self.decide(Act.ENTER, step)

    def command(self, ask: str, *, reason: str = "lunch", by: str = "tester") -> Entry:
        """Enter what a person asks."""
        return self.append(COMMAND, {"release": self.release, "command": ask, "reason": reason},
                           by=by)  # fmt: skip

    def approve(self, *, granted: bool = True, expires: datetime | None = None) -> Entry:
        """Enter an answer to what the release waits for."""
        expires = expires or self.now + timedelta(days=14)
        body = {
            "granted": granted,
            "expires": expires.isoformat(),
            "binds": {"step": "canary 10 %"},
        }
        return self.append(APPROVAL, {"release": self.release, **body, "reason": "looked at it"})

    @property
    def entries(self) -> list[Entry]:
        """Everything that was entered."""
        return self.ledger.entries()


def looks_of(
    tale: Tale, step: str, share_percent: float, *, count: int = 40, drop: float = 0.0
) -> list[dict[str, Any]]:
    """Return looks at a step, a minute apart: sequences narrow, clicks sink by ``drop``."""
    made: list[dict[str, Any]] = []
    for i in range(1, count + 1):
        half, users = 0.06 / i**0.5, 40 * i
        clicks, slow = 0.002 - drop, 0.01 + 0.08 * drop * i
        counted = {"challenger": users, "champion": 9 * users}
        rows = (
            a_row("clicks", "fail" if clicks + half < 0 else "inconclusive", role="primary",
                  unit="per user", estimate=clicks, low=clicks - half, high=clicks + half,
                  limit=-0.01, side="above", users=counted, needed=400),
            a_row("failing users", estimate=1.05, low=1.05 / (1 + 30 * half),
                  high=1.05 * (1 + 30 * half), users=counted),
            a_row("slow users, over 20 ms", role="latency", unit="share", estimate=slow,
                  low=max(0, slow - half), high=slow + half, limit=0.05, users=counted),
            a_row("split of users", role="split", unit="share", estimate=0.0938, low=None,
                  high=None, limit=0.0938),
        )  # fmt: skip
        judgement = Judgement(
            verdict=Verdict((Check(name="clicks", outcome=Outcome.INCONCLUSIVE, reason="few"),)),
            effect=Effect.UNCLEAR,
            reason="clicks: few",
            rows=rows,
            segments=copies() if not share_percent else slices(i),
        )
        tale.now += timedelta(minutes=1)
        scatter = [[j / 50, j / 50 + 0.02 * (-1) ** j] for j in range(50)]
        summary = {"compared": users, **({} if share_percent else {"scatter": scatter})}
        made.append(
            look(at=tale.now, step=step, share_percent=share_percent,
                 seen=Seen(ready=True, judgement=judgement), summary=summary,
                 why="clicks: few", waits_for="users", until=tale.now + timedelta(hours=3))
        )  # fmt: skip
    return made


def copies() -> tuple[dict[str, Any], ...]:
    """Return how alike the answers to copies were, as the judge gives it."""
    found = {"estimate": 0.92, "low": 0.88, "high": 0.95}
    numbers = dict.fromkeys(("spearman", "kendall", "overlap", "divergence"), found)
    names = ("all", "new viewers")
    return tuple({"name": n, "pairs": 480, **numbers, "decided_otherwise": found} for n in names)


def slices(i: int) -> tuple[dict[str, Any], ...]:
    """Return slices of users, as the judge gives them."""
    found = {"estimate": -0.02, "low": -0.05, "high": 0.01}
    users = {"challenger": 20 * i, "champion": 180 * i}
    names = ("new viewers", "<b>old</b>")
    return tuple(
        {"name": n, "users": users, "effects": {"clicks": found}, "failing": found, "slow": found,
         "outcome": "inconclusive"}
        for n in names
    )  # fmt: skip


def rolled_back(folder: Path) -> tuple[Tale, list[dict[str, Any]]]:
    """Return a release with two strikes, and what was looked at meanwhile."""
    tale = Tale.begun(folder)
    tale.decide(Act.ENTER, 0, why="its server is ready")
    seen = looks_of(tale, "shadow", 0.0)
    tale.decide(Act.ENTER, 1, why="4 of 4 checks passed")
    seen += looks_of(tale, "canary 10 %", 9.375, drop=0.03)
    tale.decide(Act.STEP_BACK, 0, why="clicks: -0.0280 [-0.0375, -0.0185], no lower than -0.01",
                strike=True)  # fmt: skip
    seen += looks_of(tale, "shadow", 0.0)
    tale.decide(Act.ENTER, 1, why="4 of 4 checks passed")
    seen += looks_of(tale, "canary 10 %", 9.375, drop=0.03)
    tale.decide(Act.ROLL_BACK, why="clicks: -0.0280 [-0.0375, -0.0185], no lower than -0.01",
                strike=True, verdict={"outcome": "fail", "checks": []})  # fmt: skip
    return tale, seen
