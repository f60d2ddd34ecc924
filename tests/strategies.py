"""Hypothesis strategies shared by the tests; a new value type adds its strategy here."""

from __future__ import annotations

from hypothesis import strategies as st

from penstock.bundle import Recipe
from penstock.verdict import Check, Outcome, Verdict

words = st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1, max_size=20)
"""Names and reasons: any script, no control characters."""

identifiers = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)

finite = st.floats(allow_nan=False, allow_infinity=False)
not_finite = st.sampled_from([float("nan"), float("inf"), float("-inf")])

outcomes = st.sampled_from(Outcome)

checks = st.builds(
    Check,
    name=words,
    outcome=outcomes,
    reason=words,
    value=st.none() | finite,
    limit=st.none() | finite,
)

verdicts = st.builds(Verdict, st.lists(checks, max_size=6).map(tuple))

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(identifiers, inner, max_size=3),
    max_leaves=8,
)
"""Everything a recipe's settings may hold."""

settings = st.dictionaries(identifiers, plain_values, max_size=4)

recipes = st.builds(
    Recipe,
    kind=identifiers,
    workload=identifiers,
    inputs=st.dictionaries(identifiers, words, max_size=3),
    settings=settings,
    code=words,
    environment=words,
)

unstable_values = (
    st.just(print)
    | st.just(object())
    | st.sets(st.integers(), min_size=1, max_size=2)
    | st.binary()
    | not_finite
    | st.dictionaries(st.integers(), st.integers(), min_size=1, max_size=2)
)
"""Values without a form that reads back the same in any process."""

file_trees = st.dictionaries(
    st.sampled_from(["a.txt", "b.bin", "deep/c.txt", "deep/er/d", "with space", "é.txt"]),
    st.binary(min_size=1, max_size=64),
    min_size=1,
    max_size=4,
)
"""Relative file names and their bytes."""
