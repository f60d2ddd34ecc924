"""Judge a step's evidence against the release policy. Pure; may be asked after every request."""

from __future__ import annotations

from dataclasses import replace

from penstock.rollout.evidence import Arm, Evidence
from penstock.stats.sequential import share
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Rollout

PROCESS = "challenger process"
"""Name of the check whose failure is critical: it does not wait for any soak."""

REFUSED = "refused requests"


def judge(policy: Rollout, evidence: Evidence, *, shadow: bool) -> Verdict:
    """Return the verdict of one step so far.

    Every share is held against its limit with a confidence sequence, so that looking at every tick
    does not raise the chance of a wrong answer above ``policy.alpha`` for a check.
    """
    arm = evidence.challenger
    least, alpha = policy.min_requests, policy.alpha
    checks = [
        _process(alive=evidence.alive),
        at_most("errors", arm.errors, arm.requests, policy.max_error_share, least, alpha),
        _refused(policy, evidence),
        at_most(
            f"slower than {evidence.slow_limit_ms:.0f} ms",
            arm.slow,
            arm.answered,
            policy.max_slow_share,
            least,
            alpha,
        ),
        _by_id(
            at_most("wrong answers", arm.wrong, arm.labelled, policy.max_wrong_share, least, alpha),
            arm,
        ),
    ]
    if shadow:
        limit = policy.max_disagreement_share
        checks.append(
            _by_id(
                at_most(
                    "other decision than the champion",
                    evidence.disagreed,
                    evidence.compared,
                    limit,
                    least,
                    alpha,
                ),
                arm,
            )
        )
    return Verdict(tuple(checks))


def _refused(policy: Rollout, evidence: Evidence) -> Check:
    """Hold refusals against the champion's, at this step and the one before."""
    arm, now, before = evidence.challenger, evidence.champion, evidence.before
    return at_most_more(
        REFUSED,
        (arm.refused, arm.requests),
        (now.refused + before.refused, now.requests + before.requests),
        policy.max_refused_share,
        policy.min_requests,
        policy.alpha,
    )


def _by_id(check: Check, arm: Arm) -> Check:
    """Say of a check that joins by request id how many could not be joined."""
    if not arm.repeated:
        return check
    left_out = f"{arm.repeated} requests left out, their ids repeat"
    return replace(check, reason=f"{check.reason}; {left_out}")


def at_most(name: str, events: int, trials: int, limit: float, least: int, alpha: float) -> Check:
    """Pass when the share is surely within the limit, fail when it surely is not.

    Args:
        least: Trials needed before it can pass; it may fail sooner.
        alpha: Level of the confidence sequence.

    >>> at_most("errors", 0, 0, 0.05, 50, 0.01).outcome
    <Outcome.ERROR: 'error'>
    >>> at_most("errors", 0, 400, 0.05, 50, 0.01).outcome
    <Outcome.PASS: 'pass'>
    >>> at_most("errors", 30, 100, 0.05, 50, 0.01).outcome
    <Outcome.FAIL: 'fail'>
    """
    if not trials:
        return Check(name=name, outcome=Outcome.ERROR, reason="nothing measured yet", limit=limit)
    found = share(events, trials, alpha=alpha)
    return Check(
        name=name,
        outcome=_outcome(found.low, found.high, limit, enough=trials >= least),
        reason=f"{found}, at most {limit:.1%}",
        value=found.estimate,
        limit=limit,
    )


def at_most_more(
    name: str,
    counts: tuple[int, int],
    usual: tuple[int, int],
    more: float,
    least: int,
    alpha: float,
) -> Check:
    """Pass when a share is surely not more than ``more`` above the usual one, fail when it is.

    Each share has a confidence sequence at half of ``alpha``, so both hold at once, whatever the
    two have to do with each other, with probability at least ``1 - alpha``.

    Args:
        counts: Events and trials.
        usual: The same of what it is held against; without trials, events are not usual at all.
        least: Trials needed before it can pass; it may fail sooner.

    >>> at_most_more("refused", (80, 800), (90, 800), 0.05, 50, 0.01).outcome
    <Outcome.INCONCLUSIVE: 'inconclusive'>
    >>> at_most_more("refused", (160, 800), (0, 800), 0.05, 50, 0.01).outcome
    <Outcome.FAIL: 'fail'>
    """
    if not usual[1]:
        return at_most(name, *counts, more, least, alpha)
    if not counts[1]:
        return Check(name=name, outcome=Outcome.ERROR, reason="nothing measured yet", limit=more)
    found, held = share(*counts, alpha=alpha / 2), share(*usual, alpha=alpha / 2)
    low, high = found.low - held.high, found.high - held.low
    return Check(
        name=name,
        outcome=_outcome(low, high, more, enough=counts[1] >= least),
        reason=f"{found}, at most {more:.1%} above the champion's {held}",
        value=found.estimate,
        limit=more,
    )


def _outcome(low: float, high: float, limit: float, *, enough: bool) -> Outcome:
    if low > limit:
        return Outcome.FAIL
    return Outcome.PASS if high <= limit and enough else Outcome.INCONCLUSIVE


def _process(*, alive: bool) -> Check:
    return Check(
        name=PROCESS,
        outcome=Outcome.PASS if alive else Outcome.FAIL,
        reason="up and ready" if alive else "crashed or not ready",
    )


def critical(verdict: Verdict) -> bool:
    """Return whether something failed that must not wait."""
    return any(c.name == PROCESS and c.outcome is Outcome.FAIL for c in verdict.checks)
