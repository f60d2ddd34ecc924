"""Laws of the plan manifest: what may be loaded where, and what a refusal says."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtimes import plan
from penstock.runtimes.plan import Here, PlanManifest, PlanMismatch, mismatches

GPU, OTHER_GPU = "NVIDIA L4", "NVIDIA A10"
GRAPH = plan.hash_bytes(b"graph")
versions = st.lists(st.integers(0, 40), min_size=2, max_size=4).map(lambda p: ".".join(map(str, p)))
capabilities = st.sampled_from(["7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"])


def manifest(**over: object) -> PlanManifest:
    """Return the manifest of a TensorRT plan built on one GPU, with some fields replaced."""
    shapes = ((1, 1, 8, 8), (8, 1, 8, 8), (64, 1, 8, 8))
    made = PlanManifest(
        backend="tensorrt",
        version="10.16.1.11",
        platform="linux-x86_64",
        cuda="13",
        driver="580.1",
        gpu=GPU,
        compute_capability="8.9",
        runs_on=("8.9",),
        plan=plan.hash_bytes(b"plan"),
        onnx=GRAPH,
        timing_cache=None,
        profiles={"image": shapes},
        precision="int8",
        version_compatible=False,
        hardware_compatibility="none",
        peak_memory_mb=100.0,
        build_s=1.5,
    )
    return replace(made, **over)


def home(**over: object) -> Here:
    """Return the machine it was built on, with some fields replaced."""
    made = Here(
        platform="linux-x86_64",
        version="10.16.1.11",
        gpu=GPU,
        compute_capability="8.9",
        driver="580.1",
        cuda="13.0",
    )
    return replace(made, **over)


manifests = st.builds(
    manifest,
    version=versions,
    cuda=st.none() | versions,
    gpu=st.none() | st.sampled_from([GPU, OTHER_GPU]),
    compute_capability=st.none() | capabilities,
    runs_on=st.lists(capabilities, min_size=1, max_size=3).map(tuple),
    timing_cache=st.none() | st.just("sha256:1"),
    version_compatible=st.booleans(),
    hardware_compatibility=st.sampled_from(["none", "ampere_plus", "same_compute_capability"]),
)


@given(manifests)
def test_a_manifest_reads_back_as_written(made: PlanManifest):
    """JSON loses nothing of it."""
    assert PlanManifest.from_dict(json.loads(json.dumps(asdict(made)))) == made


def test_a_plan_is_loaded_where_it_was_built(tmp_path: Path):
    """Its own machine has no mismatch, and gets the bytes that were checked."""
    (tmp_path / "a.plan").write_bytes(b"plan")

    assert mismatches(manifest(), home()) == []
    assert plan.verified(tmp_path / "a.plan", manifest(), home(), onnx=GRAPH) == b"plan"


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ({"platform": "linux-aarch64"}, "built for linux-x86_64, this is linux-aarch64"),
        ({"version": None}, "10.16.1.11, which is not installed here: install that version"),
        ({"version": "11.4.0"}, "10.16.1.11, this machine has 11.4.0"),
        ({"gpu": None, "compute_capability": None}, "no NVIDIA GPU was found here"),
        ({"compute_capability": "9.0", "gpu": "NVIDIA H200"}, "this NVIDIA H200 has 9.0"),
        ({"gpu": OTHER_GPU}, "built on and for NVIDIA L4, this is NVIDIA A10"),
        ({"cuda": "12.8"}, "needs a driver for CUDA 13, driver 580.1 here runs 12.8"),
        ({"cuda": None}, "needs a driver for CUDA 13"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_each_difference_is_named_alone_with_what_to_do(machine: dict[str, str], said: str):
    """One difference gives one sentence; where a rebuild helps it says of what and where."""
    (found,) = mismatches(manifest(), home(**machine))

    assert said in found
    assert "run the engine stage with backend tensorrt" in found or ": " in found


def test_a_rebuild_names_backend_machine_and_graph():
    (found,) = mismatches(manifest(), home(version="11.4.0"))

    assert "run the engine stage with backend tensorrt on the machine that is to load it" in found
    assert manifest().onnx[:19] in found


@given(manifests, st.builds(home, version=st.none() | versions, gpu=st.none() | st.just(GPU)))
def test_whatever_differs_a_plan_is_never_loaded_silently(made: PlanManifest, here: Here):
    """No mismatch means: same or allowed version, a GPU, and one that it was built for."""
    if mismatches(made, here):
        return

    assert here.gpu is not None
    assert here.compute_capability in made.runs_on
    assert here.version is not None
    if not made.version_compatible:
        assert here.version == made.version


@given(versions, versions)
def test_a_version_compatible_plan_goes_forward_and_never_back(built: str, present: str):
    """Of two different versions at most one may load the other's plan."""
    forward = mismatches(manifest(version=built, version_compatible=True), home(version=present))
    backward = mismatches(manifest(version=present, version_compatible=True), home(version=built))

    assert built == present or forward or backward


@given(capabilities)
def test_ampere_and_later_means_that(capability: str):
    """``8.0+`` is 8.0 and what is newer, compared as numbers: 10.0 is newer than 8.9."""
    made = manifest(runs_on=("8.0+",), hardware_compatibility="ampere_plus")
    here = home(compute_capability=capability, gpu=OTHER_GPU)

    assert bool(mismatches(made, here)) == (capability == "7.5")


def test_a_plan_built_without_a_gpu_is_bound_to_none():
    """TensorRT-RTX builds ahead of time: any GPU of its compute capabilities may load it."""
    made = manifest(gpu=None, compute_capability=None, runs_on=("8.6", "8.9"))

    assert mismatches(made, home(gpu=OTHER_GPU)) == []


def test_an_altered_plan_is_refused_before_it_is_loaded(tmp_path: Path):
    """A byte of difference is another plan."""
    (tmp_path / "a.plan").write_bytes(b"plam")

    with pytest.raises(PlanMismatch, match=r"a\.plan was altered"):
        plan.verified(tmp_path / "a.plan", manifest(), home(), onnx=GRAPH)


def test_a_plan_that_does_not_fit_here_is_refused(tmp_path: Path):
    (tmp_path / "a.plan").write_bytes(b"plan")

    with pytest.raises(PlanMismatch, match="no NVIDIA GPU"):
        plan.verified(tmp_path / "a.plan", manifest(), home(gpu=None), onnx=GRAPH)


def test_a_plan_of_another_graph_is_refused_and_the_right_one_is_named(tmp_path: Path):
    """On its own machine, with its own bytes: it would give the answers of another model."""
    (tmp_path / "a.plan").write_bytes(b"plan")
    served = plan.hash_bytes(b"another graph")

    with pytest.raises(PlanMismatch, match=r"a\.plan was built from another graph") as refused:
        plan.verified(tmp_path / "a.plan", manifest(), home(), onnx=served)
    assert f"from the int8 bundle whose model.int8.onnx is {served[:19]}" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"plan": 1}',
        json.dumps({**asdict(manifest()), "profiles": {"a": 1}}),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str):
    (tmp_path / "m.json").write_text(text)

    with pytest.raises(ValueError, match=r"m\.json cannot be read"):
        plan.read(tmp_path / "m.json")
