"""Evidence: all that the gate's rules look at, and what is refused before any rule is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from penstock.stats import fairness, operating
from penstock.stats.estimates import Estimate
from penstock.stats.measures import Measures
from penstock.stats.scored import Rows, Scored
from penstock.verdict import Check, Outcome
from penstock.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a challenger."""

    declared: Workload
    challenger: Scored
    champion: Scored | None
    slices: Mapping[str, Rows]
    groups: Mapping[str, Mapping[str, Rows]]
    validation: Scored | None
    budget: Mapping[str, Any]
    data_age_days: float | None
    measures: Measures
    incomparable: str = ""
    """Why a champion that serves was not scored."""

    @cached_property
    def fair(self) -> dict[str, list[fairness.Group]]:
        """What was decided of the groups of each attribute whose rows are known."""
        return {
            name: fairness.groups(self.challenger, rows, favourable=self.declared.favourable)
            for name, rows in self.groups.items()
        }

    @cached_property
    def best_threshold(self) -> float | None:
        """Of least cost on the validation rows; None without costs or such rows."""
        costs, usual = self.declared.costs, self.declared.threshold
        if costs is None or usual is None or self.validation is None or not self.validation.n:
            return None
        return operating.best_threshold(self.validation, costs, usual=usual)

    @cached_property
    def regret(self) -> Estimate | None:
        """What a holdout decision costs more than with the best threshold."""
        costs, best = self.declared.costs, self.best_threshold
        if costs is None or best is None:
            return None
        return self.measures.draws.mean(operating.regret(self.challenger, costs, best=best))


def refuse_mismatch(
    declared: Workload,
    challenger: Scored,
    champion: Scored | None,
    validation: Scored | None,
    *,
    slices: Mapping[str, Rows],
    groups: Mapping[str, Mapping[str, Rows]],
) -> None:
    """Refuse scores that are not of one task and one holdout, and rows that are not of it.

    Raises:
        ValueError: Classes, thresholds, labels or numbers of rows differ, or a declared slice or
            group is missing.
    """
    models = {"challenger": challenger, "champion": champion, "validation": validation}
    for whose, scored in models.items():
        if scored is not None:
            _refuse_other_task(declared, whose, scored)
    if champion is not None and not np.array_equal(champion.labels_n, challenger.labels_n):
        raise ValueError(
            f"mismatched holdouts: challenger and champion were scored on different labels, of "
            f"{challenger.n} and {champion.n} rows; score both models on the same holdout revision."
        )
    _refuse_other_rows("slice", [s.name for s in declared.slices], slices, challenger.n)
    for attribute in declared.sensitive:
        if attribute.name in groups:
            wanted, given = [g.name for g in attribute.groups], groups[attribute.name]
            _refuse_other_rows(f"{attribute.name} group", wanted, given, challenger.n)


def _refuse_other_task(declared: Workload, whose: str, scored: Scored) -> None:
    # The champion decides by the threshold it serves with, which may be of an earlier policy.
    own_threshold = whose == "champion" or scored.threshold == declared.threshold
    if scored.classes != declared.classes or not own_threshold:
        raise ValueError(
            f"{whose} was scored for {scored.classes} classes and threshold {scored.threshold}; "
            f"{declared.name} has {declared.classes} and {declared.threshold}: score it as "
            "declared."
        )


def _refuse_other_rows(what: str, wanted: list[str], given: Mapping[str, Rows], n: int) -> None:
    if missing := [name for name in wanted if name not in given]:
        raise ValueError(
            f"{what} {', '.join(missing)} is declared and did not come; there came "
            f"{', '.join(given) or 'none'}: give the rows of each that is declared."
        )
    for name, where_n in given.items():
        if where_n.shape != (n,) or where_n.dtype != np.bool_:
            raise ValueError(
                f"{what} {name} is {where_n.dtype} of shape {where_n.shape} for {n} rows; give "
                "true or false for each holdout row."
            )


def not_finite(scores: Mapping[str, Scored | None]) -> Iterator[Check]:
    """Yield an error for each model and set of rows with scores that are not finite numbers.

    Args:
        scores: By whose they are, as a check's name ends: ``""``, ``" of the champion"``.
    """
    for whose, scored in scores.items():
        if scored is None or scored.finite_n.all():
            continue
        rows = np.flatnonzero(~scored.finite_n)
        first = ", ".join(f"{x:g}" for x in scored.logits_nk[rows[0]])
        yield Check(
            name=f"finite scores{whose}",
            outcome=Outcome.ERROR,
            reason=(
                f"{len(rows)} of {scored.n} rows have scores that are NaN or infinite, first row "
                f"{rows[0]}: [{first}]; finite logits are wanted in every row: run the graph on "
                "that row's input and mend the one or the other"
            ),
        )
