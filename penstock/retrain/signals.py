"""Signals: what the monitor found of the champion, as far as a decision hangs on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.verdict import Outcome


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What is known of the champion; None is unknown, which is never good news."""

    errors: tuple[str, ...] = ()
    """What could not be looked at, one sentence each; with one, nothing is believed."""

    evidence: Outcome | None = None
    """Whether there was anything to judge by."""

    quality: Outcome | None = None
    """Whether answers came, from the model and from whole features."""

    drift: Outcome | None = None
    """Of the features: p(x)."""

    scores: Outcome | None = None
    """Of what the model says; it moves with p(x)."""

    performance: Outcome | None = None
    """Of the task's metric on outcomes: p(y given x)."""

    psi: float | None = None
    """Of the feature that moved most."""

    drop: float | None = None
    """By how much the metric fell; below 0 it rose."""

    registered: float | None = None
    """The metric on the holdout."""

    fallen: tuple[str, ...] = ()
    """Slices whose metric surely fell."""

    reasons: Mapping[str, str] | None = None
    """The monitor's sentence for each of its questions."""

    def why(self, question: str) -> str:
        """Return the monitor's sentence for one of its questions."""
        return (self.reasons or {}).get(question, "nothing is known")

    @property
    def moved(self) -> bool:
        """Whether p(x) surely moved, by the features or by what the model makes of them."""
        return Outcome.FAIL in (self.drift, self.scores)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Signals:
        """Read the monitor's ``signals.json``.

        Raises:
            ValueError: A field is missing or of another kind.
        """
        try:
            asked = {name: document[name] for name in QUESTIONS}
            outcomes = {name: _outcome(said["outcome"]) for name, said in asked.items()}
            performance = asked["performance"]
            return cls(
                **outcomes,
                errors=tuple(document["errors"]),
                psi=_number(asked["drift"]["psi"]),
                drop=_number(performance["drop"]),
                registered=_number(performance["registered"]),
                fallen=tuple(performance["fallen"]),
                reasons={name: str(said["reason"]) for name, said in asked.items()},
            )
        except (KeyError, TypeError) as e:
            raise ValueError(f"not the monitor's signals: {e!r}; run the monitor again.") from e


QUESTIONS = ("evidence", "quality", "drift", "scores", "performance")
UNKNOWN = "unknown"


def _outcome(said: str) -> Outcome | None:
    return None if said == UNKNOWN else Outcome(said)


def _number(said: Any) -> float | None:
    return None if said is None else float(said)
