"""Measure our server beside others and beside the bare model, in one run on two cores.

    .venv/bin/python -m benchmarks.serving --quick
    .venv/bin/python -m benchmarks.serving compare --rivals mlflow,bentoml,litserve,mlserver
    .venv/bin/python -m benchmarks.serving soak --minutes 10 --out measured

Servers run on one core and the load generator on the other. Ratios say more than figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmarks.serving import compare, lasting, parts, path
from benchmarks.serving.environments import REQUIREMENTS, ROOT
from benchmarks.serving.measure import Plan
from benchmarks.serving.tables import Part
from penstock.engine.budgets import cpu

Measured = Callable[[Plan, Console], list[Part]]

PARTS: dict[str, Measured] = {
    "compare": compare.compared,
    "log": parts.logging,
    "path": path.measured,
    "vision": parts.vision,
    "batching": parts.batching,
    "ready": parts.ready,
    "idle": lasting.idle,
    "soak": lasting.soaked,
}

USUAL = tuple(name for name in PARTS if name != "soak")


def arguments() -> argparse.Namespace:
    """Return the command line, parsed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--rivals", default="", help=f"of {', '.join(REQUIREMENTS)}")
    parser.add_argument(
        "--rivals-in", type=Path, default=ROOT / ".penstock" / "rivals",
        help="folder of their environments, which are made there when asked for",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak")
    parser.add_argument("--out", type=Path, help="folder for serving.json and serving.md")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; name {', '.join(PARTS)}.")
    asked.rivals = [name for name in asked.rivals.split(",") if name]
    if unknown := set(asked.rivals) - set(REQUIREMENTS):
        parser.error(f"no rival is called {', '.join(sorted(unknown))}.")
    return asked


def written(folder: Path, found: dict[str, list[Part]]) -> None:
    """Write every figure and every table."""
    folder.mkdir(parents=True, exist_ok=True)
    held = {part: {one.title: one.figures for one in made} for part, made in found.items()}
    document = {"cpu": cpu(), "parts": held}
    (folder / "serving.json").write_text(json.dumps(document, indent=2) + "\n")
    pages = [one.markdown() for made in found.values() for one in made]
    (folder / "serving.md").write_text("\n".join(pages))


def shown(console: Console, parts: list[Part]) -> None:
    """Print tables and notes."""
    for one in parts:
        console.print(one.shown())
        for note in one.notes:
            console.print(note)


def main() -> int:
    """Measure the parts that were named, or all but the soak, and print tables."""
    asked = arguments()
    console = Console(width=170)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found: dict[str, list[Part]] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(
        prefix="penstock-bench-", ignore_cleanup_errors=True
    ) as scratch:
        for name in asked.parts or USUAL:
            folder = Path(scratch) / name
            folder.mkdir()
            plan = Plan(
                folder=folder, seconds=1.2 if asked.quick else 2.0,
                rounds=1 if asked.quick else 3, rivals=asked.rivals,
                rivals_home=asked.rivals_in, minutes=asked.minutes,
            )  # fmt: skip
            begun = time.perf_counter()
            try:
                found[name] = PARTS[name](plan, console)
            except RuntimeError as e:
                failed.append(name)
                console.print(f"{name} could not be measured: {e}\n")
                continue
            shown(console, found[name])
            console.print(f"{name}: {time.perf_counter() - begun:.0f} s\n")
            if asked.out:
                written(asked.out, found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
