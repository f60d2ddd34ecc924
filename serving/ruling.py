"""Ruling: a server that answers by a package's rules alone, for when no model may answer.

It reads the same package as a model's server and loads no model. What cannot be looked up is left
out, as the rules take whatever is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from penstock.bundle import Bundle
from penstock.endpoint import Instead
from penstock.request import Contract, Instance, packaged_rules
from penstock.workload import RULES
from serving.answering import Answering, Model
from serving.package import NotServable, Warmth, layout_of
from serving.reading import Asked
from serving.rows import from_instances
from serving.signature import KEY_VARIABLE, verified

if TYPE_CHECKING:
    from penstock.online import Layout


class Ruled:
    """A package whose rules are ready to answer."""

    bundle: Bundle
    instances: list[Instance]
    """The golden requests' rows, as they are sent."""

    layout: Layout | None
    warmth: Sequence[Warmth] = ()
    batching_pays = True

    def __init__(self, path: Path, *, key: Path | None = None) -> None:
        """Verify and load, from one private copy; not yet checked.

        Raises:
            BundleError: A file is missing or altered.
            NotSigned: It has no valid signature by the key.
            NotServable: It carries no rules, or asks for signatures and no key is given.
        """
        with verified(path, key) as copy:
            self._load(copy, signed=key is not None)
            self.bundle = Bundle(path, copy.manifest)

    def _load(self, bundle: Bundle, *, signed: bool) -> None:
        contract = Contract.from_dict(bundle.json("serving.json"))
        if contract.endpoint.signed and not signed:
            raise NotServable(
                f"{contract.workload} serves signed packages only; set {KEY_VARIABLE} to the file "
                "of the public key."
            )
        if RULES not in bundle.manifest["files"]:
            raise NotServable(
                f"its package carries no rules; write workloads/{contract.workload}/rules.py and "
                "register the model again."
            )
        # Whatever else the endpoint declares needs a model's answers.
        always = replace(contract.endpoint, lookup=(Instead.RULES,), failed=())
        self.contract = replace(contract, endpoint=always)
        self.layout, self.rules = layout_of(bundle), packaged_rules(bundle)
        held: dict[str, Any] = bundle.json("golden.json")
        self.instances = [request["instance"] for request in held["requests"]]

    def batch_most(self, max_ms: float) -> int:  # noqa: ARG002 - rules take no time
        """Return how many rows are answered at once."""
        return self.contract.rows

    def check_golden(self) -> int:
        """Answer the golden requests, each alone and all together; return how many there are.

        Raises:
            NotServable: The rules give no probabilities.
        """
        columns, count = from_instances(self.instances, self.contract), len(self.instances)
        for rows in (*(slice(n, n + 1) for n in range(count)), slice(None)):
            part = {name: held[rows] for name, held in columns.items()}
            try:
                told_nk = self.probabilities(part)
            except Exception as e:
                raise NotServable(f"the rules fail on golden requests: {e}") from e
            if not (told_nk >= 0).all() or not np.allclose(told_nk.sum(axis=1), 1):
                raise NotServable("the rules gave rows that are no probabilities; each sums to 1.")
        return count

    def probabilities(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return probabilities [n, classes] for columns of shape [n].

        Raises:
            ValueError: The rules gave another shape.
        """
        told_nk = np.asarray(self.rules(columns), np.float64)
        wanted = (len(next(iter(columns.values()))), self.contract.classes)
        if told_nk.shape != wanted:
            raise ValueError(f"rules gave shape {told_nk.shape}; {wanted} was wanted.")
        return told_nk


class RulesAnswering(Answering):
    """Answers each request by the rules, and says so."""

    def __init__(self, ruled: Ruled, **more: Any) -> None:
        """Take the rules and the other parts."""
        # Probabilities are asked of it here, and no logits.
        super().__init__(cast("Model", ruled), **more)
        self._ruled = ruled

    def _probabilities(self, batch: Sequence[Asked]) -> NDArray[np.float64]:
        first = batch[0].columns
        columns = {name: np.concatenate([a.columns[name] for a in batch]) for name in first}
        return self._ruled.probabilities(columns)

    def _note(self, asked: Asked) -> None:
        if Instead.RULES.value not in asked.seen.fallbacks:
            asked.seen.fallbacks.append(Instead.RULES.value)
        super()._note(asked)
