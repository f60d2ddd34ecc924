"""Outcome, check, verdict: how every stage says what it found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a check ended, best first."""

    PASS = "pass"
    INCONCLUSIVE = "inconclusive"  # too little evidence either way
    ERROR = "error"  # the check itself could not run
    FAIL = "fail"  # evidence of harm


_ORDER = tuple(Outcome)


def worst(outcomes: tuple[Outcome, ...]) -> Outcome:
    """Return the worst outcome; of nothing, an error: no evidence is never a pass.

    >>> worst((Outcome.PASS, Outcome.INCONCLUSIVE))
    <Outcome.INCONCLUSIVE: 'inconclusive'>
    >>> worst(())
    <Outcome.ERROR: 'error'>
    """
    return max(outcomes, key=_ORDER.index, default=Outcome.ERROR)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question and its answer."""

    name: str
    """What was asked, for people: ``accuracy``, ``accuracy of digit 8``."""

    outcome: Outcome

    reason: str
    """The answer with its numbers: ``0.968 [0.951, 0.979], at least 0.93``."""

    value: float | None = None
    """The measured number, where there is one; never NaN or infinite."""

    limit: float | None = None
    """What the value was held against."""

    def __post_init__(self) -> None:
        for field in ("value", "limit"):
            number = getattr(self, field)
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"check {self.name!r} has {field} {number}; a number that is not finite is "
                    "no evidence: use outcome error and say so in the reason."
                )


@dataclass(frozen=True)
class Verdict:
    """All checks of one stage. The worst outcome wins.

    >>> Verdict(()).outcome
    <Outcome.ERROR: 'error'>
    >>> print(Verdict((Check(name="auc", outcome=Outcome.PASS, reason="+0.004 [0.001, 0.007]"),)))
    pass
      pass          auc  +0.004 [0.001, 0.007]
    """

    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the checks; an error when there are none."""
        return worst(tuple(check.outcome for check in self.checks))

    @property
    def reason(self) -> str:
        """One sentence: what decided, or how many checks passed."""
        if not self.checks:
            return "nothing was checked"
        deciding = [check for check in self.checks if check.outcome is self.outcome]
        if self.outcome is Outcome.PASS:
            return f"{len(deciding)} of {len(self.checks)} checks passed"
        more = f" (and {len(deciding) - 1} more)" if len(deciding) > 1 else ""
        return f"{deciding[0].name}: {deciding[0].reason}{more}"

    def __str__(self) -> str:
        width = max((len(check.name) for check in self.checks), default=0)
        rows = [f"  {c.outcome:<12}  {c.name:<{width}}  {c.reason}" for c in self.checks]
        return "\n".join([str(self.outcome), *rows])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; :meth:`from_dict` reads them back."""
        return {
            "outcome": str(self.outcome),
            "checks": [
                {
                    "name": c.name,
                    "outcome": str(c.outcome),
                    "reason": c.reason,
                    "value": c.value,
                    "limit": c.limit,
                }
                for c in self.checks
            ],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Verdict:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ValueError: The stated outcome is not the worst of the checks, or a field is missing.
        """
        try:
            checks = tuple(
                Check(
                    name=c["name"],
                    outcome=Outcome(c["outcome"]),
                    reason=c["reason"],
                    value=c["value"],
                    limit=c["limit"],
                )
                for c in document["checks"]
            )
            stated = Outcome(document["outcome"])
        except (KeyError, TypeError) as e:
            raise ValueError(f"not a verdict: {e!r} is missing or of the wrong kind.") from e
        verdict = cls(checks)
        if stated is not verdict.outcome:
            raise ValueError(
                f"the verdict states {stated} but its checks give {verdict.outcome}: it was edited."
            )
        return verdict
