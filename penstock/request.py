"""Request: what a request to a served model holds, and how a client writes it in either protocol.

A package keeps its :class:`Contract` as ``serving.json``. Values travel as numbers: times as
microseconds since 1970 in UTC, a missing value as null (or NaN, where bytes are sent).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.bundle import Bundle
from penstock.endpoint import Endpoint
from penstock.workload import RULES, TRANSFORM

STAMP = "timestamp[us, tz=UTC]"
EARLIEST_US, LATEST_US = 946_684_800_000_000, 4_102_444_800_000_000
"""Years 2000 and 2100: a time sent in seconds or milliseconds lies before the first."""

TYPES: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "double": pa.float64(),
    STAMP: pa.timestamp("us", tz="UTC"),
    "list<element: float>": pa.list_(pa.field("element", pa.float32())),
}
"""Arrow types of a snapshot's columns that a request can carry, by their names."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of a request, as the snapshot has it."""

    name: str
    dtype: str
    """Arrow's name of the type, of ``TYPES``."""

    length: int | None = None
    """For a list column: how many values each row holds."""

    low: float | None = None
    high: float | None = None
    among: tuple[int | str, ...] | None = None
    nullable: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in TYPES:
            raise ValueError(
                f"feature {self.name!r} is {self.dtype}; a request carries {', '.join(TYPES)}, so "
                "turn it into a number in the feature view."
            )

    @property
    def arrow(self) -> pa.DataType:
        """The type it has in a snapshot and at the transform."""
        return TYPES[self.dtype]

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers: counts, ids, times."""
        return self.dtype in ("int64", STAMP)

    @property
    def datatype(self) -> str:
        """The v2 type it is best sent as; a whole number that may be missing needs a float."""
        if self.length is not None:
            return "FP32"
        return "INT64" if self.whole and not self.nullable else "FP64"

    @property
    def shape(self) -> list[int]:
        """The v2 shape, with -1 for the number of rows."""
        return [-1] if self.length is None else [-1, self.length]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a request to one packaged model must hold, and what decides its answer."""

    workload: str
    classes: int
    threshold: float | None
    """Probability of class 1 from which the label is 1; None takes the most likely class."""

    rows: int
    """Most rows of a request."""

    features: tuple[Feature, ...]
    endpoint: Endpoint = field(default_factory=Endpoint)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return the contract that ``serving.json`` holds.

        Raises:
            KeyError: It lacks a field.
            ValueError: A field is not as a contract has it.
        """
        try:
            given = {name: document[name] for name in ("workload", "classes", "threshold", "rows")}
            endpoint = document.get("endpoint")
            return cls(
                **given,
                features=tuple(map(_feature, document["features"])),
                endpoint=Endpoint() if endpoint is None else Endpoint.from_dict(endpoint),
            )
        except TypeError as e:
            raise ValueError(f"not a contract of requests: {e}; register the model again.") from e

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        features = [asdict(f) for f in self.features]
        return {**asdict(self), "features": features, "endpoint": self.endpoint.to_dict()}

    @property
    def names(self) -> list[str]:
        """The features, in order."""
        return [f.name for f in self.features]

    @property
    def plain(self) -> bool:
        """Whether a v1 instance is the row itself: its only feature is a list."""
        return len(self.features) == 1 and self.features[0].length is not None


def _feature(held: Mapping[str, Any]) -> Feature:
    among = held["among"]
    given: dict[str, Any] = {**held, "among": None if among is None else tuple(among)}
    return Feature(**given)


Instance = Mapping[str, Any]
"""One row as it is sent: name to value."""


def instances(contract: Contract, rows: pa.Table) -> list[Instance]:
    """Return rows of a snapshot as they are sent."""
    columns = [_sent(feature, rows[feature.name]) for feature in contract.features]
    return [dict(zip(contract.names, row, strict=True)) for row in zip(*columns, strict=True)]


def v1_request(contract: Contract, rows: Sequence[Instance]) -> dict[str, Any]:
    """Return the body of a v1 request."""
    if contract.plain:
        return {"instances": [row[contract.names[0]] for row in rows]}
    return {"instances": [dict(row) for row in rows]}


def v2_request(
    contract: Contract, rows: Sequence[Instance], *, request_id: str = ""
) -> dict[str, Any]:
    """Return the body of a v2 request: one tensor a feature."""
    tensors = [
        {
            "name": feature.name,
            "shape": [len(rows), *feature.shape[1:]],
            "datatype": feature.datatype,
            "data": _flat([row[feature.name] for row in rows]),
        }
        for feature in contract.features
    ]
    return {"id": request_id, "inputs": tensors}


def _sent(feature: Feature, column: pa.ChunkedArray) -> list[Any]:
    """Return a column's values as they are sent; a missing or NaN one as None."""
    if feature.dtype == STAMP:
        return column.cast(pa.int64()).to_pylist()
    if feature.length is not None:
        return column.to_pylist()
    return [None if v is None or v != v else v for v in column.to_pylist()]  # noqa: PLR0124 - NaN


def _flat(values: Sequence[Any]) -> list[Any]:
    if values and isinstance(values[0], list):
        return [v for row in values for v in row]
    return list(values)


def request_input(transform: Any) -> Callable[[pa.Table], NDArray[np.float32]]:
    """Return a transform's function from a request's rows to the network's input.

    It is the one that training used, except where a request holds less than a snapshot's row and
    the transform says with ``request_input`` how to make up for it.
    """
    return getattr(transform, "request_input", transform.training_input)


def packaged_transform(package: Bundle) -> Any:
    """Return the transform that a package carries: the one its network was trained with.

    The checkout's may have changed since; numbers of the same shape with another meaning would
    spoil every answer and raise nothing.

    Raises:
        BundleError: The package carries none.
        ImportError: It cannot be imported by itself.
    """
    return _packaged(package, TRANSFORM)


def packaged_rules(package: Bundle) -> Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float64]]:
    """Return the rules that a package carries, which answer where its model cannot.

    They take the columns that a request held, each of shape [n], which may lack some, and return
    probabilities [n, classes].

    Raises:
        BundleError: The package carries none.
        ImportError: They cannot be imported by themselves.
    """
    return _packaged(package, RULES).rules


def _packaged(package: Bundle, name: str) -> Any:
    path = package.file(name)
    module_name = f"{Path(name).stem}_{package.digest[7:19]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported; package the model again.")
    module = importlib.util.module_from_spec(spec)
    # Nothing is written beside it: a bundle with a file more is no longer whole.
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), vars(module))  # noqa: S102
    return module
