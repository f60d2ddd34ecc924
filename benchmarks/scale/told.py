"""A release as the ledger keeps it: made once by the real controller, told again of others.

Its entries are what a controller writes over evidence of simulated people, judged by the real
judge, so they are as long as those of a real release. A ledger of thousands of releases is then
written row by row, each hashed and signed in its place; whoever opens it audits it as any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks.rollout.people import OPENED as BEGUN
from benchmarks.rollout.people import People, Version
from benchmarks.rollout.releases import SMALL, canary, evidence_of, policy_plan
from benchmarks.scale.plane import still
from penstock.ledger import REGISTERED, Entry, Head, Ledger, Stage, schema
from penstock.ledger.entry import Draft, sealed
from penstock.release import EVERYWHERE, Trigger
from penstock.rollout.controller import Controller
from penstock.rollout.evidence import Evidence
from penstock.rollout.judge import judge
from penstock.rollout.judgement import Judgement, Window
from penstock.rollout.lease import FileLease
from penstock.rollout.observing import Observer
from penstock.rollout.opened import Opened, Placed
from penstock.rollout.plan import ENDED
from penstock.rollout.state import IN_FORCE, OPENED
from penstock.verdict import Outcome, Verdict
from tests.people import person
from tests.rollout.carried import Noted, Now

START = datetime(2026, 1, 5, tzinfo=UTC)
POLICY = replace(SMALL, evidence_timeout=timedelta(hours=1))
TOLD, CHAMPION, CHALLENGER = "told", 880_001, 880_002
"""Names that stand nowhere else in an entry, so that those of others can take their place."""

SERVING = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)
STEP_S = 2400.0
CANARY = 2
"""Entries ``in force`` after which a release is in its canary: shadow, then canary."""

BATCH = 5_000
"""Rows that are written in one transaction."""


@dataclass(frozen=True)
class Reader:
    """Evidence that is always the same: that of simulated people in a canary."""

    def poll(self) -> None:
        """Have nothing to read."""

    def evidence(self, window: Window, *, now: float, alive: bool) -> Evidence:
        """Return the evidence, as new as now."""
        return replace(judged()[0], newest_at=max(now, window.since), alive=alive)


@cache
def judged() -> tuple[Evidence, Judgement]:
    """Return the evidence of an hour's canary and what the judge makes of it."""
    plan = policy_plan(POLICY)
    people = People(np.random.default_rng(5), users=20_000, per_s=20.0)
    evidence = evidence_of(canary(people, Version(), plan, hours=1), until_s=3600)
    return evidence, judge(plan, evidence, plan.steps[1], now=BEGUN + timedelta(hours=1))


def passed(*_: Any, **__: Any) -> Judgement:
    """Return the judgement with every check passed: the release goes on by its soaks alone."""
    found = judged()[1]
    checks = tuple(replace(c, outcome=Outcome.PASS) for c in found.verdict.checks)
    return replace(found, verdict=Verdict(checks), critical="")


@cache
def whole() -> tuple[Draft, ...]:
    """Return the entries of a version that was registered, released over another, and is done."""
    with TemporaryDirectory() as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.db")
        _register(ledger, CHAMPION, *SERVING)
        before = ledger.head().sequence
        _register(ledger, CHALLENGER, Stage.STAGING)
        _release(ledger, Path(folder))
        entries = ledger.entries(TOLD)
        ledger.close()
    return tuple(_draft(e) for e in entries if e.sequence > before)


def in_canary() -> tuple[Draft, ...]:
    """Return the entries of a release up to its canary."""
    drafts = whole()
    ends = [n for n, draft in enumerate(drafts) if draft.kind == IN_FORCE]
    return drafts[: ends[CANARY - 1] + 1]


def again(drafts: Sequence[Draft], workload: str, version: int) -> Iterator[Draft]:
    """Yield a release's entries as those of another version of another workload."""
    for draft in drafts:
        text = json.dumps(draft.body).replace(str(CHAMPION), str(version - 1))
        text = text.replace(str(CHALLENGER), str(version)).replace(f'"{TOLD}/', f'"{workload}/')
        yield replace(draft, workload=workload, version=version, body=json.loads(text))


def furnished(url: str, workloads: Sequence[str], *, past: int) -> int:
    """Write a ledger in which each workload has one release in its canary; return its length.

    Args:
        past: Releases of each workload that are done, its first version besides.
    """
    ledger = Ledger(url)
    _append(ledger, "note", {})
    head = ledger.head()
    ledger.close()
    engine, actor = schema.connected(url), person()
    rows: list[dict[str, Any]] = []
    try:
        for draft in (d for name in workloads for d in _history(name, past)):
            rows.append(sealed(draft, after=head, actor=actor, now=START))
            head = Head(rows[-1]["sequence"], rows[-1]["hash"])
            if len(rows) == BATCH:
                _insert(engine, rows)
        _insert(engine, rows)
        return head.sequence
    finally:
        engine.dispose()


def _history(workload: str, past: int) -> Iterator[Draft]:
    begun = [d for d in whole() if d.kind in (REGISTERED, "moved")]
    yield from again(begun, workload, 1)
    for version in range(2, past + 2):
        yield from again(whole(), workload, version)
    yield from again(in_canary(), workload, past + 2)


def _insert(engine: sa.Engine, rows: list[dict[str, Any]]) -> None:
    if rows:
        with engine.begin() as connection:
            connection.execute(schema.entries.insert(), rows)
        rows.clear()


def _register(ledger: Ledger, version: int, *stages: Stage) -> None:
    body = {"package": f"p{version}", "digest": f"sha256:{version}", "fingerprint": f"f{version}"}
    _append(ledger, REGISTERED, body, version=version)
    for stage in stages:
        ledger.move(
            workload=TOLD, version=version, to=stage, reason="told", actor=person(), now=START
        )


def _append(ledger: Ledger, kind: str, body: dict[str, Any], *, version: int | None = None) -> None:
    ledger.append(workload=TOLD, version=version, kind=kind, body=body, actor=person(), now=START)


def _release(ledger: Ledger, folder: Path) -> None:
    """Carry the challenger to its end with the real controller."""
    champion, challenger = (
        Placed(version=version, digest=f"sha256:{version}", slot=slot)
        for version, slot in ((CHAMPION, "a"), (CHALLENGER, "b"))
    )
    opened = Opened(
        release=f"{TOLD}/{CHALLENGER}/{EVERYWHERE}/1", workload=TOLD, market=EVERYWHERE,
        trigger=Trigger.MANUAL, challenger=challenger, champion=champion,
    )  # fmt: skip
    _append(ledger, OPENED, opened.body(opened.plan(POLICY)), version=CHALLENGER)
    plane = still(folder, {"a": CHAMPION, "b": CHALLENGER})
    controller = Controller(
        release=opened.release, policy=POLICY, plane=plane, ledger=ledger,
        lease=FileLease(folder), clock=Now(START), notifier=Noted(),
        observer=Observer(plane=plane, reader=Reader(), ledger=ledger, judge=passed),
        actor=person(),
    )  # fmt: skip
    while controller.tick().phase not in ENDED:
        controller.clock.sleep(STEP_S)


def _draft(entry: Entry) -> Draft:
    names = Draft.__dataclass_fields__
    return Draft(**{name: getattr(entry, name) for name in names})
