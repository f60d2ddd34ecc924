"""Laws of the bytes: what Feast writes is read as Feast reads it, and damage is named."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Map, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from penstock.online import KeyColumn, OnlineError
from penstock.online.wire import key_prefix, key_value, timestamp_us, value

INT64 = st.integers(-(2**63), 2**63 - 1)
SECONDS = st.integers(0, 2**32)
FLOAT = st.floats(width=32, allow_nan=False)
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "bytes_val": st.binary(),
    "string_val": st.text(),
    "int32_val": st.integers(-(2**31), 2**31 - 1),
    "int64_val": INT64,
    "double_val": st.floats(allow_nan=False),
    "float_val": FLOAT,
    "bool_val": st.booleans(),
    "unix_timestamp_val": SECONDS,
}
values = st.one_of(
    *(
        st.builds(lambda v, n=name: Value(**{n: v}), given_value)
        for name, given_value in PLAIN.items()
    ),
    *(
        st.builds(
            lambda v, n=name: Value(**{n.replace("_val", "_list_val"): {"val": v}}),
            st.lists(given_value, max_size=4),
        )
        for name, given_value in PLAIN.items()
    ),
    st.just(Value()),
    st.just(Value(null_val=0)),
)


def as_feast_reads(message: Value) -> Any:
    """Return the Python value of a message, by its own library."""
    kind = message.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    held = getattr(message, kind)
    listed = list(held.val) if kind.endswith("_list_val") else held
    if kind == "unix_timestamp_val":
        return datetime.fromtimestamp(listed, UTC)
    if kind == "unix_timestamp_list_val":
        return [datetime.fromtimestamp(s, UTC) for s in listed]
    return listed


@given(message=values)
def test_a_value_is_read_as_its_own_library_reads_it(message: Value):
    """Every type and list that features have, to the last bit."""
    got, wanted = value(message.SerializeToString()), as_feast_reads(message)

    assert (got, repr(got)) == (wanted, repr(wanted))


@given(message=values, data=st.data())
def test_damaged_bytes_are_named_or_read_and_never_crash(message: Value, data: st.DataObject):
    """Cut off or altered anywhere, a value is an OnlineError or some value."""
    whole = message.SerializeToString()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    place = data.draw(st.integers(0, max(0, len(cut) - 1)))
    altered = cut[:place] + data.draw(st.binary(max_size=2)) + cut[place + 1 :]
    for damaged in (cut, altered):
        with suppress(OnlineError):
            value(damaged)


def test_a_type_that_is_not_looked_up_is_refused():
    """A map is not mistaken for anything else."""
    message = Value(map_val=Map(val={"a": Value(int64_val=1)}))

    with pytest.raises(OnlineError, match="none of the types"):
        value(message.SerializeToString())


@given(user=INT64, device=st.text(), small=st.integers(-(2**31), 2**31 - 1), raw=st.binary())
def test_keys_are_those_feast_writes(user: int, device: str, small: int, raw: bytes):
    """Several keys of every supported type give the bytes of Feast's own function."""
    columns = [
        KeyColumn(name="device", asked="d", kind="STRING"),
        KeyColumn(name="raw", asked="r", kind="BYTES"),
        KeyColumn(name="small", asked="s", kind="INT32"),
        KeyColumn(name="user_id", asked="u", kind="INT64"),
    ]
    given_values: list[Any] = [device, raw, small, user]
    proto = EntityKey(
        join_keys=["user_id", "small", "device", "raw"],
        entity_values=[
            Value(int64_val=user),
            Value(int32_val=small),
            Value(string_val=device),
            Value(bytes_val=raw),
        ],
    )

    ours = key_prefix(columns) + b"".join(map(key_value, given_values, columns))

    assert ours == serialize_entity_key(proto, entity_key_serialization_version=3)


@pytest.mark.parametrize(
    ("given_value", "kind"),
    [
        ("7", "INT64"),
        (7, "STRING"),
        (True, "INT64"),
        (7.0, "INT64"),
        (None, "STRING"),
        (2**63, "INT64"),
    ],
)
def test_a_key_of_another_type_is_refused(given_value: Any, kind: str):
    """A text where a number is wanted would silently be another entity."""
    with pytest.raises(OnlineError, match="user_id"):
        key_value(given_value, KeyColumn(name="user", asked="user_id", kind=kind))


@given(microseconds=st.integers(0, 2**52))
def test_timestamps_are_read_to_the_microsecond(microseconds: int):
    """As their own library reads them."""
    stamp = Timestamp()
    stamp.FromMicroseconds(microseconds)

    assert timestamp_us(stamp.SerializeToString()) == stamp.ToMicroseconds()
