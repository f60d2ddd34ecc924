"""Return layers to float, one at a time, until the int8 graph keeps its tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class State:
    """What validation rows say of the graph with some layers in float."""

    gaps: Mapping[str, float]
    """Checks that fail, and how far each is beyond its limit; empty: the tolerance is kept."""

    snr_db: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """One layer that went back to float."""

    layer: str
    before: State
    after: State

    @property
    def why(self) -> str:
        """One sentence: what failed most before, and what is left of it."""
        name = max(self.before.gaps, key=lambda n: self.before.gaps[n])
        left = self.after.gaps.get(name)
        now = "keeps it" if left is None else f"is beyond it by {left:.4g}"
        return (
            f"{name} was beyond its limit by {self.before.gaps[name]:.4g} and {now} with this "
            f"layer in float; {len(self.before.gaps)} checks failed before, "
            f"{len(self.after.gaps)} after"
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """Which layers stay in float, and how that was found."""

    steps: tuple[Step, ...]
    spared: tuple[str, ...]
    """Layers that went back to float early and turned out not to be needed there."""

    state: State

    start: tuple[str, ...] = ()
    """Layers that were in float from the start."""

    @property
    def keep_float(self) -> tuple[str, ...]:
        """Layers that stay in float, in the order in which they went back."""
        gone = (step.layer for step in self.steps if step.layer not in self.spared)
        return (*self.start, *gone)


def fall_back(
    layers: Sequence[str],
    evaluate: Callable[[frozenset[str]], State],
    *,
    most: int | None,
    start: Sequence[str] = (),
) -> Found:
    """Return the layers to leave in float so that the tolerance is kept.

    Greedy: while a check fails, the layer goes back whose reversion leaves least of the gaps. All
    the rest are tried again at each step, and a step may make things worse, because the noise of
    two layers can cancel. Once the tolerance is kept, each layer but the last is tried in int8
    again.

    Args:
        layers: Names, in order of computing; the earlier of equals goes first.
        evaluate: What validation rows say with a set of layers in float.
        most: Layers that may stay in float; None: any number.
        start: Layers that are in float already, and stay there.
    """
    already = frozenset(start)
    now = evaluate(already)
    steps: list[Step] = []
    limit = (len(layers) if most is None else min(most, len(layers))) - len(already)
    while now.gaps and len(steps) < limit:
        gone = already.union(step.layer for step in steps)
        tried = {name: evaluate(gone | {name}) for name in layers if name not in gone}
        best = min(tried, key=lambda name: _rank(tried[name], now))
        steps.append(Step(layer=best, before=now, after=tried[best]))
        now = tried[best]
    if now.gaps:
        return Found(steps=tuple(steps), spared=(), state=now, start=tuple(start))
    spared: list[str] = []
    for step in steps[:-1]:
        still = already.union(s.layer for s in steps) - {*spared, step.layer}
        if not (state := evaluate(still)).gaps:
            spared.append(step.layer)
            now = state
    return Found(steps=tuple(steps), spared=tuple(spared), state=now, start=tuple(start))


def _rank(tried: State, now: State) -> tuple[float, float]:
    """Order by what is left of the gaps, each as a share of what it is now, then by noise.

    Shares, because decibels and probabilities have no common unit; a check that fails only now
    counts as one that has not moved.
    """
    left = sum(gap / now.gaps[n] if now.gaps.get(n) else 1.0 for n, gap in tried.gaps.items())
    return left, -tried.snr_db
