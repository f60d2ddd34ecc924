"""Laws of reading a request: what a client writes is read back, and all else is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock import workload as workloads
from penstock.online import KeyColumn, Layout, ViewLayout
from penstock.register.contract import contract_of
from penstock.request import STAMP, Contract, Feature, instances, v1_request, v2_request
from serving.columns import FEW, Column
from serving.metadata import inputs
from serving.reading import Asked, Names, read_v1, read_v2_binary, read_v2_json
from serving.rows import Rows
from serving.seen import Seen
from tests.serving.tables import binary, rows

NAMES = ("credit", "digits", "streamrec")
CONTRACTS = {name: contract_of(workloads.load(name)) for name in NAMES}


def of_v1(names: Names, document: Any) -> Asked:
    """Return a v1 document, read."""
    return read_v1(names, json.dumps(document).encode(), Seen({}))


def of_v2(names: Names, document: Any) -> Asked:
    """Return a v2 document, read as JSON."""
    return read_v2_json(names, json.dumps(document).encode(), Seen({}))


def of_bytes(names: Names, document: Mapping[str, Any]) -> Asked:
    """Return a v2 document, its numbers read as bytes."""
    body, length = binary(document)
    return read_v2_binary(names, body, str(length).encode(), Seen({}))


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(1, 64), st.integers(0, 2**32))
def test_every_body_is_read_back_as_the_snapshot_had_it(name: str, n: int, seed: int):
    """Values, types and what is missing survive the way through v1, v2 in JSON and v2 in bytes."""
    contract = CONTRACTS[name]
    names, table = Names(contract, None), Rows(contract)
    held = rows(contract, n, seed=seed)
    sent = instances(contract, held)
    two = v2_request(contract, sent, request_id="mine")

    asked = [of_v1(names, v1_request(contract, sent)), of_v2(names, two), of_bytes(names, two)]

    assert [table(one.columns).equals(held) for one in asked] == [True, True, True]
    assert [(a.rows, a.id, a.needs) for a in asked] == [(n, i, False) for i in ("", "mine", "mine")]
    assert all(v.flags.c_contiguous for a in asked for v in a.columns.values())


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


STREAM = Names(CONTRACTS["streamrec"], None)
SENT = instances(STREAM.contract, rows(STREAM.contract, 3))

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"category": "3"}, "category: text came"),
    "truth": ({"mobile": True}, "mobile: a truth value came"),
    "object": ({"mobile": {}}, "mobile: an object came"),
    "list": ({"mobile": [1]}, "mobile: a number for each row was wanted"),
    "list of lists": ({"mobile": [[1]]}, "mobile: a list of lists came"),
    "null": ({"user_id": None}, "user_id: null came"),
    "range": ({"category": 8}, "category: 8 came, 0 to 7 are allowed"),
    "below": ({"taste": -0.1}, "taste: -0.1 came, 0 to 1 are allowed"),
    "open range": ({"tenure_days": -1}, "tenure_days: -1 came, 0 to any are allowed"),
    "fraction": ({"category": 1.5}, "category: holds a number that is not whole"),
    "fraction of a count": ({"user_clicks_24h": 1.5}, "user_clicks_24h: holds a number that is"),
    "infinite": ({"taste": float("inf")}, "taste: holds a value that is not a finite number"),
    "not a number": ({"category": float("nan")}, "category: holds a value that is not a finite"),
    "enormous": ({"user_id": 10**30}, "user_id: "),
    "enormous float": ({"user_id": 1e300}, "user_id: holds a number that is not whole"),
    "seconds": ({"event_timestamp": 1_795_275_405}, "microseconds since 1970"),
    "unknown": ({"income": 1}, "income: is"),
}


@pytest.mark.parametrize("many", [1, FEW + 1])
@pytest.mark.parametrize(("over", "said"), BAD.values(), ids=BAD.keys())
def test_a_value_that_the_contract_forbids_is_refused_by_name(
    over: dict[str, Any], said: str, many: int
):
    """One wrong value among however many good rows is enough, and the text names its feature."""
    sent = [SENT[0]] * many + [{**SENT[1], **over}]

    with pytest.raises(ValueError, match=said):
        of_v1(STREAM, {"instances": sent})


@pytest.mark.parametrize(
    "value", [0.5, 3, 3.0, -1, 7, 7.5, 1e300, 10**17, float("nan"), None, True, "3", [3], 2**63]
)
@pytest.mark.parametrize("feature", STREAM.columns.values(), ids=STREAM.columns.keys())
def test_few_values_are_judged_as_many_are(feature: Column, value: object):
    """The quick look at a few numbers takes and refuses what the thorough one does."""

    def read(count: int) -> list[Any] | None:
        try:
            return feature.of_rows([value] * count)[:1].tolist()
        except ValueError:
            return None

    few, many = read(1), read(FEW + 1)

    assert few == many or str(few) == str(many) == "[nan]"


def test_rows_that_lack_a_feature_or_are_too_many_are_refused():
    """Missing is not null; and a batch has a most."""
    lacking = {name: value for name, value in SENT[0].items() if name != "taste"}

    for sent in ([lacking], [SENT[0], lacking], [lacking, SENT[0]]):
        with pytest.raises(ValueError, match="taste: is missing"):
            of_v1(STREAM, {"instances": sent})
    for sent, said in (
        ([SENT[0]] * 513, "513 rows came, 1 to 512"),
        ([], "0 rows came"),
        ([1], "list of objects"),
    ):
        with pytest.raises(ValueError, match=said):
            of_v1(STREAM, {"instances": sent})


def without_rows(document: dict[str, Any]) -> dict[str, Any]:
    """Return tensors of no rows."""
    return {"inputs": [{**t, "shape": [0], "data": []} for t in document["inputs"]]}


def test_tensors_of_different_lengths_or_none_are_refused():
    """Each feature has one value a row; the odd one is named."""
    document = v2_request(STREAM.contract, SENT)
    odd = next(t for t in document["inputs"] if t["name"] == "taste")
    odd["shape"], odd["data"] = [2], odd["data"][:2]

    for read in (of_v2, of_bytes):
        with pytest.raises(ValueError, match="taste: 2 rows came, user_id has 3"):
            read(STREAM, document)
        with pytest.raises(ValueError, match="user_id: 0 rows came, 1 to 512"):
            read(STREAM, without_rows(document))


@pytest.mark.parametrize("kind", ["FP32", "FP64", "INT64"])
@pytest.mark.parametrize("read", [of_v2, of_bytes])
def test_whole_numbers_may_come_in_any_type_that_holds_them(
    kind: str, read: Callable[[Names, Any], Asked]
):
    """A count sent as FP32, FP64 or INT64 is the same count, whether or not it may be missing."""
    for nullable in (True, False):
        feature = Feature(name="count", dtype="int64", low=0, nullable=nullable)
        names = Names(contract(feature), None)
        sent = {"name": "count", "shape": [3], "datatype": kind, "data": [0, 7, 2**20]}

        columns = read(names, {"inputs": [sent]}).columns

        assert columns["count"].tolist() == [0, 7, 2**20]
        assert columns["count"].dtype == (np.float64 if nullable else np.int64)


@pytest.mark.parametrize("kind", ["BOOL", "UINT8", "INT32", "FP16", "BYTES", "fp32", ""])
@pytest.mark.parametrize("read", [of_v2, of_bytes])
def test_any_other_type_is_refused(kind: str, read: Callable[[Names, Any], Asked]):
    """A type that would have to be guessed at is none of ours, and the wanted ones are said."""
    names = Names(contract(Feature(name="count", dtype="int64")), None)

    with pytest.raises(ValueError, match=r"count: .* came, FP32 or FP64 or INT64 was wanted"):
        read(names, {"inputs": [{"name": "count", "shape": [1], "datatype": kind, "data": [1]}]})


def contract(*features: Feature) -> Contract:
    """Return a small contract of some features."""
    return Contract(workload="any", classes=2, threshold=0.5, rows=64, features=features)


def test_only_the_values_that_are_named_are_allowed():
    """A column with all its values declared takes no other; a missing one is none."""
    names = Names(contract(Feature(name="grade", dtype="int64", among=(1, 5), nullable=True)), None)

    read = of_v1(names, {"instances": [{"grade": 5}, {"grade": None}]}).columns["grade"]

    assert [read[0], np.isnan(read[1])] == [5, True]
    with pytest.raises(ValueError, match=r"grade: only \[1, 5\]"):
        of_v1(names, {"instances": [{"grade": 3}]})


def test_a_type_that_no_request_carries_is_refused_when_the_contract_is_made():
    """A name is not a number; the declaration is told what to do."""
    with pytest.raises(ValueError, match="'city' is string; a request carries"):
        Feature(name="city", dtype="string")
    assert Feature(name="seen", dtype=STAMP).datatype == "INT64"


FOUR = Feature(name="pixels", dtype="list<element: float>", length=4, low=0, high=16)
IMAGES = Names(contract(FOUR), None)


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
    tensor = {"name": "pixels", "shape": list(values.shape), "datatype": "FP32"}
    flat, nested = (
        {"inputs": [{**tensor, "data": v}]} for v in (values.ravel().tolist(), values.tolist())
    )

    for read, document in (
        (of_v1, {"instances": values.tolist()}),
        (of_v2, flat),
        (of_v2, nested),
        (of_bytes, flat),
    ):
        if fits:
            assert np.array_equal(read(IMAGES, document).columns["pixels"], values)
        else:
            with pytest.raises(ValueError, match=r"pixels|instances"):
                read(IMAGES, document)


def test_ragged_rows_are_refused():
    """Rows of different lengths are no images, in either protocol."""
    ragged = [[1, 2, 3, 4], [1, 2, 3]]
    tensor = {"name": "pixels", "shape": [2, 4], "datatype": "FP32", "data": ragged}

    with pytest.raises(ValueError, match="pixels: rows of 4 numbers was wanted"):
        of_v1(IMAGES, {"instances": ragged})
    with pytest.raises(ValueError, match="pixels: rows of 4 numbers was wanted"):
        of_v2(IMAGES, {"inputs": [tensor]})


@given(
    st.binary(max_size=300),
    st.binary(max_size=4) | st.integers(-5, 400).map(lambda n: str(n).encode()),
)
def test_no_bytes_are_read_as_anything_but_a_request(body: bytes, length: bytes):
    """Whatever is sent as a binary request is refused in words."""
    with pytest.raises(ValueError, match=":"):
        read_v2_binary(IMAGES, body, length, Seen({}))


@pytest.mark.parametrize("size", [32, 31, 28, 0, -1, 33, 36, 64])
@pytest.mark.parametrize("header", [0, -1, 1])
@pytest.mark.parametrize("more", [0, 1, 4])
def test_binary_sizes_that_do_not_add_up_are_refused(size: int, header: int, more: int):
    """Bytes too few, too many, or behind the last tensor: only the exact framing is a request."""
    tensor = {"name": "pixels", "shape": [2, 4], "datatype": "FP32"}
    document = {"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}
    said = json.dumps(document).encode()
    raw = np.ones((2, 4), np.float32).tobytes() + bytes(more)
    length = str(len(said) + header).encode()

    if (size, header, more) == (32, 0, 0):
        assert read_v2_binary(IMAGES, said + raw, length, Seen({})).rows == 2
    else:
        with pytest.raises(ValueError, match=r"pixels|body|inputs"):
            read_v2_binary(IMAGES, said + raw, length, Seen({}))


OUTPUTS: dict[str, tuple[dict[str, Any], set[str], set[str]]] = {
    "nothing said": ({}, set(), set()),
    "one": ({"outputs": [{"name": "label"}]}, {"label"}, set()),
    "all as bytes": ({"parameters": {"binary_data_output": True}}, set(), {"label", "probability"}),
    "one as bytes": (
        {
            "outputs": [
                {"name": "label"},
                {"name": "probability", "parameters": {"binary_data": True}},
            ]
        },
        {"label", "probability"},
        {"probability"},
    ),
    "all but one": (
        {
            "parameters": {"binary_data_output": True},
            "outputs": [
                {"name": "label", "parameters": {"binary_data": False}},
                {"name": "probability"},
            ],
        },
        {"label", "probability"},
        {"probability"},
    ),
}


@pytest.mark.parametrize(("over", "outputs", "as_bytes"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_the_outputs_that_are_wanted_are_known(
    over: dict[str, Any], outputs: set[str], as_bytes: set[str]
):
    """Each output's own wish goes before that of the request."""
    asked = of_v2(STREAM, {**v2_request(STREAM.contract, SENT), **over})

    assert (asked.outputs, asked.binary) == (outputs, as_bytes)


WRONG = {
    "outputs": ({"outputs": [{"name": "score"}]}, "outputs: 'score' is not among"),
    "outputs' kind": ({"outputs": ["label"]}, "outputs: null is not among"),
    "a truth": (
        {"outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}]},
        "outputs.label: binary_data must be",
    ),
    "parameters": ({"parameters": [1]}, "parameters: binary_data_output must be"),
    "id": ({"id": 3}, "id: text was wanted"),
    **{
        name: ({"parameters": {name: 1}}, f"parameters: '{name}' is not known")
        for name in ("timeout", "priority", "sequence_id")
    },
    "classes": (
        {"outputs": [{"name": "label", "parameters": {"classification": 2}}]},
        "outputs.label: 'classification' is not known",
    ),
}


@pytest.mark.parametrize(("over", "said"), WRONG.values(), ids=WRONG.keys())
def test_wishes_that_are_none_are_refused(over: dict[str, Any], said: str):
    """What a client wants of the answer is read as strictly as what it sends."""
    with pytest.raises(ValueError, match=said):
        of_v2(STREAM, {**v2_request(STREAM.contract, SENT), **over})


def test_a_misspelt_name_is_named_beside_the_one_that_is_missing():
    """Whoever wrote it finds it in the sentence."""
    document = {"instances": [{"tsate": v} for v in (1, 2)]}

    with pytest.raises(ValueError, match="is missing, and 'tsate' came, which is not known"):
        of_v1(STREAM, document)


def test_bytes_without_their_length_are_told_of_the_header():
    """A body that is JSON and then numbers, and does not say where they begin."""
    body, _ = binary(v2_request(STREAM.contract, SENT))

    with pytest.raises(ValueError, match="inference-header-content-length says how long"):
        read_v2_json(STREAM, body, Seen({}))


@given(st.floats(0.09, 0.11), st.sampled_from([0.1, 1 / 3]))
def test_a_number_of_32_bits_is_the_same_in_json_and_in_bytes(value: float, high: float):
    """At a limit of 64 bits too: both are taken with one value, or both refused."""
    names = Names(contract(Feature(name="x", dtype="double", low=0, high=high)), None)
    document = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [value, high]}]}

    def read(way: Callable[[Names, Any], Asked]) -> Any:
        try:
            return way(names, document).columns["x"].tolist()
        except ValueError as e:
            return str(e)

    assert read(of_v2) == read(of_bytes)


def test_the_metadata_say_what_may_be_left_out():
    """Looked-up features and the time are optional, and the keys by which they are found listed."""
    said = {one["name"]: one.get("parameters", {}) for one in inputs(ONLINE)}

    assert said == {
        "user_id": {},
        "amount": {},
        "limit": {"optional": True},
        "spent": {"optional": True},
        "event_timestamp": {"optional": True},
        "card": {"optional": True, "key": True},
    }


def view(name: str, features: tuple[str, ...], *keys: tuple[str, str]) -> ViewLayout:
    """Return where a view lies, of features and of keys with their types."""
    columns = tuple(KeyColumn(name=key, asked=key, kind=kind) for key, kind in keys)
    return ViewLayout(name=name, keys=columns, features=features, fields=(), ttl_s=None)


CARD, SPENT = ("card", "STRING"), ("user_id", "INT64")
LAYOUT = Layout(
    project="any",
    service="any",
    definitions="",
    views=(view("card", ("limit", "unread"), CARD), view("user", ("spent",), SPENT)),
)
ONLINE = Names(
    contract(
        Feature(name="user_id", dtype="int64"),
        Feature(name="amount", dtype="double"),
        Feature(name="limit", dtype="double"),
        Feature(name="spent", dtype="double", nullable=True),
        Feature(name="event_timestamp", dtype=STAMP),
    ),
    LAYOUT,
)
ROW = {"user_id": 7, "amount": 2.5, "limit": 10.0, "spent": 3.0}
LEFT_OUT = {"user_id": 7, "amount": 2.5, "card": "c-1"}


def as_tensors(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one row as a v2 document."""
    kinds = {str: "BYTES", int: "INT64", float: "FP64"}
    return {
        "inputs": [
            {"name": name, "shape": [1], "datatype": kinds[type(value)], "data": [value]}
            for name, value in row.items()
        ]
    }


def ways(row: Mapping[str, Any]) -> list[Asked]:
    """Return a row, read from each kind of body."""
    two = as_tensors(row)
    return [of_v1(ONLINE, {"instances": [row]}), of_v2(ONLINE, two), of_bytes(ONLINE, two)]


def test_features_that_are_looked_up_may_be_left_out_together():
    """A request holds all of them, or the keys by which they are found."""
    for asked in ways(LEFT_OUT):
        assert asked.needs
        assert asked.keys == {"user_id": [7], "card": ["c-1"]}
        assert set(asked.columns) == {"user_id", "amount", "event_timestamp"}
    for asked in ways({**ROW, "card": "c-1"}) + ways(ROW):
        assert not asked.needs
        assert set(asked.columns) == set(ONLINE.contract.names)
    assert (ONLINE.required, ONLINE.looked_up) == (("user_id", "amount"), {"limit", "spent"})


def test_a_time_that_is_left_out_is_the_servers():
    """Now, in microseconds, for every row; one that was sent stays."""
    at_us = 1_795_275_405_000_000

    for asked in ways(LEFT_OUT):
        assert asked.columns["event_timestamp"].tolist() == [round(asked.seen.at * 1e6)]
    for asked in ways({**LEFT_OUT, "event_timestamp": at_us}):
        assert asked.columns["event_timestamp"].tolist() == [at_us]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a mix": ({**LEFT_OUT, "limit": 1.0}, "spent: is missing, but limit came"),
    "no key": ({"user_id": 7, "amount": 2.5}, "card: is missing; by it"),
    "nothing to find by": ({"amount": 2.5, "card": "c"}, "user_id: is missing"),
    "a stranger": ({**LEFT_OUT, "age": 3}, "age: is not known"),
    "an unread feature": ({**LEFT_OUT, "unread": 3}, "unread: is not known"),
    "a key of another type": ({**LEFT_OUT, "card": 3}, "card: .*3.* came|card: INT64 came"),
    "a key that is no text": ({**LEFT_OUT, "card": "\x00"}, "card: .* came, text was wanted"),
}


@pytest.mark.parametrize(("row", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_request_that_cannot_be_looked_up_is_refused_by_name(row: dict[str, Any], said: str):
    """Half of the features, no key, a key of another type: the sentence says which."""
    two = as_tensors(row)
    for read, document in ((of_v1, {"instances": [row]}), (of_v2, two), (of_bytes, two)):
        with pytest.raises(ValueError, match=said):
            read(ONLINE, document)


@given(st.integers() | st.text(max_size=5) | st.floats() | st.booleans() | st.none())
def test_a_key_is_a_whole_number_of_64_bits_or_text(value: Any):
    """Other values are refused; those that are taken reach the look-up unchanged."""
    fits = type(value) is int and -(2**63) <= value < 2**63
    names = Names(
        contract(Feature(name="spent", dtype="double")),
        Layout(project="", service="", definitions="", views=(view("user", ("spent",), SPENT),)),
    )

    if fits:
        assert of_v1(names, {"instances": [{"user_id": value}]}).keys == {"user_id": [value]}
    else:
        with pytest.raises(ValueError, match="user_id: "):
            of_v1(names, {"instances": [{"user_id": value}]})


def test_a_list_may_be_left_out_for_its_key():
    """A request of a plain contract holds bare rows, or objects where keys are sent instead."""
    layout = Layout(
        project="", service="", definitions="", views=(view("ink", ("pixels",), SPENT),)
    )
    names = Names(IMAGES.contract, layout)

    assert of_v1(names, {"instances": [[1, 2, 3, 4]]}).needs is False
    assert of_v1(names, {"instances": [{"user_id": 3}]}).keys == {"user_id": [3]}


def test_a_table_is_what_the_columns_were():
    """Rows of a request make the table that the transform of a snapshot gets."""
    held = rows(STREAM.contract, 5)
    asked = of_v1(STREAM, v1_request(STREAM.contract, instances(STREAM.contract, held)))

    assert Rows(STREAM.contract)(asked.columns).schema == held.schema
    assert isinstance(Rows(STREAM.contract)(asked.columns), pa.Table)
