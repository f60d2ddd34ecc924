"""The invariants of a release, over random policies, evidence, clocks, people and crashes.

Which part keeps which: ``decide`` alone keeps 3 to 7 (and 8 with the plane's switch); the order of
the loop's effects keeps 1, 9 and 10; the salt and the table keep 2 and 11; the ledger's ``expect``
and the plane's sequence keep 9 with two controllers; 12 is that a fold and a table know one market.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.ledger import REGISTERED, Ledger, Stage
from penstock.release import Fallback, Market, Measure, Rollout, Trigger
from penstock.rollout.judgement import Effect
from penstock.rollout.plan import ENDED
from penstock.rollout.state import Ask
from penstock.rollout.tables import Slots
from penstock.verdict import Outcome
from tests.people import person
from tests.rollout.machine import START, VERSION, WORKLOAD, World, judged
from tests.rollout.machine_controller import tick as controlled
from tests.rollout.machine_laws import LAWS
from tests.rollout.machine_loop import tick

ENDINGS = ("critical", "give up", "server", "kill", "archive", "replan")
"""What ends most releases early; of these a run has two at most, so that others come far."""

WHO = ("one", "two")
CLICKS = Measure(name="clicks", source="right", margin=0.01, deviation=0.5)

seconds = st.integers(1, 60).map(lambda s: timedelta(seconds=s))
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


class Releases(RuleBasedStateMachine):
    """One or two markets, two controllers, everything that may happen to them."""

    markets = 1
    loop = staticmethod(tick)
    world: World

    @initialize(data=st.data(), first=st.sampled_from([False, False, False, True]))
    def begin(self, data: st.DataObject, first: bool) -> None:
        """Open a release in each market."""
        policy = data.draw(policies(markets=self.markets))
        trigger = data.draw(st.sampled_from([Trigger.MANUAL, Trigger.DRIFT]))
        slots = Slots(champion=None if first else "a", challenger="b")
        self.allowed = {data.draw(st.sampled_from(ENDINGS)), data.draw(st.sampled_from(ENDINGS))}
        self.make(policy, slots, trigger)
        self.running: dict[str, tuple[str, Iterator[None]]] = {}

    def make(self, policy: Rollout, slots: Slots, trigger: Trigger) -> None:
        """Build the world; with another ledger in a subclass."""
        self.world = World(policy, slots, trigger)

    def market(self, n: int) -> str:
        """Return a market by any number."""
        return list(self.world.plans)[n % len(self.world.plans)]

    def advance(self, who: str, market: str) -> bool:
        """Let a controller go on to its next effect; False where its tick is over.

        12. Nothing that it does moves another market.
        """
        where, running = self.running.pop(who, (market, None))
        running = running or self.loop(self.world, where, who)
        others = {m: self.seen_of(m) for m in self.world.plans if m != where}
        going = next(running, ...) is None
        if going:
            self.running[who] = (where, running)
        assert others == {m: self.seen_of(m) for m in others}
        return going

    def seen_of(self, market: str) -> tuple[Any, ...]:
        """Return all that a market's users and release can notice."""
        return self.world.state(market), self.world.plane.written(market)

    @rule(who=st.sampled_from(WHO), n=st.integers(0, 1), points=st.integers(1, 20))
    def some_effects(self, who: str, n: int, points: int) -> None:
        """A controller comes some points further in its tick."""
        for _ in range(points):
            if not self.advance(who, self.market(n)):
                return

    @rule(who=st.sampled_from(WHO), n=st.integers(0, 1))
    def whole_tick(self, who: str, n: int) -> None:
        """A controller ends its tick, or does a whole one."""
        while self.advance(who, self.market(n)):
            pass

    @rule(who=st.sampled_from(WHO))
    def crash(self, who: str) -> None:
        """A controller dies where it is, and remembers nothing."""
        self.end(who)

    def end(self, who: str) -> None:
        """End a controller's process, if it is within a tick."""
        _, running = self.running.pop(who, (None, None))
        if running is not None:
            cast("Generator[None]", running).close()

    @rule(n=st.integers(0, 1), who=st.sampled_from(WHO), steps=st.integers(1, 3))
    def climb(self, n: int, who: str, steps: int) -> None:
        """All is well for some steps, and a controller looks at it."""
        market, world = self.market(n), self.world
        for _ in range(steps):
            state, plan = world.state(market), world.plans[market]
            longest = max(step.soak for step in plan.steps)
            world.elapsed += max(longest, plan.cool_down)
            world.tell(market, judged(Outcome.PASS, effect=Effect.BETTER))
            if state.awaited is not None:
                world.answer(market, granted=True)
            self.whole_tick(who, n)

    @rule(n=st.integers(0, 1), who=st.sampled_from(WHO), share=st.floats(0, 1.2))
    def early_pass(self, n: int, who: str, share: float) -> None:
        """All is well, and a controller looks at it within the soak, or just after."""
        market, world = self.market(n), self.world
        steps, step = world.plans[market].steps, world.state(market).step or 0
        world.elapsed += share * steps[min(step, len(steps) - 1)].soak
        world.tell(market, judged(Outcome.PASS, effect=Effect.BETTER))
        self.whole_tick(who, n)

    @rule(n=st.integers(0, 1), who=st.sampled_from(WHO))
    def lazy_pass(self, n: int, who: str) -> None:
        """The reader shows the pass of a step at the next one too, for the whole of its soak."""
        market, world = self.market(n), self.world
        longest = max(step.soak for step in world.plans[market].steps)
        world.elapsed += longest
        world.tell(market, judged(Outcome.PASS, effect=Effect.BETTER), lazy=True)
        self.whole_tick(who, n)
        world.elapsed += longest
        self.whole_tick(who, n)

    @rule(n=st.integers(0, 1), who=st.sampled_from(WHO), ask=st.booleans())
    def struck_and_early(self, n: int, who: str, ask: bool) -> None:
        """Harm, and then a pass as soon as the soak is over, or sooner where a person asks."""
        market, world = self.market(n), self.world
        self.all_is_well()
        if not world.state(market).step:
            self.climb(n, who, 3)
        self.strike(n, who)
        state, plan = world.state(market), world.plans[market]
        if ask:
            world.ask(market, Ask.PROMOTE)
        soak = plan.steps[min(state.step or 0, len(plan.steps) - 1)].soak
        world.elapsed += soak / 2 if ask else soak
        world.tell(market, judged(Outcome.PASS, effect=Effect.BETTER))
        self.whole_tick(who, n)

    @rule(n=st.integers(0, 1), who=st.sampled_from(WHO))
    def strike(self, n: int, who: str) -> None:
        """Harm is seen, and a controller looks at it."""
        self.world.tell(self.market(n), judged(Outcome.FAIL, effect=Effect.WORSE))
        self.whole_tick(who, n)

    @rule(n=st.integers(0, 1), outcome=st.sampled_from(Outcome), no_value=st.booleans())
    def evidence(self, n: int, outcome: Outcome, no_value: bool) -> None:
        """The log says something, just now."""
        useless = no_value and outcome is Outcome.PASS
        self.world.tell(self.market(n), judged(outcome, no_value=useless))

    @precondition(lambda self: "critical" in self.allowed)
    @rule(n=st.integers(0, 1), outcome=st.sampled_from(Outcome))
    def critical(self, n: int, outcome: Outcome) -> None:
        """Something breaks that must not wait."""
        self.world.tell(self.market(n), judged(outcome, critical="a wrong golden answer"))

    @rule(
        n=st.integers(0, 1),
        age=st.sampled_from([-5000, -700, 0, 0, 0, 100, 700, None]),
        lazy=st.booleans(),
        conflict=st.sampled_from(["", "clocks differ"]),
        looks=st.booleans(),
    )
    def odd_evidence(self, n: int, age: int | None, lazy: bool, conflict: str, looks: bool) -> None:
        """A pass, but old, from the future, of another step, of nobody, or contradicted."""
        market, world = self.market(n), self.world
        if looks:
            self.all_is_well()
            world.elapsed += max(step.soak for step in world.plans[market].steps)
        at = None if age is None else world.clock("") - timedelta(seconds=age)
        judgement = judged(Outcome.PASS, effect=Effect.BETTER)
        world.tell(market, judgement, at=at, lazy=lazy, conflict=conflict)
        if looks:
            self.whole_tick("one", n)

    @rule(passes=seconds)
    def time_passes(self, passes: timedelta) -> None:
        """Time goes by."""
        self.world.elapsed += passes

    @rule(who=st.sampled_from(WHO), jump=st.integers(-900, 900))
    def clock_jumps(self, who: str, jump: int) -> None:
        """A controller's clock is set."""
        self.world.offsets[who] = timedelta(seconds=jump)

    @rule(n=st.integers(0, 1), ask=st.sampled_from([Ask.PAUSE, Ask.RESUME, Ask.PROMOTE]))
    def operator(self, n: int, ask: Ask) -> None:
        """A person asks for something."""
        self.world.ask(self.market(n), ask)

    @precondition(lambda self: "give up" in self.allowed)
    @rule(n=st.integers(0, 1), ask=st.sampled_from([Ask.ABORT, Ask.ROLL_BACK]))
    def give_up(self, n: int, ask: Ask) -> None:
        """A person ends the release."""
        self.world.ask(self.market(n), ask)

    @rule(
        n=st.integers(0, 1),
        granted=st.sampled_from([True, True, False]),
        days=st.sampled_from([14, 14, 0]),
    )
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

    @precondition(lambda self: "server" in self.allowed)
    @rule(refused=st.sampled_from(["", "crash loop"]))
    def server(self, refused: str) -> None:
        """The challenger's server gives up, or is mended."""
        self.world.refused = refused

    @precondition(lambda self: "kill" in self.allowed)
    @rule(thrown=st.sampled_from(["", "", "bad answers"]))
    def kill_switch(self, thrown: str) -> None:
        """A person throws the kill switch, or clears it."""
        self.world.plane.thrown = thrown

    @precondition(lambda self: "replan" in self.allowed)
    @rule(soak=soaks, percents=st.none() | percents)
    def another_policy(self, soak: timedelta, percents: tuple[int, ...] | None) -> None:
        """Somebody changes the policy of a release under way."""
        policy = replace(self.world.policy, soak=soak)
        if percents is not None:
            policy = replace(policy, canary_percents=percents)
        self.world.policy = policy
        self.world.plans = self.world.planned()

    @precondition(lambda self: "kill" in self.allowed)
    @rule(n=st.integers(0, 1), who=st.sampled_from(WHO))
    def killed_and_cleared(self, n: int, who: str) -> None:
        """The switch is thrown over users on the challenger, seen, and cleared."""
        self.climb(n, who, 3)
        self.world.plane.thrown = "bad answers"
        self.laws_hold()
        self.whole_tick(who, n)
        self.whole_tick(who, n)
        self.world.plane.thrown = ""

    @rule(n=st.integers(0, 1))
    def watchdog(self, n: int) -> None:
        """Another one puts its table in force: everybody to the champion."""
        if self.world.state(self.market(n)).phase not in ENDED:
            self.world.displace(self.market(n))

    @precondition(lambda self: "archive" in self.allowed)
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
        for who in WHO:
            self.end(who)
        for market in self.world.plans:
            for _ in range(6):
                for _ in self.loop(self.world, market, "last"):
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


class Controlled(Releases):
    """The controller itself in the place of the small loop."""

    loop = staticmethod(controlled)


class Recorded(Controlled):
    """The controller over the real ledger, whose people have clocks that do not go back."""

    def make(self, policy: Rollout, slots: Slots, trigger: Trigger) -> None:
        """Build the world over a ledger in a folder of its own."""
        self.folder = TemporaryDirectory()
        ledger = Ledger(f"sqlite:///{self.folder.name}/ledger.db")
        actor = person()
        named: dict[str, Any] = {"workload": WORKLOAD, "version": VERSION, "actor": actor}
        body = {"package": "p2", "digest": "sha256:2", "fingerprint": "f2"}
        ledger.append(kind=REGISTERED, body=body, now=START, **named)
        self.world = World(policy, slots, trigger, ledger=ledger, actor=actor, steady=True)

    def teardown(self) -> None:
        """Verify the whole chain in the end."""
        super().teardown()
        if hasattr(self, "folder"):
            self.world.ledger.verify()
            self.world.ledger.close()
            self.folder.cleanup()


TestReleases = Releases.TestCase
TestMarkets = Markets.TestCase
TestControlled = Controlled.TestCase
TestRecorded = Recorded.TestCase


def _sized(case: Any, *, examples: int, steps: int = 40) -> None:
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


_sized(TestReleases, examples=50)
_sized(TestMarkets, examples=30)
_sized(TestControlled, examples=40)
_sized(TestRecorded, examples=3, steps=25)
