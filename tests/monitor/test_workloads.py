"""What the workloads ask to be compared is there to be compared."""

from __future__ import annotations

import pytest

from penstock.register.contract import contract_of
from penstock.workload import Workload, known, load, load_data

MODELS = [name for name in known() if isinstance(load_data(name), Workload)]


@pytest.mark.parametrize("name", MODELS)
def test_a_watched_column_is_a_feature_that_the_log_keeps_as_a_number(name: str):
    """A column that no request holds, or that is kept as a hash, would be an error at each look."""
    declared = load(name)
    contract = contract_of(declared)

    watched = set(declared.watch.columns)
    assert watched <= set(contract.names)
    assert not watched & {*contract.endpoint.hashed, *declared.data.unique, declared.label}
