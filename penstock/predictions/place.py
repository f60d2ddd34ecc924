"""Place: a folder of finished files, on this machine or in an object store, through one interface.

``s3://bucket/folder`` and ``gs://bucket/folder`` are read and written through Arrow's own clients,
configured as packages' are, see :mod:`penstock.storage.backends`. A file appears whole or not at
all, here as there, so a copy that was interrupted is made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from penstock import storage
from penstock.predictions import schema
from penstock.predictions.files import PARQUET, replacing
from penstock.request import Contract
from penstock.storage import backends

ADDRESS_VARIABLE = "PENSTOCK_PREDICTIONS"
"""Environment variable: where servers copy finished files to."""

BROKEN = "it is no whole Parquet file; put it back from a copy, or remove it"


class BrokenFileError(OSError):
    """A finished file is cut off, or no Parquet."""


_AT_ONCE = 16
"""Files looked at together: a store answers each only after a while."""


@dataclass(frozen=True)
class Place:
    """Where finished files are; paths are as its file system names them."""

    fs: fs.FileSystem
    root: str
    local: bool

    @classmethod
    def at(cls, address: str | Path) -> Place:
        """Return the place of an address; a path, ``s3://bucket/folder`` or ``gs://bucket/folder``.

        Raises:
            ValueError: It is another kind of address, or credentials are in it.
            OSError: The store cannot be reached.
        """
        named = storage.address(address)
        if not storage.is_uri(named):
            return cls(fs.LocalFileSystem(), named, local=True)
        scheme, _, root = named.partition("://")
        return cls(backends.arrow(scheme), root, local=False)

    def parquets(self, *, below: bool = True) -> list[str]:
        """Return the finished files in it, oldest first.

        Args:
            below: Those of its folders too.
        """
        asked = fs.FileSelector(self.root, allow_not_found=True, recursive=below)
        found = [info.path for info in self.fs.get_file_info(asked) if info.is_file]
        mine = [p for p in found if p.endswith(PARQUET) and _file(p).startswith("predictions-")]
        return sorted(mine, key=_file)

    def broken(self, paths: Iterable[str]) -> list[str]:
        """Return those of some files that are none: cut off, or not Parquet.

        Raises:
            OSError: The place does not answer.
        """
        paths = list(paths)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            whole = list(pool.map(self._is_whole, paths))
        return [path for path, is_whole in zip(paths, whole, strict=True) if not is_whole]

    def _is_whole(self, path: str) -> bool:
        try:
            with self.fs.open_input_file(path) as f:
                pq.read_metadata(f)
        except FileNotFoundError:
            return True  # it was removed meanwhile; who reads it is told
        except pa.ArrowInvalid:
            return False
        return True

    def read(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a file's rows.

        Raises:
            BrokenFileError: It is cut off.
            OSError: It is gone, or the place does not answer.
        """
        wanted = None if columns is None else list(columns)
        with self.fs.open_input_file(path) as f:
            try:
                return pq.read_table(f, columns=wanted)
            except pa.ArrowInvalid as e:
                raise BrokenFileError(f"{path} cannot be read: {BROKEN}") from e

    def contract(self, path: str) -> Contract:
        """Return the contract that a file carries.

        Raises:
            BrokenFileError: It is cut off, or has none.
            OSError: It is gone, or the place does not answer.
        """
        with self.fs.open_input_file(path) as f:
            try:
                metadata = pq.read_schema(f).metadata
                return Contract.from_dict(json.loads(metadata[b"penstock.contract"]))
            except (ValueError, TypeError, KeyError) as e:
                raise BrokenFileError(f"{path} cannot be read: {BROKEN}") from e

    def write(self, table: pa.Table, path: str) -> None:
        """Put a file in another's place, whole or not at all.

        Raises:
            OSError: The place refuses.
        """
        if self.local:
            schema.write(table, Path(path))
            return
        made = pa.BufferOutputStream()
        pq.write_table(table, made, compression="zstd")
        self._put(made.getvalue(), path)

    def send(self, file: Path, workload: str, *, name: str = "") -> None:
        """Copy a finished file into the workload's folder of this place.

        Args:
            name: Of the copy; that of the file where none is given.

        Raises:
            OSError: The place refuses.
        """
        path = f"{self.root}/{workload}/{name or file.name}"
        if not self.local:
            self._put(file.read_bytes(), path)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as part, file.open("rb") as f, part.open("wb") as to:
            shutil.copyfileobj(f, to)

    def _put(self, data: bytes | pa.Buffer, path: str) -> None:
        """Put an object that is there whole before any of it is sent.

        A stream that is closed, by an error of ours too, is an object from then on.
        """
        with self.fs.open_output_stream(path) as out:
            out.write(data)

    def remove(self, path: str) -> None:
        """Remove a file.

        Raises:
            OSError: The place refuses.
        """
        self.fs.delete_file(path)


def _file(path: str) -> str:
    return path.rsplit("/", 1)[-1]
