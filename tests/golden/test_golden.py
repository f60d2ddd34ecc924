"""The compiled pipelines are frozen as files: a change of contract shows in review."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.workload import Workload, known, load_data
from pipelines import profile
from pipelines.check import check
from pipelines.compiling import PIPELINES, compile_to
from tests.pipelines import IMAGES, PROFILES, pinned

HERE = Path(__file__).parent
MODELS = [name for name in known() if isinstance(load_data(name), Workload)]
"""Workloads that have a model, and so a pipeline."""

EVERY = [(pipeline, name) for pipeline in PIPELINES for name in MODELS]

BUILT = re.compile(r"(penstock-python-[a-z]+):[\w.]+-[0-9a-f]{12}\b")
"""The name of an image that is built here: its tag is a digest of the library's sources."""


def compiled(folder: Path, pipeline: str, name: str, with_profile: str = "") -> str:
    """Return a compiled pipeline; images of a profile have digests, those of none no tag."""
    given = pinned(profile.read(PROFILES / with_profile)) if with_profile else None
    compile_to(folder / "pipeline.yaml", workload=name, pipeline=pipeline, profile=given)
    return BUILT.sub(r"\1:BUILT", (folder / "pipeline.yaml").read_text(encoding="utf-8"))


def is_golden(made: str, name: str) -> None:
    """Hold a compiled pipeline against the one on record, or record it where that is asked."""
    golden = HERE / f"{name}.yaml"
    if os.environ.get("PENSTOCK_GOLDEN") == "rewrite":
        golden.write_text(made, encoding="utf-8")

    assert made == golden.read_text(encoding="utf-8"), "run make golden and review the difference"


@pytest.mark.parametrize(("pipeline", "name"), EVERY)
def test_it_compiles_to_the_golden_pipeline(pipeline: str, name: str, tmp_path: Path):
    """The compiled bytes are those on record; ``make golden`` rewrites them on purpose."""
    is_golden(compiled(tmp_path, pipeline, name), f"{pipeline}-{name}")


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_it_compiles_for_a_cluster_to_the_golden_pipeline(pipeline: str, tmp_path: Path):
    """With GPUs, secrets and all that only a cluster heeds, in a document of its own."""
    made = compiled(tmp_path, pipeline, "digits", "gpu.toml")

    is_golden(made, f"{pipeline}-digits-gpu")
    assert "\n---\nplatforms:\n" in made


@pytest.mark.parametrize("file", sorted(p.name for p in PROFILES.glob("*.toml")))
@pytest.mark.parametrize(("pipeline", "name"), EVERY)
def test_no_cluster_would_refuse_it(pipeline: str, name: str, file: str, tmp_path: Path):
    """Every pipeline with every profile passes the check, images pinned."""
    assert check(compiled(tmp_path, pipeline, name, file), pinned=True) == []


def test_the_compiled_bytes_hang_on_the_sources_alone(tmp_path: Path):
    """Other processes with other hash seeds write the same, profile and all."""
    names = [f'{group} = "{name}"' for group, name in IMAGES.items()]
    mine = tmp_path / "mine.toml"
    text = (PROFILES / "gpu.toml").read_text(encoding="utf-8")
    mine.write_text("\n".join([text, "[images]", *names]), encoding="utf-8")
    command = [sys.executable, "-m", "pipelines.compiling", "digits"]
    command += ["--profile", str(mine), "--out"]
    made: set[bytes] = set()
    for seed in ("1", "2"):
        out, set_to = tmp_path / seed, {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([*command, str(out)], check=True, env=set_to, stdout=subprocess.DEVNULL)
        made.add(out.read_bytes())

    assert len(made) == 1
