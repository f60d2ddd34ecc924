"""Judge a step's evidence against the release policy. Pure; may be asked after every request."""

from __future__ import annotations

from penstock.rollout.evidence import Evidence
from penstock.stats.sequential import share
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Rollout

PROCESS = "challenger process"
"""Name of the check whose failure is critical: it does not wait for any soak."""


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
        at_most(
            f"slower than {evidence.slow_limit_ms:.0f} ms",
            arm.slow,
            arm.answered,
            policy.max_slow_share,
            least,
            alpha,
        ),
        at_most("wrong answers", arm.wrong, arm.labelled, policy.max_wrong_share, least, alpha),
    ]
    if shadow:
        limit = policy.max_disagreement_share
        checks.append(
            at_most(
                "other decision than the champion",
                evidence.disagreed,
                evidence.compared,
                limit,
                least,
                alpha,
            )
        )
    return Verdict(tuple(checks))


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
    outcome = (
        Outcome.FAIL
        if found.low > limit
        else Outcome.PASS
        if found.high <= limit and trials >= least
        else Outcome.INCONCLUSIVE
    )
    return Check(
        name=name,
        outcome=outcome,
        reason=f"{found}, at most {limit:.1%}",
        value=found.estimate,
        limit=limit,
    )


def _process(*, alive: bool) -> Check:
    return Check(
        name=PROCESS,
        outcome=Outcome.PASS if alive else Outcome.FAIL,
        reason="up and ready" if alive else "crashed or not ready",
    )


def critical(verdict: Verdict) -> bool:
    """Return whether something failed that must not wait."""
    return any(c.name == PROCESS and c.outcome is Outcome.FAIL for c in verdict.checks)
