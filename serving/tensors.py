"""Tensors: what a v2 document says of its inputs and wanted outputs, and the bytes behind it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.columns import Column, Numbers

OUTPUTS = ("label", "probability")

_BYTES = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"), "INT64": np.dtype("<i8")}

_WIDTHS = {"INT64": 64, "INT32": 32, "UNIX_TIMESTAMP": 64}
"""Bits of the join keys that are whole numbers; the others are text."""

_LENGTH = struct.Struct("<I")


class Tensor(NamedTuple):
    """One input of a v2 request."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | bytes


def tensors(document: Mapping[str, Any], raw: bytes) -> dict[str, Tensor]:
    """Return the inputs of a v2 document by name.

    Args:
        raw: What came behind the document.

    Raises:
        ValueError: They are not as the protocol has them; the text names the field.
    """
    inputs = document.get("inputs")
    if type(inputs) is not list:
        raise ValueError("inputs: is missing; the body is an object with a list of tensors")
    found: dict[str, Tensor] = {}
    begin = 0
    for number, given in enumerate(inputs):
        name, shape, datatype = _described(given, number)
        if name in found:
            raise ValueError(f"{name}: came {_count(name, inputs)} times")
        data = given.get("data")
        if data is None:
            end = begin + _size(name, given)
            if end > len(raw):
                raise ValueError(f"{name}: {end - begin} bytes were said, {len(raw) - begin} came")
            data, begin = raw[begin:end], end
        elif type(data) is not list:
            raise ValueError(f"{name}: data is no list")
        found[name] = Tensor(name, shape, datatype, data)
    if begin != len(raw):
        raise ValueError(f"body: {len(raw) - begin} bytes came that belong to no tensor")
    return found


def _count(name: str, inputs: Sequence[Any]) -> int:
    return sum(type(given) is dict and given.get("name") == name for given in inputs)


def _described(given: Any, number: int) -> tuple[str, list[int], str]:
    if type(given) is not dict or type(given.get("name")) is not str:
        raise ValueError(f"inputs.{number}: an object with a name was wanted")
    name, shape, datatype = given["name"], given.get("shape"), given.get("datatype")
    if type(datatype) is not str:
        raise ValueError(f"{name}: its datatype is missing")
    if type(shape) is not list or any(type(size) is not int for size in shape):
        raise ValueError(f"{name}: its shape is no list of whole numbers")
    if any(size < 0 for size in shape):
        raise ValueError(f"{name}: shape {shape} has a negative size")
    return name, shape, datatype


def _size(name: str, given: Mapping[str, Any]) -> int:
    parameters = given.get("parameters")
    size = parameters.get("binary_data_size") if type(parameters) is dict else None
    if size is None:
        raise ValueError(f"{name}: its data are missing")
    if type(size) is not int or size < 0:
        raise ValueError(f"{name}: binary_data_size is no number of bytes")
    return size


def values_of(column: Column, given: Tensor) -> Numbers:
    """Return a feature's values.

    Raises:
        ValueError: They are not what the contract asks; the text names the feature.
    """
    name, shape, datatype, data = given
    if datatype not in column.datatypes:
        wanted = " or ".join(column.datatypes)
        raise ValueError(f"{name}: {datatype} came, {wanted} was wanted")
    if type(data) is list:
        if datatype == "INT64" and not set(map(type, data)) <= {int, list}:
            raise ValueError(
                f"{name}: {_other_than_whole(data)} came as INT64; whole numbers were wanted"
            )
        narrow = datatype == "FP32" and column.dtype.itemsize > _BYTES[datatype].itemsize
        return column.of_narrow_data(data, shape) if narrow else column.of_data(data, shape)
    kind = _BYTES[datatype]
    if len(data) % kind.itemsize:
        raise ValueError(f"{name}: {len(data)} bytes came, which are no whole number of {datatype}")
    return column.of_bytes(np.frombuffer(data, kind), shape)


def _other_than_whole(data: Sequence[Any]) -> str:
    return next(shown(value) for value in data if type(value) not in (int, list))


def shown(value: object) -> str:
    """Return a value from JSON as a refusal shows it; it may be anything, however long or deep."""
    if type(value) is dict:
        return "an object"
    if type(value) is list:
        return "a list"
    return repr(value[:40]) if type(value) is str else json.dumps(value)[:40]


def key_datatype(kind: str) -> str:
    """Return the type in which a join key comes, from Feast's name of its own."""
    return "INT64" if kind in _WIDTHS else "BYTES"


def keys_of_tensor(kind: str, given: Tensor) -> list[Any]:
    """Return the values of a join key, one for each row.

    Raises:
        ValueError: They are not of the key's type; the text names it.
    """
    name, shape, datatype, data = given
    wanted = key_datatype(kind)
    if datatype != wanted:
        raise ValueError(f"{name}: {datatype} came, {wanted} was wanted")
    if type(data) is list:
        held: list[Any] = data
    elif wanted == "INT64":
        if len(data) % 8:
            raise ValueError(f"{name}: {len(data)} bytes came, which are no whole number of INT64")
        held = np.frombuffer(data, "<i8").tolist()
    else:
        held = _texts(name, data)
    if shape != [len(held)]:
        raise ValueError(f"{name}: shape {shape} was said, {[len(held)]} values came")
    return keys_of(name, kind, held)


def keys_of(name: str, kind: str, values: Sequence[Any]) -> list[Any]:
    """Return join keys from JSON, as look-ups take them.

    Args:
        kind: Feast's name of their type.

    Raises:
        ValueError: One is of another type; the text names the key.
    """
    bits = _WIDTHS.get(kind)
    for value in values:
        if bits is None:
            fits = type(value) is str and value.isprintable()
        else:
            fits = type(value) is int and -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)
        if not fits:
            wanted = "text" if bits is None else f"a whole number of {bits} bits"
            raise ValueError(f"{name}: {shown(value)} came, {wanted} was wanted")
    return [v.encode() for v in values] if kind == "BYTES" else list(values)


def _texts(name: str, data: bytes) -> list[str]:
    """Return the texts of BYTES: each is preceded by its length, 4 bytes, lowest first."""
    found: list[str] = []
    at = 0
    try:
        while at < len(data):
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size + length
            if at > len(data):
                raise ValueError("the last one is cut off")
            found.append(data[at - length : at].decode())
    except (struct.error, ValueError) as e:
        raise ValueError(f"{name}: its bytes are no list of texts: {e}") from None
    return found


def wanted_outputs(document: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the outputs that are wanted, none for all, and of these those wanted as bytes.

    Raises:
        ValueError: There is no such output, or a parameter is not known or no truth value: what
            would change nothing is refused, so that nobody relies on it.
    """
    whole = _truth(document, "binary_data_output", of="parameters", otherwise=False)
    asked = document.get("outputs")
    if asked is None or asked == []:
        return frozenset(), frozenset(OUTPUTS if whole else ())
    if type(asked) is not list:
        raise ValueError("outputs: a list was wanted")
    binary: dict[str, bool] = {}
    for one in asked:
        name = one.get("name") if type(one) is dict else None
        if type(name) is not str or name not in OUTPUTS:
            raise ValueError(f"outputs: {shown(name)} is not among {list(OUTPUTS)}")
        binary[name] = _truth(one, "binary_data", of=f"outputs.{name}", otherwise=whole)
    return frozenset(binary), frozenset(name for name, is_binary in binary.items() if is_binary)


def _truth(holder: Mapping[str, Any], name: str, *, of: str, otherwise: bool) -> bool:
    parameters = holder.get("parameters")
    if parameters is None:
        return otherwise
    value = parameters.get(name, otherwise) if type(parameters) is dict else None
    if type(parameters) is dict and (others := sorted(parameters.keys() - {name})):
        raise ValueError(f"{of}: {shown(others[0])} is not known; only {name} is")
    if type(value) is not bool:
        raise ValueError(f"{of}: {name} must be true or false")
    return value
