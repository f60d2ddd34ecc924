"""How a rule's question is answered: the whole interval decides, or nothing does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.stats.estimates import ALPHA, Estimate, holm
from penstock.verdict import Check, Outcome


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What an interval is held against."""

    value: float
    rising: bool
    """Whether what is measured must reach the value; otherwise it must not exceed it."""

    said: str
    """For people: ``at least 0.93``, ``margin 0.02``."""

    def kept(self, estimate: Estimate) -> bool:
        """Tell whether the whole interval lies on the good side."""
        low, high = estimate.at(ALPHA)
        return low >= self.value if self.rising else high <= self.value

    def broken(self, estimate: Estimate, alpha: float) -> bool:
        """Tell whether the whole interval, at level ``1 - alpha``, lies on the bad side."""
        low, high = estimate.at(alpha)
        return high < self.value if self.rising else low > self.value


@dataclass(frozen=True, kw_only=True)
class Question:
    """Something measured that is held against a limit."""

    name: str
    estimate: Estimate | None
    limit: Limit
    n: int
    """Rows there are to answer it."""

    unmeasured: str = ""
    """Why there is no estimate, and what to do."""

    note: str = ""
    """What a reader of the answer must also know."""

    unseen: str = ""
    """What the estimate leaves out, for want of rows: it may show harm but no pass."""

    signed: bool = False
    """Whether it is a difference, whose sign is written."""

    def broken(self, alpha: float) -> bool:
        """Tell whether the interval at level ``1 - alpha`` lies on the bad side of the limit."""
        return self.estimate is not None and self.limit.broken(self.estimate, alpha)


def answer(question: Question, *, min_support: int) -> Check:
    """Answer one question that stands alone."""
    return answer_all([question], min_support=min_support)[0]


def answer_all(questions: Sequence[Question], *, min_support: int) -> list[Check]:
    """Answer the same question of several slices or attributes, in their order.

    Each passes at the usual level. A version passes only if all of them do, so it passes wrongly
    only if one that is truly broken does: no correction is needed, however many they are (an
    intersection-union test; Berger 1982, Technometrics 24, 295–300). To say of any that it fails,
    though, is wrong as soon as one of many harmless ones looks bad by chance: failing is corrected
    for their number (:func:`penstock.stats.estimates.holm`). What lies beyond its limit without the
    correction and not with it is inconclusive.
    """
    settled = [_unanswerable(question, min_support) for question in questions]
    judged = [q for q, check in zip(questions, settled, strict=True) if check is None]
    failed = iter(holm([q.broken for q in judged]))
    return [
        check or _decided(q, fails=next(failed), among=len(judged))
        for q, check in zip(questions, settled, strict=True)
    ]


def _unanswerable(question: Question, min_support: int) -> Check | None:
    """Return the check of a question that no interval answers; None where there is one."""
    if not question.n:
        return _check(question, Outcome.ERROR, "there are no rows; look at what should select some")
    if question.n < min_support:
        return _check(question, Outcome.INCONCLUSIVE, too_few("there are", question.n, min_support))
    if question.estimate is None:
        outcome = Outcome.INCONCLUSIVE if question.unseen else Outcome.ERROR
        return _check(question, outcome, question.unseen or question.unmeasured)
    return None


def too_few(who: str, n: int, min_support: int) -> str:
    """Return that somebody has too few rows, and how many are needed."""
    return f"{who} {n} rows, {min_support} needed"


def _decided(question: Question, *, fails: bool, among: int) -> Check:
    estimate, limit = question.estimate, question.limit
    assert estimate is not None
    sign = "+" if question.signed else ""
    low, high = estimate.at(ALPHA)
    parts = [f"{estimate.value:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}], {limit.said}"]
    outcome = Outcome.FAIL if fails else Outcome.INCONCLUSIVE
    if not fails and question.broken(ALPHA):
        parts.append(f"one of {among} judged together may look so by chance")
    if limit.kept(estimate) and not question.unseen:
        outcome = Outcome.PASS
    parts += [said for said in (question.unseen, question.note) if said]
    return _check(question, outcome, "; ".join(parts))


def _check(question: Question, outcome: Outcome, reason: str) -> Check:
    estimate = question.estimate
    return Check(
        name=question.name,
        outcome=outcome,
        reason=reason,
        value=None if estimate is None else estimate.value,
        limit=question.limit.value,
    )
