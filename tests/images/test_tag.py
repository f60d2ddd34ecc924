"""Laws of an image's name: an edit of what is in it changes it, and whoever names one wins."""

import shutil
from pathlib import Path

import pytest

from components import images

RELATED = (
    "components",
    "feature_repo",
    "penstock",
    "pipelines",
    "requirements",
    "docs",
    "serving",
    "workloads",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the files that images are made of."""
    for folder in RELATED:
        shutil.copytree(
            images.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def tags(root: Path) -> dict[str, str]:
    """Return each group's name at a checkout."""
    return {group: images.local(group, root=root) for group in images.GROUPS}


@pytest.mark.parametrize(
    ("edited", "changed"),
    [
        ("penstock/gate/judge.py", set(images.GROUPS)),
        ("penstock/rollout/assigner.lua", set(images.GROUPS)),
        ("requirements/train.txt", {"train", "control"}),
        ("requirements/pipelines.txt", {"control"}),
        ("serving/predictor.py", {"control", "serve"}),
        ("feature_repo/digits.py", {"data", "control"}),
        ("pipelines/train.py", {"control"}),
        ("components/images/Containerfile", set(images.GROUPS)),
        ("requirements/stores.txt", {"control"}),
        ("docs/architecture.md", set()),
    ],
)
def test_an_edit_changes_the_images_that_hold_it(checkout: Path, edited: str, changed: set[str]):
    before = tags(checkout)
    with (checkout / edited).open("a") as file:
        file.write("\n# edited\n")
    after = tags(checkout)

    assert {group for group in images.GROUPS if after[group] != before[group]} == changed


def test_where_it_lies_and_what_python_wrote_do_not_change_it(checkout: Path):
    (checkout / "penstock" / "__pycache__").mkdir()
    (checkout / "penstock" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"x")
    assert tags(checkout) == tags(images.ROOT)


def test_moving_a_module_changes_it(checkout: Path):
    before = tags(checkout)
    (checkout / "serving" / "hop.py").rename(checkout / "serving" / "hopped.py")
    assert tags(checkout)["serve"] != before["serve"]


def test_kfp_takes_the_name_for_that_of_a_python_image():
    for group in images.GROUPS:
        assert images.image(group).startswith(f"penstock-python-{group}")


def test_a_name_in_the_environment_wins(monkeypatch: pytest.MonkeyPatch):
    pinned = "registry.example.com/penstock-python-train@sha256:" + "0" * 64
    monkeypatch.setenv("PENSTOCK_IMAGE_TRAIN", pinned)
    assert images.image("train") == pinned
    assert images.component("train").keywords["base_image"] == pinned
    assert images.image("data") != pinned


def test_an_empty_name_is_none(monkeypatch: pytest.MonkeyPatch):
    """A continuous integration sets a variable to nothing where it has nothing."""
    monkeypatch.setenv("PENSTOCK_IMAGE_TRAIN", "")
    assert images.image("train") == images.local("train")
