"""Processes: a child that must not outlive its parent; work that a signal must not cut in two."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1
_ENDINGS = (signal.SIGINT, signal.SIGTERM)


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel to send this process a signal when its parent ends, however it ends.

    Linux only; elsewhere the parent's own clean-up is all there is. A parent that ended before the
    call is noticed too.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


@contextmanager
def undisturbed() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C and a request to end wait until the block asks for them, or is done.

    Yields the function by which the block asks. Python runs a signal's handler between any two
    instructions, in the middle of a database's statement too, which then keeps its lock; masking
    the signal would not help, since the kernel hands it to whichever thread has it unmasked.
    Outside the main thread, where no handler runs, nothing changes.

    Raises:
        KeyboardInterrupt: Ctrl-C came.
        SystemExit: A request to end came.
    """
    came: list[int] = []

    def heed() -> None:
        if not came:
            return
        first = came[0]
        came.clear()
        if first == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + first)

    if threading.current_thread() is not threading.main_thread():
        yield heed
        return
    held = {n: signal.signal(n, lambda number, _: came.append(number)) for n in _ENDINGS}
    try:
        yield heed
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    heed()
