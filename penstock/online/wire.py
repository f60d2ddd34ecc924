"""The bytes in which Feast keeps things online: entity keys (version 3), protobuf values."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from penstock.online.layout import KeyColumn, OnlineError, UnfitKey

_DOUBLE, _FLOAT = struct.Struct("<d"), struct.Struct("<f")

_KEY_KINDS: dict[str, tuple[int, type, Callable[[Any], bytes]]] = {
    "BYTES": (1, bytes, bytes),
    "STRING": (2, str, lambda v: v.encode()),
    "INT32": (3, int, struct.Struct("<i").pack),
    "INT64": (4, int, struct.Struct("<q").pack),
}
"""Of each type a key may have: Feast's number, Python's type, its bytes."""

_STRING = struct.pack("<I", 2)


def key_prefix(keys: Sequence[KeyColumn]) -> bytes:
    """Return the part of every key of a view that does not depend on the entity."""
    names = [k.name.encode() for k in keys]
    return struct.pack("<I", len(names)) + b"".join(
        _STRING + struct.pack("<I", len(n)) + n for n in names
    )


def key_value(value: object, key: KeyColumn) -> bytes:
    """Return one entity value as it stands in a key.

    Raises:
        UnfitKey: The value is not of the key's type.
    """
    number, kind, pack = _KEY_KINDS[key.kind]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UnfitKey(
            f"entity key {key.asked} is {value!r}, a {type(value).__name__}; the feature "
            f"definitions say {key.kind}."
        )
    try:
        packed = pack(value)
    except (struct.error, UnicodeEncodeError) as e:
        raise UnfitKey(f"entity key {key.asked} is {value!r}: {e}") from e
    return struct.pack("<II", number, len(packed)) + packed


def supported_key(kind: str) -> bool:
    """Say whether entity values of a type can be looked up."""
    return kind in _KEY_KINDS


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return an unsigned number and where the next field begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _number(data: bytes) -> int:
    return _signed(_varint(data, 1)[0])


def _rest(data: bytes, at: int) -> bytes:
    length, at = _varint(data, at)
    return data[at : at + length]


def _double(data: bytes) -> float:
    return _DOUBLE.unpack_from(data, 1)[0]


def _float(data: bytes) -> float:
    return _FLOAT.unpack_from(data, 1)[0]


def _time(data: bytes) -> datetime:
    return datetime.fromtimestamp(_number(data), UTC)


def _listed(one: Callable[[bytes], list[Any]], tag: int) -> Callable[[bytes], list[Any]]:
    def decode(data: bytes) -> list[Any]:
        return one(_rest(data, tag))

    return decode


def _packed(each: Callable[[bytes], list[Any]]) -> Callable[[bytes], list[Any]]:
    """Return a reader of ``repeated number val = 1 [packed]``."""

    def decode(data: bytes) -> list[Any]:
        return each(_rest(data, 1)) if data else []

    return decode


def _varints(data: bytes) -> list[int]:
    values, at = list[int](), 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(_signed(value))
    return values


def _doubles(data: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(data) // 8}d", data))


def _floats(data: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def _pieces(data: bytes) -> list[bytes]:
    """Return the values of ``repeated bytes val = 1``."""
    pieces, at = list[bytes](), 0
    while at < len(data):
        length, at = _varint(data, at + 1)
        pieces.append(data[at : at + length])
        at += length
    return pieces


# The first byte of a value is its field's number and wire type; numbers above 15 take two bytes,
# the second of which is 1 for all that are read here.
_BY_TAG: dict[int, Callable[[bytes], Any]] = {
    1 << 3 | 2: lambda d: _rest(d, 1),
    2 << 3 | 2: lambda d: _rest(d, 1).decode(),
    3 << 3: _number,
    4 << 3: _number,
    5 << 3 | 1: _double,
    6 << 3 | 5: _float,
    7 << 3: lambda d: bool(d[1]),
    8 << 3: _time,
    11 << 3 | 2: _listed(_pieces, 1),
    12 << 3 | 2: _listed(lambda d: [p.decode() for p in _pieces(d)], 1),
    13 << 3 | 2: _listed(_packed(_varints), 1),
    14 << 3 | 2: _listed(_packed(_varints), 1),
    15 << 3 | 2: _listed(_packed(_doubles), 1),
    (16 << 3 | 2) & 0x7F | 0x80: _listed(_packed(_floats), 2),
    (17 << 3 | 2) & 0x7F | 0x80: _listed(_packed(lambda d: [bool(b) for b in d]), 2),
    (18 << 3 | 2) & 0x7F | 0x80: _listed(
        _packed(lambda d: [datetime.fromtimestamp(s, UTC) for s in _varints(d)]), 2
    ),
    (19 << 3) & 0x7F | 0x80: lambda _: None,
}


def value(data: bytes) -> Any:
    """Return the value of a ``feast.types.Value`` message; None where it holds none.

    Raises:
        OnlineError: It is of a kind that is not read here: maps, sets, JSON, decimals.
    """
    if not data:
        return None
    try:
        decode = _BY_TAG[data[0]]
        if data[0] >= 0x80 and data[1] != 1:
            raise KeyError(data[0])
        return decode(data)
    except KeyError as e:
        raise OnlineError(
            f"an online value begins with {data[:2].hex()}, which is none of the types that are "
            "looked up: numbers, booleans, strings, bytes, timestamps and lists of them."
        ) from e
    except (IndexError, struct.error, ValueError, OverflowError, OSError) as e:
        raise OnlineError(f"an online value of {len(data)} bytes is cut off or damaged: {e}") from e


def timestamp_us(data: bytes) -> int:
    """Return a ``google.protobuf.Timestamp`` in microseconds since 1970."""
    seconds = nanos = at = 0
    while at < len(data):
        tag = data[at]
        number, at = _varint(data, at + 1)
        if tag == 1 << 3:
            seconds = _signed(number)
        else:
            nanos = number
    return seconds * 1_000_000 + nanos // 1000
