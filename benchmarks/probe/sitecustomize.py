"""Sample where each Python process of a run spends its time; python imports this when it starts.

Every few milliseconds a thread looks at the main thread's stack and gives the time since its last
look to one place: imports, our own code, a library that our code called, Kubeflow Pipelines, or
what is left. At the end the process leaves one JSON file in ``PENSTOCK_PROBE``.
"""

import atexit
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType

EVERY_S = 0.004
OURS = ("penstock", "components", "pipelines", "serving", "workloads", "feature_repo")
ROOT = str(Path(__file__).resolve().parents[2]) + "/"
BEGUN = time.perf_counter()


def place(frame: FrameType | None) -> str:
    """Return where a stack's time belongs; its outermost import wins, then our innermost frame."""
    imported, own, library, outer = "", False, "", ""
    while frame is not None:
        code, file = frame.f_code, frame.f_code.co_filename
        if code.co_name == "_find_and_load" and file.startswith("<frozen importlib"):
            imported = str(frame.f_locals["name"]).split(".")[0]
        if file.startswith(ROOT) and file.removeprefix(ROOT).split("/")[0] in OURS:
            own = True
        elif "/site-packages/" in file:
            outer = file.split("/site-packages/")[1].split("/")[0].removesuffix(".py")
            library = library if own else outer
        frame = frame.f_back
    if imported:
        return f"import {imported}"
    if own:
        return f"call {library}" if library else "own code"
    return "kfp" if outer.startswith("kfp") else "other"


def sample(spent: dict[str, float], main: int) -> None:
    """Look at the main thread until the process ends."""
    last = BEGUN
    while True:
        time.sleep(EVERY_S)
        frame = sys._current_frames().get(main)  # noqa: SLF001 - there is no public way
        at, now = place(frame), time.perf_counter()
        spent[at] = spent.get(at, 0.0) + now - last
        last = now


def leave(folder: Path, spent: dict[str, float]) -> None:
    """Write what was seen."""
    seen = {
        "argv": sys.orig_argv[1:],
        "seconds": time.perf_counter() - BEGUN,
        "spent": spent,
    }
    (folder / f"{os.getpid()}.json").write_text(json.dumps(seen))


def start() -> None:
    """Sample this process, where the benchmark asked for it."""
    folder = os.environ.get("PENSTOCK_PROBE")
    if not folder:
        return
    spent: dict[str, float] = {}
    watch = threading.Thread(
        target=sample, args=(spent, threading.main_thread().ident), daemon=True
    )
    watch.start()
    atexit.register(leave, Path(folder), spent)


start()
