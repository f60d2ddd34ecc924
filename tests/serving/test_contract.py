"""Laws of a contract: it asks for what the transform reads, no more and no less."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock import workload as workloads
from penstock.register.contract import contract_of
from penstock.request import request_input
from tests.serving.tables import rows

TABLES = ("credit", "streamrec")


@pytest.mark.parametrize("name", TABLES)
def test_the_transform_takes_a_request_and_misses_each_feature(name: str):
    """With all features it runs; without any one of them it does not."""
    contract = contract_of(workloads.load(name))
    transform, held = request_input(workloads.part(name, "transform")), rows(contract, 5)

    assert len(transform(held)) == 5
    for feature in contract.names:
        with pytest.raises((KeyError, ValueError), match=feature):
            transform(held.drop_columns([feature]))


@pytest.mark.parametrize("name", [*TABLES, "digits"])
def test_a_request_holds_neither_the_label_nor_what_nobody_reads(name: str):
    """Join keys that only identify stay out, and so does what is to be predicted."""
    declared = workloads.load(name)
    names = contract_of(declared).names

    assert declared.label not in names
    assert not {"client_id", "impression_id", "capture_id"} & set(names)


def test_digits_ask_for_pixels_alone():
    """The ink is computed from them: a request holds less than a snapshot's row."""
    contract = contract_of(workloads.load("digits"))

    assert (contract.names, contract.plain, contract.rows) == (["pixels"], True, 64)


def test_a_transform_that_reads_the_label_is_refused():
    """No request has what is to be predicted; a model that needs it is no model."""
    declared = replace(workloads.load("streamrec"), label="taste")

    with pytest.raises(ValueError, match="reads the label 'taste'"):
        contract_of(declared)
