"""Build one engine in a process of its own: what breaks there is a reason, and memory is its own.

    python -m penstock.engine.isolated '<task as JSON>' result.json

Builders are native code: a fault in one must not take the stage down, nor pass unseen.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from penstock.bundle import write_json
from penstock.engine.backend import Built, State, Task, backend
from penstock.processes import die_with_parent

TIMEOUT_S = 3600
"""A large network on a GPU whose kernels are all timed takes minutes."""


def built(task: Task, *, timeout_s: float = TIMEOUT_S) -> Built:
    """Return what came of a task, whatever it was."""
    result = task.file("result.json")
    module = "penstock.engine.isolated"
    command = [sys.executable, "-m", module, json.dumps(task.to_dict()), str(result)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return _failed(task, f"the builder was not done after {timeout_s:.0f} s")
    if not result.exists():
        last = _last(done.stderr.decode(errors="replace"))
        return _failed(task, f"the builder {_ending(done.returncode)}{last}")
    found = Built.from_dict(json.loads(result.read_text(encoding="utf-8")))
    result.unlink()
    return found


def _failed(task: Task, reason: str) -> Built:
    """Return that nothing was built; what lies there is of an unfinished build."""
    for ending in ("plan", "plan.json", "npy"):
        task.file(ending).unlink(missing_ok=True)
    return Built(name=task.backend, state=State.NOT_BUILT, reason=reason)


def _ending(code: int) -> str:
    """Return how a process ended.

    >>> _ending(-11)
    'was ended by SIGSEGV'
    >>> _ending(3)
    'ended with 3'
    """
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"; its last words: {lines[-1][:300]}" if lines else ""


def main() -> None:
    """Build the engine of the first argument; write what came of it to the second."""
    die_with_parent()
    task = Task.from_dict(json.loads(sys.argv[1]))
    try:
        found = backend(task.backend).build(task)
    except Exception as e:  # noqa: BLE001 - a builder's exceptions share no base
        said = " ".join(str(e).split())
        found = _failed(task, f"the builder raised {type(e).__name__}: {said[:300]}")
    write_json(Path(sys.argv[2]), asdict(found))


if __name__ == "__main__":
    main()
