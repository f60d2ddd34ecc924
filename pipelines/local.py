"""Compile a pipeline and run the compiled file on this machine, one event a line.

Runs as a process of its own (``python -m pipelines.local``): Kubeflow's local runner patches
printing and logging, and is not imported where it is not needed. Everything the steps print goes to
``run.log``; standard output carries events, one JSON document a line.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import io
import json
import logging
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from penstock.processes import die_with_parent
from penstock.stage import Progress, Refused, parse
from penstock.workload import UnknownWorkload
from pipelines.compiling import PIPELINES, compile_to

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STARTED = re.compile(r"Executing task '([\w-]+)'")
_ENDED = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
_UNRESOLVED = re.compile(r"Condition evaluation failed|Could not resolve")
MINIMUM = (2, 17)

Event = Mapping[str, Any]


class Steps(io.TextIOBase):
    """Receives all that kfp.local prints: keeps it, and turns steps into events."""

    def __init__(self, log: TextIO, emit: Callable[[Event], None]) -> None:
        """Write text to ``log`` and events to ``emit``."""
        self._log, self._emit, self._rest = log, emit, ""
        self._since: dict[str, float] = {}
        self._said: Progress | None = None
        self._last = ""

    def write(self, text: str) -> int:
        """Take a piece of output, which may end in the middle of a line."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in (_ANSI.sub("", line) for line in lines):
            self._log.write(line + "\n")
            self._line(line.strip())
        self._log.flush()
        return len(text)

    def _line(self, line: str) -> None:
        if started := _STARTED.search(line):
            self._since[started[1]] = time.monotonic()
            self._said, self._last = None, ""
            self._emit({"event": "started", "task": started[1]})
        elif ended := _ENDED.search(line):
            self._end(ended[1], ok=ended[2] == "SUCCESS")
        elif said := parse(line):
            self._said = said
        elif line:
            self._last = line

    def _end(self, task: str, *, ok: bool) -> None:
        reason = None if ok else _sentence(self._last)
        self._emit(
            {
                "event": "finished",
                "task": task,
                "ok": ok,
                "seconds": round(time.monotonic() - self._since.get(task, time.monotonic()), 2),
                "said": vars(self._said) if self._said else None,
                "reason": reason,
                "refused": not ok and Refused.__name__ in self._last,
            }
        )


def _sentence(line: str) -> str:
    """Return an exception's text without the name of its class."""
    return re.sub(r"^[\w.]+(Error|Refused|Exception|Exit|Interrupt): ", "", line)


def execute(
    compiled: Path,
    arguments: Mapping[str, Any],
    *,
    root: Path,
    emit: Callable[[Event], None],
    runner: Any = None,
) -> bool:
    """Run a compiled file with kfp.local and return whether every step succeeded.

    Args:
        root: Folder for this run's artifacts; must be its own, kfp.local does not say where it put
            them.
        runner: One of kfp.local's; None runs each step as a process of this machine.
    """
    from kfp import components, local

    here = runner or local.SubprocessRunner(use_venv=False)
    local.init(here, pipeline_root=str(root), raise_on_error=True)
    unresolved: list[str] = []
    watch = _Watch(unresolved)
    saved_print, logger = builtins.print, logging.getLogger()
    saved_handlers = logger.handlers[:]
    with (root / "run.log").open("a") as log, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*have no effect.*")
        logger.addHandler(watch)
        steps = Steps(log, emit)
        try:
            with contextlib.redirect_stdout(steps):  # pyright: ignore[reportArgumentType]
                components.load_component_from_file(str(compiled))(**arguments)
        except RuntimeError as e:
            log.write(f"{e}\n")
            return False
        finally:
            builtins.print = saved_print
            logger.handlers[:] = saved_handlers
    if unresolved:
        # kfp.local only warns and skips the branch: a silent skip must not look like success.
        emit({"event": "unresolved", "reason": unresolved[0]})
        return False
    return True


class _Watch(logging.Handler):
    """Keeps the warnings that mean a condition was not evaluated."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        if _UNRESOLVED.match(record.getMessage()):
            self._found.append(record.getMessage())


def require_kfp() -> None:
    """Refuse versions whose local runner runs both branches of a condition.

    Raises:
        SystemExit: kfp is too old.
    """
    from kfp import __version__

    if tuple(int(n) for n in __version__.split(".")[:2]) < MINIMUM:
        wanted = ".".join(str(n) for n in MINIMUM)
        raise SystemExit(f"kfp {__version__} is installed; {wanted} or later is needed: make setup")


def _end_group(_number: int, _frame: object) -> None:
    """End the running step too: it is a grandchild that nobody else knows."""
    os.killpg(0, signal.SIGKILL)


def main(argv: list[str] | None = None) -> int:
    """Compile and run; print events; return 0 when every step succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--pipeline", default="train", choices=PIPELINES)
    parser.add_argument("--root", type=Path, required=True, help="folder of this run")
    parser.add_argument("--arguments", type=json.loads, default={}, help="pipeline arguments, JSON")
    given = parser.parse_args(argv)
    out = sys.stdout

    def emit(event: Event) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    signal.signal(signal.SIGTERM, _end_group)
    die_with_parent()
    require_kfp()
    given.root.mkdir(parents=True, exist_ok=True)
    compiled = given.root / "pipeline.yaml"
    try:
        digest = compile_to(compiled, workload=given.workload, pipeline=given.pipeline)
    except UnknownWorkload as e:
        print(e, file=sys.stderr)
        return 2
    emit({"event": "compiled", "file": str(compiled), "digest": digest})
    ok = execute(compiled, given.arguments, root=given.root, emit=emit)
    emit({"event": "ended", "ok": ok})
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
