"""Parameters of a run: what a person typed or wrote into a file, as the pipeline declares them."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

EXACT = 2**53
"""The server keeps numbers as doubles; a larger whole number would come back as another one."""

_WHOLE = re.compile(r"[+-]?[0-9]+")


class ParameterError(ValueError):
    """A parameter is not what the pipeline declares: what came, what was wanted, what to do."""


def gather(kinds: Mapping[str, str], document: object, pairs: Iterable[str]) -> dict[str, Any]:
    """Return the arguments of a run; what was typed wins over the file.

    Args:
        kinds: Type of each parameter, in the pipeline's words: ``NUMBER_INTEGER``.
        document: What a file holds, or None.
        pairs: ``name=value``, as typed.

    Raises:
        ParameterError: Unknown, given twice, or not of its type.
    """
    given = {} if document is None else _table(document)
    arguments = {name: from_value(name, _kind(kinds, name), value) for name, value in given.items()}
    typed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ParameterError(f"{pair!r} came, name=value was wanted: -p seed=7.")
        if name in typed:
            raise ParameterError(f"parameter {name!r} is given twice; leave one.")
        typed[name] = from_text(name, _kind(kinds, name), text)
    return {**arguments, **typed}


def read(path: Path) -> object:
    """Return what a file of parameters holds; its ending says JSON, TOML or YAML.

    Raises:
        ParameterError: It is none of these, or cannot be read as what it says.
        OSError: There is no such file.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise ParameterError(f"{path} came, a .json, .toml or .yaml file was wanted.")
    try:
        return reader(path.read_text(encoding="utf-8"))
    # tomllib's and json's errors are ValueErrors; what is nested too deep is a RecursionError.
    except (ValueError, yaml.YAMLError, RecursionError) as e:
        said = " ".join(str(e).split())
        raise ParameterError(f"{path} cannot be read: {said or 'nested too deep'}.") from e


def from_text(name: str, kind: str, text: str) -> Any:
    """Return a typed value from text: lists and tables are JSON, truth values true and false.

    Raises:
        ParameterError: The text is no such value.
    """
    if kind == "STRING":
        return from_value(name, kind, text)
    value: object = text
    # What cannot be read stays text, which none of these types is.
    with suppress(ValueError, RecursionError):
        if kind != "NUMBER_INTEGER":
            value = json.loads(text)
        elif _WHOLE.fullmatch(text):
            value = int(text)
    return from_value(name, kind, value)


def from_value(name: str, kind: str, value: object) -> Any:
    """Return a value as the pipeline takes it.

    Raises:
        ParameterError: It is of another type, or would reach a step as another value.
    """
    if (right := _IS.get(kind)) is None:
        raise ParameterError(f"parameter {name!r} is a {kind}, which cannot be given; leave it.")
    if not right(value):
        raise ParameterError(f"parameter {name}={_short(value)} came, {_WORDS[kind]} was wanted.")
    try:
        odd = _odd(value)
    except RecursionError:
        odd = "it is nested too deep"
    if odd:
        raise ParameterError(f"parameter {name}={_short(value)} came, and {odd}.")
    return value


def _kind(kinds: Mapping[str, str], name: str) -> str:
    if name not in kinds:
        there = ", ".join(sorted(kinds)) or "none"
        raise ParameterError(f"unknown parameter {name!r}; the pipeline has {there}.")
    return kinds[name]


def _table(document: object) -> Mapping[str, object]:
    if not isinstance(document, Mapping) or not all(isinstance(key, str) for key in document):
        came = type(document).__name__
        raise ParameterError(f"a file that holds a {came} came, a table of names was wanted.")
    return document


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _odd(value: object) -> str:
    """Return what keeps a value, or one inside it, from reaching a step as it is."""
    inside: list[object] = []
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            return "a key in it is no text"
        inside = [*value.keys(), *value.values()]
    elif isinstance(value, list):
        inside = [*value]
    return next((odd for one in inside if (odd := _odd(one))), "") or _odd_alone(value)


def _odd_alone(value: object) -> str:
    if isinstance(value, str):
        return _odd_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "it is no finite number"
    if isinstance(value, int) and abs(value) > EXACT:
        return f"the server keeps whole numbers up to {EXACT:,} alone"
    known = value is None or isinstance(value, (int, float, list, Mapping))
    return "" if known else f"it holds a {type(value).__name__}, which JSON has not"


def _odd_text(value: str) -> str:
    # kfp fills in what stands between double braces, in values too.
    if "{{" in value:
        return "text with {{ is filled in on its way"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "it is no text that can be sent"
    return ""


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 60 else said[:57] + "..."


_IS: dict[str, Callable[[object], bool]] = {
    "NUMBER_INTEGER": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "NUMBER_DOUBLE": _number,
    "STRING": lambda v: isinstance(v, str),
    "BOOLEAN": lambda v: isinstance(v, bool),
    "LIST": lambda v: isinstance(v, list),
    "STRUCT": lambda v: isinstance(v, Mapping),
}

_WORDS = {
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "STRING": "text",
    "BOOLEAN": "true or false",
    "LIST": "a list, as JSON",
    "STRUCT": "a table, as JSON",
}

_READERS: dict[str, Callable[[str], object]] = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
}
