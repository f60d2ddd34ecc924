"""Reading: which names a request must hold, and its rows as columns, of either protocol.

Everything that a contract forbids is refused here, with the field and what was wanted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.request import STAMP, Contract
from serving.columns import Column, Numbers
from serving.seen import Seen
from serving.tensors import Tensor, keys_of, keys_of_tensor, tensors, values_of, wanted_outputs

if TYPE_CHECKING:
    from penstock.online import Layout

EVENT_TIME = "event_timestamp"
"""The feature that says when: it is the server's clock where a request leaves it out."""

Protocol = Literal["v1", "v2"]


@dataclass(slots=True, kw_only=True)
class Asked:
    """One request, read; what answers it fills the answer in."""

    rows: int
    columns: dict[str, Numbers]
    """Of each feature its values, [n] or [n, length]; missing is NaN, times are microseconds."""

    keys: Mapping[str, list[Any]]
    """Of each join key that came, as look-ups take it."""

    needs: bool
    """Whether features must be looked up."""

    seen: Seen
    protocol: Protocol = "v2"
    id: str = ""
    outputs: frozenset[str] = frozenset()
    """Those that are wanted; empty for all."""

    binary: frozenset[str] = frozenset()
    """Those that are wanted as bytes."""

    begun_s: float = 0.0
    """When it came, by ``time.perf_counter``."""

    probability_nk: NDArray[Any] | None = None
    labels: list[int] | None = None
    refusal: tuple[int, str] | None = None
    """Status of HTTP and a sentence."""


class Names:
    """Which names a request to one package holds."""

    def __init__(self, contract: Contract, layout: Layout | None) -> None:
        """Tell those that must be there from those that may be looked up."""
        self.contract = contract
        self.columns = {f.name: Column(f) for f in contract.features}
        views = () if layout is None else layout.views
        found = {feature for view in views for feature in view.features}
        self.looked_up = frozenset(found & set(contract.names))
        """Which a request may leave out, all of them."""

        used = [view for view in views if self.looked_up & set(view.features)]
        self.keys: dict[str, str] = {k.asked: k.kind for view in used for k in view.keys}
        """Of the join keys by which they are looked up, Feast's name of the type."""

        times = {f.name for f in contract.features if f.dtype == STAMP and f.name == EVENT_TIME}
        self.time = EVENT_TIME if times and self.looked_up else None
        """The feature that the server's clock fills, where a request leaves it out."""

        self.required = tuple(
            name for name in contract.names if name not in self.looked_up and name != self.time
        )
        self._all = frozenset(contract.names)
        self._known = self._all | self.keys.keys()

    def needs(self, given: Collection[str]) -> bool:
        """Return whether features must be looked up for a request that holds these names.

        Raises:
            ValueError: A name is missing, or nobody knows it.
        """
        held = set(given)
        if held == self._all:
            return False
        if missing := [name for name in self.required if name not in held]:
            others = sorted(held - self._known)
            came = f", and {others[0]!r} came, which is not known" if others else ""
            raise ValueError(f"{missing[0]}: is missing{came}; {self._wanted()}")
        if unknown := sorted(held - self._known):
            raise ValueError(f"{unknown[0]}: is not known; {self._wanted()}")
        return self._looked_up(held)

    def _looked_up(self, held: set[str]) -> bool:
        left_out = sorted(self.looked_up - held)
        if not left_out:
            return False
        if given := sorted(self.looked_up & held):
            raise ValueError(
                f"{left_out[0]}: is missing, but {given[0]} came; send all of the features that "
                "can be looked up, or none"
            )
        if missing := sorted(self.keys.keys() - held):
            raise ValueError(
                f"{missing[0]}: is missing; by it the features are looked up that did not come"
            )
        return True

    def _wanted(self) -> str:
        wanted = ", ".join(map(repr, self.contract.names))
        if not self.looked_up:
            return f"a request holds {wanted}"
        keys = ", ".join(map(repr, self.keys))
        return f"a request holds {wanted}, or {keys} by which they are looked up"


def read_v1(names: Names, body: bytes, seen: Seen) -> Asked:
    """Return the request of a v1 body.

    Raises:
        ValueError: Anything about it is wrong; the text names the field.
    """
    return of_instances(names, document(body), seen)


def read_v2_json(names: Names, body: bytes, seen: Seen) -> Asked:
    """Return the request of a v2 body that is JSON.

    Raises:
        ValueError: As :func:`read_v1`.
    """
    try:
        held = document(body)
    except ValueError as e:
        raise ValueError(f"{e}{_UNFRAMED}" if b"binary_data_size" in body else str(e)) from None
    return of_tensors(names, tensors(held, b""), held, seen)


_UNFRAMED = (
    "; where bytes follow the JSON, the header inference-header-content-length says how long "
    "the JSON is"
)


def read_v2_binary(names: Names, body: bytes, header_length: bytes, seen: Seen) -> Asked:
    """Return the request of a v2 body whose first bytes are JSON and the others numbers.

    Args:
        header_length: Of the JSON, as the header ``inference-header-content-length`` has it.

    Raises:
        ValueError: As :func:`read_v1`.
    """
    length = int(header_length) if header_length.isdigit() and len(header_length) < 10 else -1
    if not 0 < length <= len(body):
        raise ValueError(
            f"inference-header-content-length: {header_length[:20].decode('latin-1')!r} came, "
            f"1 to {len(body)} was wanted, the bytes of the JSON"
        )
    held = document(body[:length])
    return of_tensors(names, tensors(held, body[length:]), held, seen)


def document(body: bytes) -> Any:
    """Return the object that a body holds.

    Raises:
        ValueError: It is no JSON object.
    """
    try:
        held = orjson.loads(body)
    except ValueError as e:
        held = _lenient(body, e)
    if type(held) is not dict:
        raise ValueError("body: is no JSON object")
    return held


def _lenient(body: bytes, refused: ValueError) -> Any:
    """Read what only Python's reader takes: NaN and endless numbers are refused by their field."""
    try:
        return json.loads(body)
    except UnicodeDecodeError:
        raise ValueError("body: is no JSON object: it is no UTF-8 text") from None
    except (ValueError, RecursionError):
        raise ValueError(f"body: is no JSON object: {refused}") from None


def of_instances(names: Names, held: Mapping[str, Any], seen: Seen) -> Asked:
    """Return the request of a v1 document.

    Raises:
        ValueError: As :func:`read_v1`.
    """
    instances = held.get("instances")
    if type(instances) is not list:
        raise ValueError('instances: is missing; the body is an object with "instances", a list')
    contract = names.contract
    if not 1 <= len(instances) <= contract.rows:
        raise ValueError(
            f"instances: {len(instances)} rows came, 1 to {contract.rows} are taken at once"
        )
    if contract.plain and type(instances[0]) is not dict:
        (name,) = contract.names
        columns = {name: names.columns[name].of_rows(instances)}
        return _asked(names, columns, {}, needs=False, seen=seen, protocol="v1")
    given = _same_names(instances)
    needs = names.needs(given)
    columns = {
        name: column.of_rows([row[name] for row in instances])
        for name, column in names.columns.items()
        if name in given
    }
    keys = {
        name: keys_of(name, kind, [row[name] for row in instances])
        for name, kind in names.keys.items()
        if name in given and name not in columns
    }
    return _asked(names, columns, keys, needs=needs, seen=seen, protocol="v1")


def _same_names(instances: Sequence[Any]) -> Collection[str]:
    """Return the names that all rows hold.

    Raises:
        ValueError: A row is no object, or holds others than the first.
    """
    if any(type(row) is not dict for row in instances):
        raise ValueError("instances: a list of objects was wanted, one for each row")
    first = instances[0].keys()
    for row in instances:
        if row.keys() != first:
            (name, *_) = sorted(row.keys() ^ first)
            raise ValueError(f"{name}: is missing in some rows; all rows hold the same names")
    return first


def of_tensors(
    names: Names, given: Mapping[str, Tensor], held: Mapping[str, Any], seen: Seen
) -> Asked:
    """Return the request of v2 tensors.

    Args:
        held: The document that they came in, with ``id``, ``outputs`` and ``parameters``.

    Raises:
        ValueError: As :func:`read_v1`.
    """
    needs = names.needs(given.keys())
    columns = {
        name: values_of(column, given[name])
        for name, column in names.columns.items()
        if name in given
    }
    keys = {
        name: keys_of_tensor(kind, given[name])
        for name, kind in names.keys.items()
        if name in given and name not in columns
    }
    asked = _asked(names, columns, keys, needs=needs, seen=seen, protocol="v2")
    request_id = held.get("id")
    if request_id is not None:
        if type(request_id) is not str or not _is_text(request_id):
            raise ValueError("id: text was wanted")
        asked.id = request_id
    if "outputs" in held or "parameters" in held:
        asked.outputs, asked.binary = wanted_outputs(held)
    return asked


def _is_text(text: str) -> bool:
    """Return whether it can be sent back; JSON may hold halves of characters, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _asked(
    names: Names,
    columns: dict[str, Numbers],
    keys: dict[str, list[Any]],
    *,
    needs: bool,
    seen: Seen,
    protocol: Protocol,
) -> Asked:
    rows = _rows(names, columns, keys)
    for name in names.keys:
        if name in columns:
            keys[name] = columns[name].tolist()
    if names.time is not None and names.time not in columns:
        columns[names.time] = np.full(rows, round(seen.at * 1e6), np.int64)
    seen.columns = columns
    return Asked(rows=rows, columns=columns, keys=keys, needs=needs, seen=seen, protocol=protocol)


def _rows(names: Names, columns: Mapping[str, Numbers], keys: Mapping[str, Sequence[Any]]) -> int:
    """Return how many rows came.

    Raises:
        ValueError: None or too many, or a name has another number of them than the first.
    """
    first, rows = "", -1
    for held in (columns, keys):
        for name, values in held.items():
            if rows < 0:
                first, rows = name, len(values)
            elif len(values) != rows:
                raise ValueError(f"{name}: {len(values)} rows came, {first} has {rows}")
    most = names.contract.rows
    if not 1 <= rows <= most:
        raise ValueError(f"{first}: {rows} rows came, 1 to {most} are taken at once")
    return rows
