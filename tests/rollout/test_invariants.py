"""The invariants of a release, over random policies, evidence, clocks, people and crashes.

Which part keeps which: ``decide`` alone keeps 3 to 7 (and 8 with the plane's switch); the order of
the loop's effects keeps 1, 9 and 10; the salt and the table keep 2 and 11; the ledger's ``expect``
and the plane's sequence keep 9 with two controllers; 12 is that a fold and a table know one market.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.ledger import Stage
from penstock.release import Fallback, Market, Measure, Rollout, Trigger
from penstock.rollout.judgement import Effect
from penstock.rollout.plan import ENDED, Plan, plan_of
from penstock.rollout.state import Ask
from penstock.rollout.tables import Slots
from penstock.verdict import Outcome
from tests.rollout.machine import World, judged
from tests.rollout.machine_laws import LAWS
from tests.rollout.machine_loop import tick

WHO = ("one", "two")
CLICKS = Measure(name="clicks", source="right", margin=0.01, deviation=0.5)

seconds = st.integers(1, 400).map(lambda s: timedelta(seconds=s))
percents = st.lists(st.integers(1, 99), min_size=0, max_size=3, unique=True).map(
    lambda p: (*sorted(p), 100)
)
soaks = st.integers(1, 60).map(lambda s: timedelta(seconds=s))


@st.composite
def policies(draw: st.DrawFn, *, markets: int) -> Rollout:
    """Draw a policy with short times."""
    soak = draw(soaks)
    names = ("us", "eu")[:markets] if markets > 1 else ()
    return Rollout(
        canary_percents=draw(percents),
        soak=soak,
        shadow_soak=draw(st.none() | soaks),
        progressive_soak=draw(st.none() | soaks),
        cool_down=draw(st.none() | st.integers(1, 200).map(lambda s: timedelta(seconds=s))),
        deadline=timedelta(seconds=draw(st.integers(61, 600))),
        evidence_timeout=timedelta(seconds=draw(st.integers(30, 600))),
        primary=CLICKS,
        extensions=draw(st.integers(0, 1)),
        kill_to=draw(st.sampled_from(Fallback)),
        markets=tuple(
            Market(name=n, canary_percents=draw(percents), approve=draw(st.booleans()))
            for n in names
        ),
    )


def plans_of(policy: Rollout, *, first: bool, trigger: Trigger) -> dict[str, Plan]:
    """Return the plan of each market."""
    return {
        m: plan_of(policy, market=m, first=first, trigger=trigger) for m in policy.market_names()
    }


class Releases(RuleBasedStateMachine):
    """One or two markets, two controllers, everything that may happen to them."""

    markets = 1
    world: World

    @initialize(data=st.data(), first=st.sampled_from([False, False, False, True]))
    def begin(self, data: st.DataObject, first: bool) -> None:
        """Open a release in each market."""
        policy = data.draw(policies(markets=self.markets))
        trigger = data.draw(st.sampled_from([Trigger.MANUAL, Trigger.DRIFT]))
        slots = Slots(champion=None if first else "a", challenger="b")
        self.make(plans_of(policy, first=first, trigger=trigger), slots)
        self.running: dict[str, tuple[str, Iterator[None]]] = {}

    def make(self, plans: dict[str, Plan], slots: Slots) -> None:
        """Build the world; with another ledger in a subclass."""
        self.world = World(plans, slots)

    def market(self, n: int) -> str:
        """Return a market by any number."""
        return list(self.world.plans)[n % len(self.world.plans)]

    def advance(self, who: str, market: str) -> bool:
        """Let a controller go on to its next effect; False where its tick is over.

        12. Nothing that it does moves another market.
        """
        where, running = self.running.pop(who, (market, None))
        running = running or tick(self.world, where, who)
        others = {m: self.seen_of(m) for m in self.world.plans if m != where}
        going = next(running, ...) is None
        if going:
            self.running[who] = (where, running)
        assert others == {m: self.seen_of(m) for m in others}
        return going

    def seen_of(self, market: str) -> tuple[Any, ...]:
        """Return all that a market's users and release can notice."""
        return self.world.state(market), self.world.plane.written(market)

    @rule(who=st.sampled_from(WHO), n=st.integers(0, 1))
    def one_effect(self, who: str, n: int) -> None:
        """A controller comes to its next effect."""
        self.advance(who, self.market(n))

    @rule(who=st.sampled_from(WHO), n=st.integers(0, 1))
    def whole_tick(self, who: str, n: int) -> None:
        """A controller ends its tick, or does a whole one."""
        while self.advance(who, self.market(n)):
            pass

    @rule(who=st.sampled_from(WHO))
    def crash(self, who: str) -> None:
        """A controller dies where it is, and remembers nothing."""
        self.running.pop(who, None)

    @rule(n=st.integers(0, 1), who=st.sampled_from(WHO))
    def good_step(self, n: int, who: str) -> None:
        """All is well for a whole step, and the controllers look at it."""
        market = self.market(n)
        state, plan = self.world.state(market), self.world.plans[market]
        step = plan.steps[state.step or 0]
        self.world.elapsed += max(step.soak, plan.cool_down)
        self.world.tell(market, judged(Outcome.PASS, effect=Effect.BETTER))
        self.whole_tick(who, n)

    @rule(n=st.integers(0, 1), outcome=st.sampled_from(Outcome), no_value=st.booleans())
    def evidence(self, n: int, outcome: Outcome, no_value: bool) -> None:
        """The log says something, just now."""
        useless = no_value and outcome is Outcome.PASS
        self.world.tell(self.market(n), judged(outcome, no_value=useless))

    @rule(n=st.integers(0, 1), outcome=st.sampled_from(Outcome))
    def critical(self, n: int, outcome: Outcome) -> None:
        """Something breaks that must not wait."""
        self.world.tell(self.market(n), judged(outcome, critical="a wrong golden answer"))

    @rule(
        n=st.integers(0, 1),
        age=st.sampled_from([-5000, -700, -10, 10, 100, 700, None]),
        lazy=st.booleans(),
        conflict=st.sampled_from(["", "", "clocks differ"]),
    )
    def odd_evidence(self, n: int, age: int | None, lazy: bool, conflict: str) -> None:
        """A pass, but old, from the future, of another step, of nobody, or contradicted."""
        at = None if age is None else self.world.clock("") - timedelta(seconds=age)
        judgement = judged(Outcome.PASS, effect=Effect.BETTER)
        self.world.tell(self.market(n), judgement, at=at, lazy=lazy, conflict=conflict)

    @rule(passes=seconds)
    def time_passes(self, passes: timedelta) -> None:
        """Time goes by."""
        self.world.elapsed += passes

    @rule(who=st.sampled_from(WHO), jump=st.integers(-900, 900))
    def clock_jumps(self, who: str, jump: int) -> None:
        """A controller's clock is set."""
        self.world.offsets[who] = timedelta(seconds=jump)

    @rule(n=st.integers(0, 1), ask=st.sampled_from(Ask))
    def operator(self, n: int, ask: Ask) -> None:
        """A person asks for something."""
        self.world.ask(self.market(n), ask)

    @rule(n=st.integers(0, 1), granted=st.booleans(), days=st.sampled_from([14, 14, 0]))
    def approver(self, n: int, granted: bool, days: int) -> None:
        """A person answers, of what is asked now."""
        if self.world.state(self.market(n)).awaited is not None:
            self.world.answer(self.market(n), granted=granted, days=days)

    @rule(
        ready=st.booleans(),
        standby=st.booleans(),
        drilled=st.sampled_from(["", "", "no drill"]),
        documents=st.sampled_from([(), (), ("assessment",)]),
    )
    def surroundings(
        self, ready: bool, standby: bool, drilled: str, documents: tuple[str, ...]
    ) -> None:
        """Servers, drills and documents come and go."""
        self.world.ready, self.world.standby_ready = ready, standby
        self.world.drilled, self.world.documents = drilled, documents

    @rule()
    def all_is_well(self) -> None:
        """What was in the way is gone."""
        self.surroundings(True, True, "", ())
        self.world.offsets.clear()

    @precondition(lambda self: self.world.elapsed > timedelta(minutes=5))
    @rule(refused=st.sampled_from(["", "crash loop"]))
    def server(self, refused: str) -> None:
        """The challenger's server gives up, or is mended."""
        self.world.refused = refused

    @rule(thrown=st.sampled_from(["", "", "bad answers"]))
    def kill_switch(self, thrown: str) -> None:
        """A person throws the kill switch, or clears it."""
        self.world.plane.thrown = thrown

    @rule(n=st.integers(0, 1))
    def watchdog(self, n: int) -> None:
        """Another one puts its table in force: everybody to the champion."""
        if self.world.state(self.market(n)).phase not in ENDED:
            self.world.displace(self.market(n))

    @precondition(lambda self: self.world.elapsed > timedelta(minutes=10))
    @rule()
    def archive(self) -> None:
        """A person archives the version."""
        if self.world.stage() is not Stage.PRODUCTION:
            self.world.move(Stage.ARCHIVED, "by hand")

    @invariant()
    def laws_hold(self) -> None:
        """Every law, whatever happened last."""
        for market in self.world.plans:
            for law in LAWS.values():
                law(self.world, market)

    def teardown(self) -> None:
        """From wherever it is, one controller brings every release on without an error."""
        if not hasattr(self, "running"):
            return
        self.running.clear()
        for market in self.world.plans:
            for _ in range(6):
                for _ in tick(self.world, market, "last"):
                    pass
            assert self.world.state(market).pending is None or not self.settled(market)
        self.laws_hold()

    def settled(self, market: str) -> bool:
        """Return whether nothing keeps an intent from being finished."""
        state = self.world.state(market)
        return state.pending is None or state.pending.act not in ("enter", "finish")


class Markets(Releases):
    """Two markets of one version."""

    markets = 2


TestReleases = Releases.TestCase
TestMarkets = Markets.TestCase
for case in (TestReleases, TestMarkets):
    case.settings = settings(
        max_examples=40,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
