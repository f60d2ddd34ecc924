"""Laws of the layers: together they are the locks, no package is in two, and none compiles."""

import re

import pytest

from components import images
from components.images import layers
from tests.images.containerfile import HERE, STAGES, lineage

LOCKED = {
    name: layers.parse((images.ROOT / "requirements" / f"{name}.txt").read_text())
    for name in (*images.GROUPS, "pipelines")
}
GPU = layers.parse((HERE / "gpu.txt").read_text())
SPLIT = layers.split(LOCKED, GPU)


def layers_of(target: str) -> list[str]:
    """Return the lists that an image installs, in order."""
    runs = [line for stage in lineage(STAGES, target) for line in stage.of("RUN")]
    return [found[1] for line in runs if (found := re.search(r"locks/([\w-]+)\.txt$", line))]


@pytest.mark.parametrize("group", images.GROUPS)
def test_an_image_installs_its_lock_and_nothing_twice(group: str):
    installed = [name for layer in layers_of(group) for name in SPLIT[layer]]
    wanted = set(LOCKED[group]) - layers.LEFT_OUT
    if group in layers.STEPS:
        wanted |= {"kfp"}
    if group == "control":
        wanted |= set(LOCKED["pipelines"])
    assert len(installed) == len(set(installed))
    assert set(installed) == wanted


@pytest.mark.parametrize("group", images.GROUPS)
def test_a_pin_and_its_hashes_reach_the_layer_as_they_are_locked(group: str):
    for layer in layers_of(group):
        for name, line in SPLIT[layer].items():
            locked = LOCKED[group].get(name) or LOCKED["pipelines"][name]
            assert line == locked
            assert "--hash=sha256:" in line


def test_no_image_holds_what_compiles():
    for layer, lines in SPLIT.items():
        if layer != "builds":
            assert not {"pip", "setuptools", "wheel", "triton", "mypy", "uv"} & set(lines)


def test_a_gpu_server_takes_the_other_runtime_in_the_place_of_the_first():
    """Both have one module's name; whichever came last would win."""
    installed = {name for layer in layers_of("serve-gpu") for name in SPLIT[layer]}
    assert "onnxruntime" not in installed
    assert installed - {"onnxruntime-gpu"} - set(SPLIT["cuda"]) - set(SPLIT["tensorrt"]) == (
        set(LOCKED["serve"]) - layers.LEFT_OUT - {"onnxruntime"}
    )


def test_kfp_alone_is_in_a_step_that_does_not_submit():
    """Its executor needs nothing else, so its pins never meet torch's or Feast's."""
    for group in ("data", "train", "engine"):
        added = {name for layer in layers_of(group) for name in SPLIT[layer]} - set(LOCKED[group])
        assert added == {"kfp"}
