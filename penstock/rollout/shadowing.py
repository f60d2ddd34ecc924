"""Compare the answers to copies with the originals': decisions, ranks, scores; overall and slices.

A shadow shows that a version can answer, and how it differs. It never shows that users are better
off: that takes the canary, which every plan with a champion has.

Intervals are bootstraps over users, which hold at one look. So one looks at doubling numbers of
users, each look with its part of alpha, and at nothing between two looks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

from penstock.release import Shadow
from penstock.rollout.checks import NOTHING, Found, Levels
from penstock.rollout.evidence import Answers, Copies, Evidence, Floats, Ints
from penstock.stats import divergence, drift, looks, ranks
from penstock.verdict import Outcome

ASKED = ("decided otherwise", "spearman", "kendall", "overlap", "divergence")
"""What copies are asked; coverage cannot fail a version."""

OTHERWISE, SPEARMAN, KENDALL, OVERLAP, DIVERGENCE = ASKED
COVERAGE = "copies that can be compared"
IN_SLICES = "decided otherwise in slices"

RANKED = 1_000
"""Copies of which rank correlations are made, evenly from all: more would take seconds."""

RESAMPLES, LEVEL = 200, 0.05
"""Of the bootstrap. Bounds of other levels are as far from the estimate as a normal law says."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Copies up to a look. Equal ones are worked out once, however many ticks see them."""

    user_n: Ints
    alike_n: Any
    one_n: Floats
    other_n: Floats
    group_r: Ints
    one_r: Floats
    other_r: Floats

    @cached_property
    def _digest(self) -> bytes:
        made = hashlib.sha256()
        for column in (self.user_n, self.alike_n, self.one_n, self.other_n, self.one_r):
            made.update(np.ascontiguousarray(column).tobytes())
        return made.digest()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pairs) and self._digest == other._digest

    def __len__(self) -> int:
        return len(self.user_n)
