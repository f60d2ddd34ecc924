"""The compiled pipelines are frozen as files: a change of contract shows in review."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.workload import Workload, known, load_data
from pipelines.local import compile_to

HERE = Path(__file__).parent
MODELS = [name for name in known() if isinstance(load_data(name), Workload)]
"""Workloads that have a model, and so a pipeline."""


@pytest.mark.parametrize("name", MODELS)
def test_train_compiles_to_the_golden_pipeline(name: str, tmp_path: Path):
    """The compiled bytes are those on record; ``make golden`` rewrites them on purpose."""
    compile_to(tmp_path / "pipeline.yaml", workload=name)
    made = (tmp_path / "pipeline.yaml").read_text(encoding="utf-8")
    golden = HERE / f"train-{name}.yaml"
    if os.environ.get("PENSTOCK_GOLDEN") == "rewrite":
        golden.write_text(made, encoding="utf-8")

    assert made == golden.read_text(encoding="utf-8"), "run make golden and review the difference"


@pytest.mark.parametrize("name", MODELS)
def test_compiling_twice_gives_the_same_bytes(name: str, tmp_path: Path):
    """The compiled file is a function of the sources."""
    first = compile_to(tmp_path / "one.yaml", workload=name)
    second = compile_to(tmp_path / "two.yaml", workload=name)

    assert first == second
