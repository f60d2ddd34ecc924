"""Laws of reading a request: what a client writes is read back, and all else is refused by name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock import workload as workloads
from penstock.register.contract import contract_of
from penstock.request import STAMP, Contract, Feature, instances, v1_request, v2_request
from serving.reading import from_instances, from_lists, from_tensors
from tests.serving.tables import rows

NAMES = ("credit", "digits", "streamrec")
CONTRACTS = {name: contract_of(workloads.load(name)) for name in NAMES}


def of_tensors(document: dict[str, Any], contract: Contract) -> pa.Table:
    """Return the rows of a v2 body, by way of its text."""
    features = {f.name: f for f in contract.features}
    read = json.loads(json.dumps(document, allow_nan=False))
    tensors = {
        t["name"]: from_lists(features[t["name"]], t["data"]).reshape(t["shape"])
        for t in read["inputs"]
    }
    return from_tensors(tensors, contract)


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(1, 64), st.integers(0, 2**32))
def test_both_bodies_are_read_back_as_the_snapshot_had_them(name: str, n: int, seed: int):
    """Values, types and what is missing survive the way through either protocol's JSON."""
    contract = CONTRACTS[name]
    held = rows(contract, n, seed=seed)
    sent = instances(contract, held)

    one = json.loads(json.dumps(v1_request(contract, sent), allow_nan=False))

    assert from_instances(one["instances"], contract).equals(held)
    assert of_tensors(v2_request(contract, sent), contract).equals(held)


@pytest.mark.parametrize("name", NAMES)
def test_a_contract_is_read_back_from_its_file(name: str):
    """What ``serving.json`` holds makes the same contract again."""
    contract = CONTRACTS[name]

    assert Contract.from_dict(json.loads(json.dumps(contract.to_dict()))) == contract


def test_a_contract_that_is_none_is_refused():
    """A field that no contract has, or that this one lacks, is named."""
    held = CONTRACTS["credit"].to_dict()

    with pytest.raises(KeyError, match="rows"):
        Contract.from_dict({k: v for k, v in held.items() if k != "rows"})
    with pytest.raises(ValueError, match="register the model again"):
        Contract.from_dict({**held, "features": [{**held["features"][0], "unit": "€"}]})


FULL = rows(CONTRACTS["streamrec"], 3)
SENT = instances(CONTRACTS["streamrec"], FULL)

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"category": "3"}, "category: text came"),
    "truth": ({"mobile": True}, "mobile: a truth value came"),
    "object": ({"mobile": {}}, "mobile: an object came"),
    "list": ({"mobile": [1]}, "mobile: a number for each row was wanted"),
    "null": ({"user_id": None}, "user_id: null came"),
    "range": ({"category": 8}, "category: 8 came, 0 to 7 are allowed"),
    "below": ({"taste": -0.1}, "taste: -0.1 came, 0 to 1 are allowed"),
    "open range": ({"tenure_days": -1}, "tenure_days: -1 came, 0 to any are allowed"),
    "fraction": ({"category": 1.5}, "category: holds a number that is not whole"),
    "fraction of a count": ({"user_clicks_24h": 1.5}, "user_clicks_24h: holds a number that is"),
    "infinite": ({"taste": float("inf")}, "taste: holds a value that is not a finite number"),
    "not a number": ({"category": float("nan")}, "category: holds a value that is not a finite"),
    "enormous": ({"user_id": 10**30}, "user_id: a number for each row was wanted"),
    "enormous float": ({"user_id": 1e300}, "user_id: holds a number that is not whole"),
    "seconds": ({"event_timestamp": 1_795_275_405}, "microseconds since 1970"),
    "unknown": ({"income": 1}, "income: is not known"),
}


@pytest.mark.parametrize(("over", "said"), BAD.values(), ids=BAD.keys())
def test_a_value_that_the_contract_forbids_is_refused_by_name(over: dict[str, Any], said: str):
    """One wrong value among good rows is enough, and the text names its feature."""
    with pytest.raises(ValueError, match=said):
        from_instances([SENT[0], {**SENT[1], **over}], CONTRACTS["streamrec"])


def test_rows_that_lack_a_feature_or_are_too_many_are_refused():
    """Missing is not null; and a batch has a most."""
    contract = CONTRACTS["streamrec"]
    lacking = {name: value for name, value in SENT[0].items() if name != "taste"}

    with pytest.raises(ValueError, match="taste: is missing"):
        from_instances([SENT[0], lacking], contract)
    with pytest.raises(ValueError, match="513 rows came, 1 to 512"):
        from_instances([SENT[0]] * 513, contract)
    with pytest.raises(ValueError, match="0 rows came"):
        from_instances([], contract)
    with pytest.raises(ValueError, match="list of objects"):
        from_instances([1], contract)


def test_tensors_of_different_lengths_are_refused():
    """Each feature has one value a row; the odd one is named."""
    document = v2_request(CONTRACTS["streamrec"], SENT)
    odd = next(t for t in document["inputs"] if t["name"] == "taste")
    odd["shape"], odd["data"] = [2], odd["data"][:2]

    with pytest.raises(ValueError, match="taste: 2 rows came, user_id has 3"):
        of_tensors(document, CONTRACTS["streamrec"])


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_whole_numbers_may_come_in_any_type_that_holds_them(kind: type):
    """A count sent as FP32, FP64 or INT64 is the same count."""
    feature = Feature(name="count", dtype="int64", low=0, nullable=True)
    contract = Contract(workload="any", classes=2, threshold=0.5, rows=8, features=(feature,))

    read = from_tensors({"count": np.array([0, 7, 2**20], kind)}, contract)

    assert read["count"].to_pylist() == [0, 7, 2**20]
    assert read.schema.field("count").type == pa.int64()


def test_only_the_values_that_are_named_are_allowed():
    """A column with all its values declared takes no other; a missing one is none."""
    feature = Feature(name="grade", dtype="int64", among=(1, 2, 5), nullable=True)
    contract = Contract(workload="any", classes=2, threshold=0.5, rows=8, features=(feature,))

    assert from_instances([{"grade": 5}, {"grade": None}], contract)["grade"].to_pylist() == [
        5,
        None,
    ]
    with pytest.raises(ValueError, match=r"grade: only \[1, 2, 5\]"):
        from_instances([{"grade": 3}], contract)


def test_a_type_that_no_request_carries_is_refused_when_the_contract_is_made():
    """A name is not a number; the declaration is told what to do."""
    with pytest.raises(ValueError, match="'city' is string; a request carries"):
        Feature(name="city", dtype="string")
    assert Feature(name="seen", dtype=STAMP).datatype == "INT64"


FOUR = Feature(name="pixels", dtype="list<element: float>", length=4, low=0, high=16)
IMAGES = Contract(workload="digits", classes=10, threshold=None, rows=64, features=(FOUR,))


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=6),
        elements=st.floats(-20, 40, width=32) | st.just(float("nan")),
    )
)
def test_images_are_taken_exactly_when_they_fit_the_contract(values: np.ndarray):
    """Any array is either refused with a sentence naming the field, or has shape and range."""
    fits = (
        values.ndim == 2
        and values.shape[1] == 4
        and 1 <= len(values) <= 64
        and bool(np.isfinite(values).all())
        and bool(((values >= 0) & (values <= 16)).all())
    )

    if fits:
        assert len(from_instances(values.tolist(), IMAGES)) == len(values)
    else:
        with pytest.raises(ValueError, match="pixels"):
            from_instances(values.tolist(), IMAGES)
