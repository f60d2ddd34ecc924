"""How busy the GPU is while something runs, as its driver counts it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from types import TracebackType
from typing import IO, Self

EVERY_MS = 200


class Busy:
    """Asks the driver's own tool, again and again, in a process of its own."""

    def __init__(self, command: list[str] | None) -> None:
        """Take a command that prints a percentage a line; None measures nothing."""
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self.share: float | None = None
        """Mean share of the time, 0 to 1, once it ended; None where nothing was heard."""

    @classmethod
    def of(cls, device: str, *, index: int = 0) -> Busy:
        """Return one for a GPU; on a CPU, or where the tool is missing, it measures nothing."""
        tool = shutil.which("nvidia-smi")
        if device != "cuda" or tool is None:
            return cls(None)
        query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        return cls([tool, f"--id={index}", *query, f"--loop-ms={EVERY_MS}"])

    def __enter__(self) -> Self:
        if self._command is not None:
            # A pipe that nobody empties would fill up.
            self._said = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                self._command, stdout=self._said, stderr=subprocess.DEVNULL
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._process is None or self._said is None:
            return
        self._process.terminate()
        self._process.wait()
        with self._said as said:
            said.seek(0)
            self.share = mean_share(said.read().decode())


def mean_share(said: str) -> float | None:
    """Return the mean of some percentages, one a line, as a share; None if there are none.

    >>> mean_share("80 90")
    0.85
    """
    found = [float(line) for line in said.split() if line.strip().isdigit()]
    return sum(found) / len(found) / 100 if found else None
