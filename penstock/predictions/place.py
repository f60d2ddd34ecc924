"""Place: a folder of finished files, on this machine or in an object store, through one interface.

``s3://bucket/folder`` is read and written through Arrow's own S3 client, configured as every S3
client is: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, and for a store that is
not Amazon's ``AWS_ENDPOINT_URL``. An object appears whole or not at all, so a copy that was
interrupted is made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from penstock.predictions import schema
from penstock.predictions.files import PARQUET
from penstock.request import Contract

ADDRESS_VARIABLE = "PENSTOCK_PREDICTIONS"
"""Environment variable: where servers copy finished files to."""

CONNECT_S, REQUEST_S = 5.0, 60.0

_PIECE = 8 << 20


@dataclass(frozen=True)
class Place:
    """Where finished files are; paths are as its file system names them."""

    fs: fs.FileSystem
    root: str
    local: bool

    @classmethod
    def at(cls, address: str | Path) -> Place:
        """Return the place of an address; a path, or ``s3://bucket/folder``.

        Raises:
            ValueError: It is another kind of address.
            OSError: The store cannot be reached.
        """
        text = str(address)
        if "://" not in text:
            return cls(fs.LocalFileSystem(), str(Path(text).absolute()), local=True)
        if not text.startswith("s3://"):
            raise ValueError(f"{text} is no folder and no s3://bucket/folder.")
        return cls(_s3(), text.removeprefix("s3://").rstrip("/"), local=False)

    def parquets(self) -> list[str]:
        """Return the finished files in it and below, oldest first."""
        asked = fs.FileSelector(self.root, allow_not_found=True, recursive=True)
        found = [info.path for info in self.fs.get_file_info(asked) if info.is_file]
        mine = [p for p in found if p.endswith(PARQUET) and _file(p).startswith("predictions-")]
        return sorted(mine, key=_file)

    def read(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a file's rows.

        Raises:
            OSError: It is gone, or the place does not answer.
        """
        wanted = None if columns is None else list(columns)
        with self.fs.open_input_file(path) as f:
            return pq.read_table(f, columns=wanted)

    def contract(self, path: str) -> Contract:
        """Return the contract that a file carries.

        Raises:
            OSError: It is gone, or the place does not answer.
        """
        with self.fs.open_input_file(path) as f:
            metadata = pq.read_schema(f).metadata
        return Contract.from_dict(json.loads(metadata[b"penstock.contract"]))

    def write(self, table: pa.Table, path: str) -> None:
        """Put a file in another's place, whole or not at all.

        Raises:
            OSError: The place refuses.
        """
        if self.local:
            schema.write(table, Path(path))
            return
        with self.fs.open_output_stream(path) as f:
            pq.write_table(table, f, compression="zstd")

    def send(self, file: Path, workload: str) -> None:
        """Copy a finished file into the workload's folder of this place.

        Raises:
            OSError: The place refuses.
        """
        if self.local:
            Path(self.root, workload).mkdir(parents=True, exist_ok=True)
        with file.open("rb") as f, self.fs.open_output_stream(self._path(file, workload)) as out:
            while piece := f.read(_PIECE):
                out.write(piece)

    def remove(self, path: str) -> None:
        """Remove a file.

        Raises:
            OSError: The place refuses.
        """
        self.fs.delete_file(path)

    def _path(self, file: Path, workload: str) -> str:
        return f"{self.root}/{workload}/{file.name}"


def _s3() -> fs.FileSystem:
    """Return the client; Arrow's own does not look for the endpoint of a store in every place."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    scheme, _, host = (endpoint or "https://").partition("://")
    return fs.S3FileSystem(
        scheme=scheme,
        endpoint_override=host or None,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
    )


def _file(path: str) -> str:
    return path.rsplit("/", 1)[-1]
