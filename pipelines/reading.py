"""Build frozen dataclasses from a document, strictly: nothing unknown, nothing of another kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
FORM = "form"
"""Key of a field's metadata that holds the form of its text."""


class Unreadable(ValueError):
    """A document says what its reader cannot take: where, what came, what was wanted."""


@dataclass(frozen=True)
class Form:
    """What a text must look like."""

    pattern: re.Pattern[str]
    words: str
    """For people: ``a path that begins with /``."""

    keys: Form | None = None
    """Of a mapping, what its keys must look like; the rest is of its values."""

    def check(self, came: str, where: str) -> None:
        """Refuse text of another form.

        Raises:
            Unreadable: It is.
        """
        if not self.pattern.fullmatch(came):
            raise Unreadable(f"{where}: {came!r} came, {self.words} was wanted.")


@dataclass(frozen=True)
class Span:
    """Which whole numbers are taken."""

    low: int
    high: int

    def check(self, came: int, where: str) -> None:
        """Refuse a number outside.

        Raises:
            Unreadable: It is.
        """
        if not self.low <= came <= self.high:
            raise Unreadable(f"{where}: {came} came, {self.low} to {self.high} was wanted.")


def built(kind: type[T], document: object, where: str) -> T:
    """Return a dataclass made from a mapping whose keys are its fields.

    Fields are text, whole numbers, truth values, tuples, mappings of text, and such dataclasses
    themselves. A field without a default must be given.

    Raises:
        Unreadable: An unknown or missing key, a value of another kind or form, or one that the
            class itself refuses.
    """
    table = _mapping(document, where)
    known: dict[str, Field[Any]] = {f.name: f for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    if unknown := sorted(table.keys() - known.keys()):
        raise Unreadable(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}.")
    needed = {
        name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING
    }
    if missing := sorted(needed - table.keys()):
        raise Unreadable(f"{where}: {missing[0]!r} is missing; say it.")
    hints = get_type_hints(kind)
    values = {
        name: _value(hints[name], came, f"{where}.{name}", known[name].metadata.get(FORM))
        for name, came in table.items()
    }
    try:
        return kind(**values)
    except Unreadable:
        raise
    except ValueError as e:
        raise Unreadable(f"{where}: {e}") from e


def _mapping(came: object, where: str) -> Mapping[str, Any]:
    if not isinstance(came, Mapping) or not all(isinstance(key, str) for key in came):
        raise Unreadable(f"{where}: {_kind(came)} came, a table was wanted.")
    return came


def _value(hint: Any, came: object, where: str, form: Form | Span | None) -> Any:
    if get_origin(hint) is UnionType:
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    if hint in (str, int, bool):
        return _plain(hint, came, where, form)
    of = get_args(hint)
    if get_origin(hint) is tuple:
        if not isinstance(came, list):
            raise Unreadable(f"{where}: {_kind(came)} came, a list was wanted.")
        return tuple(_value(of[0], one, f"{where}[{i}]", form) for i, one in enumerate(came))
    if get_origin(hint) is Mapping:
        table = _mapping(came, where)
        if isinstance(form, Form) and form.keys is not None:
            for key in table:
                form.keys.check(key, where)
        return {key: _value(of[1], one, f"{where}.{key}", form) for key, one in table.items()}
    return built(hint, came, where)


def _plain(hint: type, came: object, where: str, form: Form | Span | None) -> Any:
    # A truth value is a whole number to Python, not to a reader.
    if type(came) is not hint:
        raise Unreadable(f"{where}: {_kind(came)} came, {_WORDS[hint]} was wanted.")
    if form is not None:
        form.check(came, where)  # pyright: ignore[reportArgumentType]
    return came


def _kind(came: object) -> str:
    known = {**_WORDS, list: "a list", dict: "a table", float: "a number with a point"}
    return known.get(type(came), type(came).__name__)


_WORDS: dict[type, str] = {str: "text", int: "a whole number", bool: "a truth value"}
