"""Store: one folder in a file system or an object store, where a file is there whole or not.

Every question and every transfer is tried again a bounded number of times where that may help; what
a transfer has brought by then is not brought again.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from penstock.storage.address import address, is_uri
from penstock.storage.errors import StoreError, tried
from penstock.storage.moving import CHUNK

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")

Count = Callable[[int], None]
"""Is told of bytes that have moved."""


def unheard(_count: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A folder; names in it are relative, with slashes."""

    fs: AbstractFileSystem
    root: str
    """The folder as its file system names it: ``bucket/prefix``, or an absolute path."""

    scheme: str = ""
    """Of its address, where it has one."""

    local: bool = False
    """Whether it is a folder of this machine."""

    pause: Callable[[float], None] = field(default=time.sleep)
    """Waits between two attempts."""

    @classmethod
    def at(cls, where: str | Path) -> Store:
        """Return the store of an address.

        Raises:
            ValueError: It is no address, or credentials are in it or in the endpoint's.
        """
        from penstock.storage.backends import file_system  # noqa: PLC0415 - see there

        named = address(where)
        scheme, _, root = named.partition("://") if is_uri(named) else ("", "", named)
        return cls(fs=file_system(scheme), root=root, scheme=scheme, local=not scheme)

    def below(self, *names: str) -> Store:
        """Return a folder in this one."""
        return replace(self, root="/".join([self.root, *names]))

    def __str__(self) -> str:
        """Return its address."""
        return f"{self.scheme}://{self.root}" if self.scheme else self.root

    def sizes(self) -> dict[str, int]:
        """Return the files in it and below, with their bytes; of a folder that is not there, none.

        Raises:
            StoreError: The store refuses, or does not answer.
        """

        def listed() -> dict[str, int]:
            found = self.fs.find(self.root, detail=True)
            return {n.removeprefix(f"{self.root}/"): int(i["size"] or 0) for n, i in found.items()}

        try:
            return tried(listed, what=f"{self} could not be listed", pause=self.pause)
        except FileNotFoundError:
            return {}

    def read(self, name: str, *, at_most: int) -> bytes | None:
        """Return a small file, None where there is none.

        Raises:
            StoreError: The store refuses or does not answer, or the file is larger.
        """

        def whole() -> bytes:
            with self.fs.open(self._path(name), "rb") as source:
                return source.read(at_most + 1)

        try:
            held = self._tried("be read", name, whole)
        except FileNotFoundError:
            return None
        if len(held) > at_most:
            raise StoreError(
                f"{self}/{name} has over {at_most} bytes and is none of ours; see who wrote it."
            )
        return held

    def put(self, file: Path, name: str, *, moved: Count = unheard) -> None:
        """Send a file; it is there whole or not at all.

        Raises:
            StoreError: The store refuses, or does not answer.
            OSError: The file cannot be read, or the folder not written.
        """

        def send() -> None:
            sent = 0
            try:
                with file.open("rb") as source, self._writing(self._path(name)) as out:
                    while chunk := source.read(CHUNK):
                        out.write(chunk)
                        sent += len(chunk)
                        moved(len(chunk))
            except BaseException:
                moved(-sent)
                raise

        try:
            self._tried("be written", name, send)
        except FileNotFoundError as e:
            if not file.exists():
                raise
            raise StoreError(f"{e}: there is no such bucket; make it, or name another.") from None

    def get(self, name: str, part: Path, *, size: int, moved: Count = unheard) -> None:
        """Bring a file into ``part``; what was brought of it before is kept.

        Args:
            size: Its bytes, as they should be; of a larger file one more is taken.

        Raises:
            FileNotFoundError: There is no such file.
            StoreError: The store refuses, or does not answer.
            OSError: This machine's disk refuses.
        """

        def bring() -> None:
            with part.open("ab") as out, self.fs.open(self._path(name), "rb") as source:
                if at := out.tell():
                    source.seek(at)
                while at <= size and (chunk := source.read(min(CHUNK, size + 1 - at))):
                    out.write(chunk)
                    at += len(chunk)
                    moved(len(chunk))

        self._tried("be read", name, bring)

    def hash(self, name: str) -> str:
        """Return ``sha256:`` and the hash of a file as it reads back.

        Raises:
            FileNotFoundError: There is no such file.
            StoreError: The store refuses, or does not answer.
        """

        def read_back() -> str:
            made = hashlib.sha256()
            with self.fs.open(self._path(name), "rb") as source:
                while chunk := source.read(CHUNK):
                    made.update(chunk)
            return "sha256:" + made.hexdigest()

        return self._tried("be read back", name, read_back)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _tried(self, what: str, name: str, act: Callable[[], T]) -> T:
        return tried(act, what=f"{self}/{name} could not {what}", pause=self.pause)

    @contextmanager
    def _writing(self, path: str) -> Iterator[BinaryIO]:
        """Open a file that is there whole once this ends.

        An object appears when its stream is closed, and so does a short one after an error here:
        nothing reads it before the manifest is there, and who publishes again writes it anew.
        """
        if not self.local:
            with self.fs.open(path, "wb") as out:
                yield out
            return
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder: what a crash leaves must not lie among a bundle's files.
        part = Path(self.root).parent / f".part-{uuid.uuid4().hex[:12]}"
        try:
            with part.open("wb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            part.replace(final)
        finally:
            part.unlink(missing_ok=True)
