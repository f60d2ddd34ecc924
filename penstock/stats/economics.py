"""When training again pays: what growing stale costs, and how often it is cheapest to train.

Right answers decay as A(t) = A₀ e^(-g t), t days after a training. What they would have earned and
do not is the staleness; trainings cost C each. Both are in one unit, a day's worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Decay:
    """What answers are worth, and how fast they get worse.

    >>> decay = Decay(queries_a_day=1e6, value=0.5, accuracy=0.95, rate=0.02)
    >>> round(decay.staleness(7), 2), round(decay.cost_a_day(7, training=5_000), 2)
    (222258.09, 32465.44)
    """

    queries_a_day: float
    value: float
    """Of one right answer."""

    accuracy: float
    """A₀: right after a training, as a share."""

    rate: float
    """g: lost each day, of what is left."""

    @property
    def half_life(self) -> float:
        """Days until half of the answers that were right are not.

        >>> round(Decay(queries_a_day=1, value=1, accuracy=0.95, rate=0.02).half_life, 3)
        34.657
        """
        return math.log(2) / self.rate

    @property
    def worth_a_day(self) -> float:
        """What all answers of a day are worth right after a training."""
        return self.queries_a_day * self.value * self.accuracy

    def lost(self, days: float) -> float:
        """Return by how much the share of right answers has fallen, ``days`` after a training."""
        return self.accuracy * -math.expm1(-self.rate * days)

    def staleness(self, days: float) -> float:
        """Return what was not earned within so many days of a training: Q V A₀ (T - (1-e^-gT)/g).

        >>> round(Decay(queries_a_day=1e6, value=0.5, accuracy=0.95, rate=0.02).staleness(1), 2)
        4718.49
        """
        return self.worth_a_day * (days + math.expm1(-self.rate * days) / self.rate)

    def cost_a_day(self, days: float, *, training: float) -> float:
        """Return what a day costs where training is repeated every so many days: (S + C) / T.

        >>> decay = Decay(queries_a_day=1e6, value=0.5, accuracy=0.95, rate=0.02)
        >>> [round(decay.cost_a_day(days, training=5_000), 2) for days in (1, 30)]
        [9718.49, 117975.88]
        """
        return (self.staleness(days) + training) / days

    def best_interval(self, *, training: float) -> float:
        """Return the days between trainings that cost least, by the rule √(2C / (Q V A₀ g)).

        The rule takes the decay to be a straight line, which it is for a few days. Four times the
        cost of a training makes it twice as long; four times the queries, or the decay, half.

        >>> decay = Decay(queries_a_day=1e6, value=0.5, accuracy=0.95, rate=0.02)
        >>> round(decay.best_interval(training=5_000), 5)
        1.02598
        """
        return math.sqrt(2 * training / (self.worth_a_day * self.rate))

    def exact_interval(self, *, training: float) -> float | None:
        """Return the days between trainings that cost least on the curve itself; None for never.

        A training pays at some time only where it costs less than all that decay can take.

        >>> decay = Decay(queries_a_day=1e6, value=0.5, accuracy=0.95, rate=0.02)
        >>> days = decay.exact_interval(training=5_000)
        >>> round(days, 5), round(decay.cost_a_day(days, training=5_000), 2)
        (1.03306, 9713.4)
        """
        # The derivative of the cost a day is 0 where 1 - (1 + x) e^-x = c, with x = g T.
        c = training * self.rate / self.worth_a_day
        if c >= 1:
            return None
        low, high = 0.0, 1.0
        while _gained(high) < c:
            high *= 2
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if _gained(middle) < c else (low, middle)
        return high / self.rate


def _gained(x: float) -> float:
    return -math.expm1(-x) - x * math.exp(-x)


def silent_failure(value_a_year: float, *, share: float, days: float) -> float:
    """Return what a failure that nobody sees for so many days costs.

    >>> [round(silent_failure(50e6, share=0.05, days=days), 1) for days in (28, 1)]
    [191780.8, 6849.3]
    """
    return value_a_year * share * days / 365
