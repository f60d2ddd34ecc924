"""Reproduce: make a version again from its lineage and hold every stage's contents against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.bundle import MEASURED, STORE_VARIABLE, environment_revision, hash_file, read
from penstock.machine import CHANGES, checked_out, environment, has_commit
from penstock.register.lineage import files
from penstock.stage import Refused

NAMED = 5
"""Differing files or libraries that a refusal names."""

TAKES_PART = (
    "feature_repo/",
    "workloads/",
    *(f"penstock/{part}/" for part in (
        "datachecks", "export", "features", "online", "quantize", "runtimes", "stats", "train",
    )),
)  # fmt: skip
"""Sources that decide what is made, or what it is named, besides the library's own modules."""

UNSET = (STORE_VARIABLE, "MLFLOW_TRACKING_URI", "PENSTOCK_RUN")
"""Variables a rebuilding stage must not see: it reuses nothing and is on nobody's record."""

_SETTINGS = (
    "import json, sys; from penstock import workload;"
    "print(json.dumps(workload.part(sys.argv[1], 'data').settings()))"
)
_RUN = (
    "import importlib, json, sys; from datetime import UTC, datetime; from pathlib import Path;"
    "run = importlib.import_module(f'penstock.{sys.argv[1]}.step').run;"
    "paths = {name: Path(path) for name, path in json.loads(sys.argv[2]).items()};"
    "run(**paths, **json.loads(sys.argv[3]), now=datetime.now(UTC))"
)
"""What a stage's verb does, without what the other verbs import."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage to run again."""

    verb: str
    stage: str
    """Its bundle's name in the lineage; also of the folder it is rebuilt in."""

    inputs: Mapping[str, str]
    """Argument of the stage and the bundle it names."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One artifact: what was recorded of it and what came out now."""

    artifact: str
    recorded: str | None
    rebuilt: str | None
    same: bool | None
    """None where nothing was recorded, or what it depends on is not there."""

    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came of making a version again."""

    rows: tuple[Row, ...]
    sources: str
    """Where the code came from."""

    differs: tuple[str, ...]
    """What of code, environment and data source is not as recorded."""

    @property
    def same(self) -> bool:
        """Whether everything that was recorded came out the same; of nothing, it is not."""
        found = [row.same for row in self.rows if row.same is not None]
        return bool(found) and all(found)


def steps(recorded: Mapping[str, Any]) -> list[Step]:
    """Return the stages from features to the graph that serves."""
    snapshot = {"snapshot": "snapshot"}
    found = [
        Step(verb="features", stage="snapshot", inputs={}),
        Step(verb="datachecks", stage="data-verdict", inputs=snapshot),
        Step(verb="train", stage="model", inputs={**snapshot, "data_verdict": "data-verdict"}),
    ]
    export = {**snapshot, "model": "model"}
    if recorded["stages"]["serving"]["kind"] == "onnx":
        return [*found, Step(verb="export", stage="serving", inputs=export)]
    return [
        *found,
        Step(verb="export", stage="onnx", inputs=export),
        Step(verb="quantize", stage="serving", inputs={**snapshot, "onnx": "onnx"}),
    ]


def reproduce(
    recorded: Mapping[str, Any],
    *,
    root: Path,
    scratch: Path,
    anyway: bool = False,
    heard: Callable[[str, float | None], None] = lambda _stage, _seconds: None,
) -> Reproduction:
    """Make a version again and return what is the same.

    Args:
        recorded: The version's ``lineage.json``.
        root: The checkout; where its sources are others, those of the recorded commit are used.
        scratch: Empty folder that the bundles are made in; nothing is taken from a store.
        anyway: Go on where code, environment or data source are not those recorded.
        heard: Told each verb when it begins, and again with its seconds when it is done.

    Raises:
        Refused: Something is not as recorded and ``anyway`` is not set, or the lineage is of a
            version that was registered before stages were recorded in it.
    """
    if not recorded.get("stages") or not recorded.get("files"):
        raise Refused("the lineage does not say what each stage made; only newer versions can be.")
    with _sources(recorded, root, scratch / "source") as (source, how):
        differs = [
            *_other_code(recorded, source, root),
            *_other_environment(recorded, root),
            *_other_data(recorded, source),
        ]
        if differs and not anyway:
            raise Refused(
                f"this is not what the version was made from: {'; '.join(differs)}. Mend it, or "
                "make it anyway (--anyway) and expect other contents."
            )
        rows: list[Row] = []
        for step in steps(recorded):
            begun = time.monotonic()
            heard(step.verb, None)
            rows.append(_made_again(step, recorded, source, scratch, rows))
            heard(step.verb, time.monotonic() - begun)
            if rows[-1].rebuilt is None:
                break
        else:
            rows.append(_graph(recorded, scratch, rows))
    return Reproduction(rows=tuple(rows), sources=how, differs=tuple(differs))


@contextmanager
def _sources(recorded: Mapping[str, Any], root: Path, at: Path) -> Iterator[tuple[Path, str]]:
    """Yield a folder with the recorded sources, where they can be had, and where they are from."""
    if not _differing_files(recorded, root):
        yield root, "the sources here, which are those recorded"
        return
    commit = recorded["code"]["git"] or ""
    if not commit or commit.endswith(CHANGES) or not has_commit(root, commit):
        yield root, "the sources here, which are not those recorded"
        return
    with checked_out(root, commit, at=at) as source:
        yield source, f"commit {commit[:9]}, checked out beside this one"


def _differing_files(recorded: Mapping[str, Any], source: Path) -> list[str]:
    here, there = files(source, recorded["workload"]), recorded["files"]
    return [
        path
        for path in sorted({*here, *there})
        if here.get(path) != there.get(path)
        and (path.startswith(TAKES_PART) or (path.startswith("penstock/") and path.count("/") == 1))
    ]


def _other_code(recorded: Mapping[str, Any], source: Path, root: Path) -> list[str]:
    """Return in a sentence which sources differ and why those recorded cannot be had."""
    paths = _differing_files(recorded, source)
    if not paths:
        return []
    commit = recorded["code"]["git"]
    if commit is None:
        why = "no commit is recorded"
    elif commit.endswith(CHANGES):
        why = f"commit {commit[:9]} was recorded with changes that no commit holds"
    elif not has_commit(root, commit):
        why = f"commit {commit[:9]} is not in this checkout; fetch it"
    else:
        why = f"even commit {commit[:9]} holds others"
    return [f"{_named('source file', paths)} differ, and {why}"]


def _other_environment(recorded: Mapping[str, Any], root: Path) -> list[str]:
    here, there = environment(root), recorded["environment"]
    found = [
        f"{name} is {here.get(name)}, recorded {there.get(name)}"
        for name in ("python", "machine", "gpu")
        if here.get(name) != there.get(name)
    ]
    installed, wanted = here["libraries"], there.get("libraries", {})
    libraries = [
        f"{name} {installed.get(name, 'absent')} for {wanted.get(name, 'absent')}"
        for name in sorted({*installed, *wanted})
        if installed.get(name) != wanted.get(name)
    ]
    if libraries:
        found.append(f"{_named('library', libraries)} differ")
    elif not found and environment_revision() != recorded["stages"]["model"]["environment"]:
        found.append("a library that the record does not name has another version")
    return found


def _other_data(recorded: Mapping[str, Any], source: Path) -> list[str]:
    done = _run([_SETTINGS, recorded["workload"]], source)
    if done.returncode:
        return [f"the data source cannot be read: {_last(done.stderr)}"]
    found, wanted = json.loads(done.stdout), recorded["data_source"]
    return [] if found == wanted else [f"the data source is {found}, recorded {wanted}"]


def _named(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{what} {', '.join(names[:NAMED])}{more}"


def _run(arguments: Sequence[str], source: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code with the library of a folder, whatever is installed."""
    held = {name: value for name, value in os.environ.items() if name not in UNSET}
    own = {"PYTHONPATH": str(source), "PYTHONHASHSEED": "0", "FEAST_USAGE": "False"}
    command = [sys.executable, "-c", *arguments]
    return subprocess.run(
        command, cwd=source, env={**held, **own}, capture_output=True, text=True, check=False
    )


def _made_again(
    step: Step, recorded: Mapping[str, Any], source: Path, scratch: Path, before: Sequence[Row]
) -> Row:
    wanted = recorded["stages"].get(step.stage)
    digest = wanted["digest"] if wanted else None
    out = scratch / step.stage
    paths = {name: str(scratch / folder) for name, folder in step.inputs.items()}
    given = {"workload": recorded["workload"]}
    if step.verb == "train":
        given["seed"] = recorded["seed"]
    texts = [json.dumps(held) for held in ({**paths, "out": str(out)}, given)]
    done = _run([_RUN, step.verb, *texts], source)
    if not out.exists():
        note = f"the stage failed: {_last(done.stderr)}"
        return Row(artifact=step.verb, recorded=digest, rebuilt=None, same=False, note=note)
    made = read(out)
    if wanted is None:
        note = "not in the record, which has what was made of it"
        return Row(artifact=step.verb, recorded=None, rebuilt=made.digest, same=None, note=note)
    if "reference" in wanted["inputs"]:
        note = "it was held against an earlier snapshot too, which is not in the record"
        return Row(artifact=step.verb, recorded=digest, rebuilt=made.digest, same=None, note=note)
    same = made.digest == digest
    note = "" if same else _why(wanted["files"], made.manifest["files"], before)
    return Row(artifact=step.verb, recorded=digest, rebuilt=made.digest, same=same, note=note)


def _why(
    wanted: Mapping[str, str], made: Mapping[str, Mapping[str, Any]], before: Sequence[Row]
) -> str:
    """Return which files differ, and whether an earlier difference comes before it."""
    found = {n: f["sha256"] for n, f in made.items() if not n.startswith(f"{MEASURED}/")}
    names = [n for n in sorted({*wanted, *found}) if wanted.get(n) != found.get(n)]
    first = next((row.artifact for row in before if row.same is False), None)
    after = f"; follows from {first}" if first else "; the first that differs"
    return f"{_named('file', names)}{after}"


def _graph(recorded: Mapping[str, Any], scratch: Path, before: Sequence[Row]) -> Row:
    """Return whether the file that serves is the one that was packaged."""
    name = "model.int8-cpu.onnx" if recorded["choices"]["serve"] == "int8" else "model.onnx"
    rebuilt, wanted = hash_file(scratch / "serving" / name), recorded["model"]
    first = next((row.artifact for row in before if row.same is False), None)
    note = "" if rebuilt == wanted else f"follows from {first}" if first else ""
    return Row(
        artifact="model.onnx", recorded=wanted, rebuilt=rebuilt, same=rebuilt == wanted, note=note
    )


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("penstock.stage.") if lines else "it said nothing"
