"""What a model does with rows changed on purpose, and with plain cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock import workload as workloads
from penstock.stats import metrics
from penstock.workload import Behaviour, Direction, Invariance, MinimumFunctionality, Workload

Answer = Callable[[pa.Table], NDArray[np.floating]]
"""From rows to the logits [n, k] of the graph that serves."""


class Unusable(ValueError):
    """A behaviour's function cannot be used as it is; the text says what to do."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What the model made of one behaviour's rows, each array of shape [n] over those that count.

    A row that the change leaves as it is says nothing and does not count.
    """

    row_n: NDArray[np.int64]
    """Where it is among the holdout rows, or the cases."""

    class_n: NDArray[np.int64]
    """Class whose probability ``before`` and ``after`` are."""

    before_n: NDArray[np.float64] | None
    """None for plain cases: there is nothing before."""

    after_n: NDArray[np.float64]
    decided_n: NDArray[np.int64]
    behaved_n: NDArray[np.bool_]
    badness_n: NDArray[np.float64]
    """Orders the examples, greatest first; NaN is the worst."""

    mean_change: float | None = None
    """Of the probability in the direction asked, NaN where a row has none; None where none is."""


def tried(behaviour: Behaviour, declared: Workload, rows: pa.Table, answer: Answer) -> Tried:
    """Return what the model makes of the rows or cases that a behaviour's function gives.

    Raises:
        Unusable: There is no such function, it raised, what it returned does not fit, or it leaves
            no row to judge.
    """
    try:
        return _tried(behaviour, declared, rows, answer)
    except Unusable:
        raise
    except Exception as e:  # a workload's function may raise anything
        name = function_of(behaviour)
        raise Unusable(f"{name}, or what reads its rows, raised {e!r}; mend it.") from e


def _tried(behaviour: Behaviour, declared: Workload, rows: pa.Table, answer: Answer) -> Tried:
    made = _made(behaviour, declared, rows)
    if isinstance(behaviour, MinimumFunctionality):
        if not len(made):
            raise Unusable(f"{behaviour.cases} gave no case; there is nothing to judge.")
        return _on_cases(made, answer(made), declared)
    if len(made) != len(rows):
        raise Unusable(
            f"{behaviour.change} returned {len(made)} rows for {len(rows)}; return every row in "
            "its order, and those that do not apply as they are."
        )
    row_n = np.flatnonzero(changed(rows, made))
    if not len(row_n):
        raise Unusable(f"{behaviour.change} changed no row; there is nothing to judge.")
    before_nk, after_nk = (answer(table.take(pa.array(row_n))) for table in (rows, made))
    if isinstance(behaviour, Invariance):
        return _unmoved(behaviour, row_n, before_nk, after_nk, declared.threshold)
    return _moved(behaviour, row_n, before_nk, after_nk, declared.threshold)


def _made(behaviour: Behaviour, declared: Workload, rows: pa.Table) -> pa.Table:
    """Return what the behaviour's function makes of the holdout rows.

    Raises:
        Unusable: There is no such function, or it returned something else than a table.
    """
    name, where = function_of(behaviour), f"workloads/{declared.name}/behaviour.py"
    try:
        function = getattr(workloads.part(declared.name, "behaviour"), name, None)
    except ModuleNotFoundError as e:
        raise Unusable(f"{where} cannot be imported: {e}; write it, or mend its imports.") from e
    if function is None:
        raise Unusable(f"{where} has no function {name!r}; write it, or mend the declaration.")
    made = function(rows)
    if not isinstance(made, pa.Table):
        raise Unusable(f"{name} returned a {type(made).__name__}; a pyarrow Table was wanted.")
    return made


def function_of(behaviour: Behaviour) -> str:
    """Return the name of the function in the workload's ``behaviour.py``."""
    return behaviour.cases if isinstance(behaviour, MinimumFunctionality) else behaviour.change


def changed(rows: pa.Table, made: pa.Table) -> NDArray[np.bool_]:
    """Return which rows differ in any column, shape [n]; two missing values are the same."""
    found_n = np.zeros(len(rows), bool)
    for name in rows.column_names:
        if name not in made.column_names:
            raise Unusable(f"the changed rows have no column {name!r}; keep all columns.")
        if not rows[name].equals(made[name]):
            pairs = zip(rows[name].to_pylist(), made[name].to_pylist(), strict=True)
            # What is no number (NaN) is not even equal to itself.
            found_n |= np.array([a != b and not (a != a and b != b) for a, b in pairs], bool)  # noqa: PLR0124
    return found_n


def _unmoved(
    asked: Invariance,
    row_n: NDArray[np.int64],
    before_nk: NDArray[np.floating],
    after_nk: NDArray[np.floating],
    threshold: float | None,
) -> Tried:
    was_n, is_n = (metrics.decisions(nk, threshold=threshold) for nk in (before_nk, after_nk))
    before, after = metrics.probabilities(before_nk), metrics.probabilities(after_nk)
    moved_n = np.abs(after - before).max(axis=1)
    behaved_n = (was_n == is_n) & np.isfinite(moved_n)
    if asked.max_probability_change is not None:
        behaved_n &= moved_n <= asked.max_probability_change
    # Of two classes people read the probability of the second; of many, that of the decision.
    class_n = np.ones(len(row_n), np.int64) if before.shape[1] == 2 else np.maximum(was_n, 0)
    return _of(row_n, class_n, before, after, is_n, behaved_n, badness_n=moved_n)


def _moved(
    asked: Direction,
    row_n: NDArray[np.int64],
    before_nk: NDArray[np.floating],
    after_nk: NDArray[np.floating],
    threshold: float | None,
) -> Tried:
    before, after = metrics.probabilities(before_nk), metrics.probabilities(after_nk)
    rise_n = after[:, 1] - before[:, 1]
    wrong_n = -rise_n if asked.rises else rise_n
    class_n = np.ones(len(row_n), np.int64)
    decided_n = metrics.decisions(after_nk, threshold=threshold)
    behaved_n = wrong_n <= asked.tolerance
    found = _of(row_n, class_n, before, after, decided_n, behaved_n, badness_n=wrong_n)
    return replace(found, mean_change=float(-wrong_n.mean()))


def _on_cases(cases: pa.Table, logits_nk: NDArray[np.floating], declared: Workload) -> Tried:
    if declared.label not in cases.column_names:
        held = ", ".join(cases.column_names)
        raise Unusable(f"the cases have no label {declared.label!r}; they have {held}.")
    labels_n = cases[declared.label].to_numpy().astype(np.int64)
    if not np.isin(labels_n, np.arange(declared.classes)).all():
        raise Unusable(f"a case's label is no class; they are 0 to {declared.classes - 1}.")
    after = metrics.probabilities(logits_nk)
    decided_n = metrics.decisions(logits_nk, threshold=declared.threshold)
    row_n = np.arange(len(labels_n))
    badness_n = 1 - after[row_n, labels_n]
    return _of(row_n, labels_n, None, after, decided_n, decided_n == labels_n, badness_n=badness_n)


def _of(
    row_n: NDArray[np.int64],
    class_n: NDArray[np.int64],
    before_nk: NDArray[np.float64] | None,
    after_nk: NDArray[np.float64],
    decided_n: NDArray[np.int64],
    behaved_n: NDArray[np.bool_],
    *,
    badness_n: NDArray[np.float64],
) -> Tried:
    """Return what was tried, with the probabilities of each row's class picked out."""
    at = np.arange(len(row_n))
    return Tried(
        row_n=row_n,
        class_n=class_n,
        before_n=None if before_nk is None else before_nk[at, class_n],
        after_n=after_nk[at, class_n],
        decided_n=decided_n,
        behaved_n=behaved_n,
        badness_n=badness_n,
    )
