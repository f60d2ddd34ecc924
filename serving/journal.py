"""The journal: whole lines appended to one file after another, whatever the disk does.

What a disk took of a line and not the rest is cut off again; no reader took it, as it had no
newline.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

from penstock.predictions import files
from penstock.predictions.files import JOURNAL, ROLL
from penstock.request import Contract


class Journal:
    """Appends lines; used by one thread."""

    def __init__(
        self,
        folder: Path,
        contract: Contract,
        *,
        roll_bytes: int,
        roll_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Write below a folder; nothing is made before the first line.

        Args:
            roll_bytes: A journal of this size is finished, and another begun.
            roll_s: The same for one of this age.
        """
        self._folder, self._contract, self._clock = folder, contract, clock
        self._roll_bytes, self._roll_s = roll_bytes, roll_s
        self._path: Path | None = None
        self._fd = -1
        self._begun, self._whole = 0.0, 0

    def append(self, lines: Sequence[bytes]) -> int:
        """Write lines, each with its newline; return how many of them, from the first, are kept.

        Raises:
            OSError: The disk took none of them.
        """
        if self._path is not None and os.fstat(self._fd).st_nlink == 0:
            self.finish()  # somebody removed the file: what is written to it now is lost
        if self._path is None:
            self._begin()
        data, done, refused = memoryview(b"".join(lines)), 0, None
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as e:
            refused = e
        kept = self._keep_whole(lines, done)
        if refused is not None and kept == 0:
            if self._whole:
                self.finish()  # it may be the file and not the disk
            raise refused
        return kept

    def due(self) -> bool:
        """Return whether the journal is big or old enough, or somebody asked for its end."""
        if self._path is None:
            return False
        old = self._clock() - self._begun >= self._roll_s
        return old or self._whole >= self._roll_bytes or self._path.with_suffix(ROLL).exists()

    def finish(self) -> None:
        """End this journal; the next line begins another."""
        path, self._path = self._path, None
        if path is None:
            return
        with suppress(OSError):
            os.close(self._fd)
        with suppress(OSError):
            path.with_suffix(ROLL).unlink(missing_ok=True)

    def _begin(self) -> None:
        """Open a new file, locked before anybody can see it under a journal's name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        begun = self._clock()
        stem = files.new_stem(files.write_contract(self._folder, self._contract), at=begun)
        path = self._folder / f"{stem}{JOURNAL}"
        part = files.part_of(path)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, files.MODE)
        try:
            files.take(fd)
            part.rename(path)
        except OSError:
            os.close(fd)
            raise
        self._path, self._fd, self._begun, self._whole = path, fd, begun, 0

    def _keep_whole(self, lines: Sequence[bytes], done: int) -> int:
        """Cut off what is no whole line; return how many lines stay."""
        ends = [end for end in accumulate(map(len, lines)) if end <= done]
        length = ends[-1] if ends else 0
        self._whole += length
        if length < done:
            try:
                os.ftruncate(self._fd, self._whole)
            except OSError:
                self.finish()  # nothing may follow the torn line, where no reader takes it
        return len(ends)
