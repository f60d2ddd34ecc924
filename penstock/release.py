"""Release policy: how a version reaches users, what each step must show, who must agree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

EVERYWHERE = "all"
"""Name of the market of everybody, where a policy declares none."""


def check_positive(owner: str, **numbers: float) -> None:
    """Refuse numbers that are not above 0, by name.

    Raises:
        ValueError: One is not.
    """
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{owner}.{name} is {number}; it must be greater than 0.")


def check_share(owner: str, **numbers: float) -> None:
    """Refuse numbers that are not strictly between 0 and 1, by name.

    Raises:
        ValueError: One is not.
    """
    for name, number in numbers.items():
        if not 0 < number < 1:
            raise ValueError(f"{owner}.{name} is {number}; it must lie between 0 and 1.")


class Fallback(StrEnum):
    """Who answers when the kill switch is thrown."""

    PREVIOUS = "previous"  # the version before, on its warm slot
    RULES = "rules"  # the workload's rules, in a server of their own


class WhenBusy(StrEnum):
    """What becomes of a release that begins while another one of its market goes on."""

    REFUSE = "refuse"
    QUEUE = "queue"


class State(StrEnum):
    """What a version keeps of its users, which a rollback must see to."""

    NONE = "none"  # weights only
    SESSIONS = "sessions"  # caches and sessions: cleared when its users go back
    FEEDBACK = "feedback"  # its answers become training data: the window is flagged


class Trigger(StrEnum):
    """Why a version was trained."""

    MANUAL = "manual"
    SCHEDULED = "scheduled"
    DRIFT = "drift"
    PERFORMANCE = "performance"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that every user has, whose mean over users is compared between the arms."""

    name: str
    """For people: ``clicks``."""

    source: str
    """``right``: the decision is the outcome's label; ``label``: the label itself, or another
    numeric field of the outcomes, such as ``revenue``."""

    margin: float
    """The challenger's mean may be worse by less than this, in the measure's own units."""

    deviation: float
    """Standard deviation between users, assumed for the least number of users."""

    rises: bool = True
    """Whether more is better."""

    cap: float | None = None
    """A user's mean is cut off here, against heavy tails; None cuts nothing."""

    critical: bool = False
    """Safety: where it surely is worse everybody goes back at once, without a second strike."""

    def __post_init__(self) -> None:
        check_positive("Measure", margin=self.margin, deviation=self.deviation)
        if self.cap is not None:
            check_positive("Measure", cap=self.cap)


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """How alike the answers to copied requests must be; None asks nothing."""

    max_disagreement_share: float = 0.08
    """Share of copies that may be decided otherwise than by the champion."""

    min_spearman: float | None = None
    min_kendall: float | None = None
    min_overlap: float | None = None
    """Of the ``top`` best rows, for requests that rank more than that."""

    top: int = 3

    max_divergence: float | None = None
    """Kolmogorov-Smirnov distance between the scores of both."""

    min_support: int = 200
    """Copies that a slice needs before it is judged on its own."""

    min_coverage: float = 0.9
    """Share of the copies sent that must be there to be compared."""

    def __post_init__(self) -> None:
        check_share(
            "Shadow",
            max_disagreement_share=self.max_disagreement_share,
            min_coverage=self.min_coverage,
        )
        check_positive("Shadow", top=self.top, min_support=self.min_support)


@dataclass(frozen=True, kw_only=True)
class Market:
    """A branch of a release: its own steps and approvals, over the same version."""

    name: str
    canary_percents: tuple[int, ...]
    """Share of users at each step; the first is the canary."""

    soak: timedelta | None = None
    """Of the canary; None takes the policy's."""

    progressive_soak: timedelta | None = None

    approve: bool = False
    """A person approves each step with users."""

    documents: tuple[str, ...] = ()
    """What must lie there before any user of the market is on the version."""

    def __post_init__(self) -> None:
        check_percents("Market", self.canary_percents)
        if not self.name.isidentifier() or self.name == EVERYWHERE:
            raise ValueError(
                f"Market.name is {self.name!r}; give a short word such as eu, not {EVERYWHERE!r}."
            )


def check_percents(owner: str, percents: tuple[int, ...]) -> None:
    """Refuse shares that do not rise to all users.

    Raises:
        ValueError: They do not.
    """
    if not percents or list(percents) != sorted(set(percents)) or percents[-1] != 100:
        raise ValueError(f"{owner}.canary_percents is {percents}; it must rise and end with 100.")
    check_positive(owner, first_percent=percents[0])


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a version reaches users: steps, patience, and what each step must show.

    Every duration is multiplied by ``time_scale``, so that the same policy runs in days or, for a
    demonstration, in seconds.
    """

    canary_percents: tuple[int, ...]
    """Share of users at each step, rising, ending with 100; the first is the canary."""

    soak: timedelta
    """Least time at the canary, and at every step that says nothing else."""

    deadline: timedelta
    """Longest time at a step without a pass."""

    primary: Measure
    """What the version is for."""

    guardrails: tuple[Measure, ...] = ()
    """What must not get worse, besides errors, refusals and latency."""

    shadow: Shadow = Shadow()
    shadow_soak: timedelta | None = None
    progressive_soak: timedelta | None = None
    bake: timedelta | None = None
    """Least time at which all users are on it and the version before stands by."""

    cool_down: timedelta | None = None
    """Least time at the step below after a strike; None takes one soak."""

    burn_in: timedelta = timedelta(0)
    """From a step's beginning: measures of these answers do not count, as what is new is liked."""

    attribution: timedelta = timedelta(0)
    """How long after an answer its outcome may come; until then the answer says nothing of it."""

    silent_means: float | None = None
    """What an answer counts without an outcome when its time is over, as 0 for no click; None:
    nothing is known of it."""

    time_scale: float = 1.0
    extensions: int = 0
    """How often a step whose evidence is inconclusive at its deadline may have it once more."""

    accept_parity: bool = True
    """A version that is no better and no worse within the margin goes on."""

    alpha: float = 0.01
    """Chance that a version as good as the champion is given a strike at a step, by any check.

    Going back for good takes two strikes, so that it is far less likely than this.
    """

    beta: float = 0.05
    """Chance that a version worse by a whole margin passes a step, and that one exactly as good
    is not told to be so with the least number of users."""

    min_users: int = 100
    """Least users of each arm before a step can pass, besides what ``beta`` asks."""

    max_error_share: float = 0.05
    """Share of a user's requests, in the mean over users, that may fail: an error, a refusal for
    load, a stand-in's answer."""

    max_error_ratio: float = 2.0
    """How many times the champion's share of failing users is tolerable."""

    critical_error_share: float = 0.2
    """A share of failed requests above it, where failures fail the version, returns everybody at
    once, without a second strike."""

    max_refused_share: float = 0.05
    """Share of a user's requests, in the mean over users, refused as wrong (4xx) above the
    champion's share; of the first version, which has no champion, the share itself."""

    max_slow_share: float = 0.05
    """Share of a user's answers, in the mean over users, that may be slower than ``slow_ratio``
    times the champion's p99, above the champion's share."""

    slow_ratio: float = 2.0

    slow_floor_ms: float = 20.0
    """A request faster than this is never slow, however fast the champion is."""

    slow_for: timedelta = timedelta(minutes=5)
    """A p99 above ``slow_ratio`` times the champion's for this long is a strike by itself."""

    evidence_timeout: timedelta = timedelta(hours=1)
    """No new evidence for this long returns all users to the champion."""

    max_log_loss: float = 0.01
    """Share of records that may be lost before what is left is no evidence."""

    markets: tuple[Market, ...] = ()
    when_busy: WhenBusy = WhenBusy.REFUSE
    kill_to: Fallback = Fallback.PREVIOUS
    state: State = State.NONE

    approve_triggers: tuple[Trigger, ...] = (Trigger.DRIFT,)
    """A version trained for one of these needs a person's approval before its canary."""

    approval_expiry: timedelta = timedelta(days=14)
    """How long an approval holds; not scaled, as people are not."""

    drill_every: timedelta = timedelta(days=31)
    """How old the last rehearsed rollback may be; not scaled."""

    def __post_init__(self) -> None:
        check_percents("Rollout", self.canary_percents)
        check_positive(
            "Rollout",
            time_scale=self.time_scale,
            slow_ratio=self.slow_ratio,
            max_error_ratio=self.max_error_ratio,
            min_users=self.min_users,
        )
        check_share(
            "Rollout",
            alpha=self.alpha,
            beta=self.beta,
            max_error_share=self.max_error_share,
            critical_error_share=self.critical_error_share,
            max_refused_share=self.max_refused_share,
            max_slow_share=self.max_slow_share,
            max_log_loss=self.max_log_loss,
        )
        if self.deadline <= max(self.soak, self.shadow_soak or self.soak):
            raise ValueError(
                f"Rollout.deadline {self.deadline} is not after the soak {self.soak}; raise it."
            )
        names = [m.name for m in (self.primary, *self.guardrails)]
        if len(set(names)) < len(names):
            raise ValueError(f"Rollout has two measures of one name: {', '.join(names)}.")
        if len(set(self.market_names())) < len(self.market_names()):
            raise ValueError(f"Rollout has two markets of one name: {self.market_names()}.")
        for enum, name in ((WhenBusy, "when_busy"), (Fallback, "kill_to"), (State, "state")):
            object.__setattr__(self, name, enum(getattr(self, name)))

    def market_names(self) -> tuple[str, ...]:
        """Return the branches of a release."""
        return tuple(m.name for m in self.markets) or (EVERYWHERE,)
