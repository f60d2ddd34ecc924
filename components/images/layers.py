"""Split the locks into the lists of packages that images install, one list a layer.

Runs in a build, with the base's bare Python: ``python3 layers.py LOCKS OUT``. What every image
holds is one layer, CUDA's libraries another, torch and what goes with it a third; a node that pulls
two images fetches each of them once.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

GROUPS = ("data", "train", "engine", "control", "serve")
STEPS = ("data", "train", "engine", "control")
"""Groups whose images run steps: kfp's executor is in them, and it needs kfp alone."""

LEFT_OUT = frozenset({"mypy", "setuptools", "triton"})
"""Locked because others name them, and never imported here: they compile, an image does not."""

_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==")

Lock = Mapping[str, str]


def parse(text: str) -> dict[str, str]:
    r"""Return each package's lines, pin and hashes, by its name.

    >>> parse("# by make lock\na==1\n    --hash=sha256:0\nb==2\n")
    {'a': 'a==1\n    --hash=sha256:0', 'b': 'b==2'}
    """
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if at := _NAME.match(line):
            name = at[1]
            found[name] = line
        elif name and line.startswith(" "):
            found[name] += "\n" + line
    return found


def split(locks: Mapping[str, Lock], gpu: Lock) -> dict[str, dict[str, str]]:
    """Return the packages of each layer, and ``builds``: with what a source becomes a wheel.

    Args:
        locks: Of each group, and of ``pipelines``.
        gpu: What takes the place of ONNX Runtime where there is a GPU, and TensorRT.
    """
    wanted = {group: _wanted(group, locks) for group in GROUPS}
    common = _shared(wanted, *GROUPS)
    both = {n: line for n, line in _shared(wanted, "train", "engine").items() if n not in common}
    cuda = {n: line for n, line in both.items() if n.startswith("nvidia-")}
    torch = {n: line for n, line in both.items() if n not in cuda}
    below = {
        group: {**common, **(both if group in {"train", "engine"} else {})} for group in GROUPS
    }
    own = {g: {n: line for n, line in wanted[g].items() if n not in below[g]} for g in GROUPS}
    tensorrt = {n: line for n, line in gpu.items() if n.startswith("tensorrt")}
    served = {n: line for n, line in own["serve"].items() if n != "onnxruntime"}
    return {
        "builds": {"setuptools": locks["control"]["setuptools"]},
        "common": common,
        "cuda": cuda,
        "torch": torch,
        **own,
        "tensorrt": tensorrt,
        "serve-gpu": {**served, "onnxruntime-gpu": gpu["onnxruntime-gpu"]},
    }


def _wanted(group: str, locks: Mapping[str, Lock]) -> dict[str, str]:
    wanted = dict(locks[group])
    if group in STEPS:
        wanted["kfp"] = locks["pipelines"]["kfp"]
    if group == "control":
        # It compiles and submits pipelines too.
        wanted |= locks["pipelines"]
    return {name: line for name, line in wanted.items() if name not in LEFT_OUT}


def _shared(wanted: Mapping[str, Lock], first: str, *others: str) -> dict[str, str]:
    def everywhere(name: str, line: str) -> bool:
        return all(wanted[other].get(name) == line for other in others)

    return {name: line for name, line in wanted[first].items() if everywhere(name, line)}


def main(locks: Path, out: Path) -> None:
    """Write the list of each layer to ``out``."""
    read = {g: parse((locks / f"{g}.txt").read_text()) for g in (*GROUPS, "pipelines")}
    out.mkdir(parents=True)
    for layer, lines in split(read, parse((locks / "gpu.txt").read_text())).items():
        (out / f"{layer}.txt").write_text("".join(lines[n] + "\n" for n in sorted(lines)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
