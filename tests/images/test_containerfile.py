"""Laws of the images' recipe: what every image is, whoever edits the Containerfile."""

import re
from pathlib import Path

import pytest

from components import images
from tests.images.containerfile import HERE, STAGES, TARGETS, lineage, parse

ROOT = HERE.parents[1]
STEPS = {"data", "train", "engine", "control", "engine-gpu"}

every_target = pytest.mark.parametrize("target", TARGETS)


def ends(target: str, word: str) -> list[str]:
    """Return an instruction's values over all stages that an image is built from."""
    return [rest for stage in lineage(STAGES, target) for rest in stage.of(word)]


def test_every_group_is_a_target_with_a_lock():
    for group in images.GROUPS:
        assert group in STAGES
        assert (ROOT / "requirements" / f"{group}.txt").exists()


@every_target
def test_an_image_ends_as_a_numbered_user_who_is_not_root(target: str):
    """A cluster that asks for runAsNonRoot cannot tell a name from root."""
    assert re.fullmatch(r"([1-9]\d+):\1", ends(target, "USER")[-1])
    assert STAGES[target].instructions[-1][0] in {"USER", "CMD", "ENTRYPOINT"}


@every_target
def test_a_base_is_an_argument_and_nothing_else_is_pulled(target: str):
    assert lineage(STAGES, target)[0].parent == "${BASE}"


def test_no_image_is_named_in_the_recipe():
    """A base without a digest would be another one tomorrow; so nobody names one here."""
    text = (HERE / "Containerfile").read_text(encoding="utf-8")
    assert ":latest" not in text
    assert re.findall(r"^FROM (?!\$\{BASE\})(\S+)", text, re.MULTILINE) == [
        stage.parent for stage in STAGES.values() if stage.parent in STAGES
    ]
    assert re.search(r"^ARG BASE$", text, re.MULTILINE), "a default would be used unseen"


@every_target
def test_an_image_holds_its_sources_and_no_others(target: str):
    copied = [re.fullmatch(r"--from=sources /app/(\S+) /app/\1", c) for c in ends(target, "COPY")]
    group = target.removesuffix("-gpu")
    assert {found[1] for found in copied if found} == set(images.SOURCES[group])


@every_target
def test_what_is_copied_comes_from_a_stage_or_is_a_named_file(target: str):
    """A COPY of a whole folder of the checkout takes in what lies about."""
    for copied in ends(target, "COPY"):
        if not copied.startswith("--from="):
            *_, source, _ = copied.split()
            assert (ROOT / source).is_file()


def test_no_secret_is_an_argument_or_in_the_environment():
    """Arguments end in the history of an image, environments in its configuration."""
    said = [
        line for stage in STAGES.values() for w in ("ARG", "ENV", "LABEL") for line in stage.of(w)
    ]
    assert said
    for line in said:
        assert not re.search(r"secret|passw|token|credential|key|index|proxy", line.lower())


@every_target
def test_packages_are_installed_by_hash_with_a_mounted_installer(target: str):
    """No instruction fetches or compiles by another way, so no tool for it stays behind."""
    for line in ends(target, "RUN"):
        words = re.sub(r"--mount=\S+\s+", "", line)
        assert re.fullmatch(
            r"PYTHONHASHSEED=0 python3 /venv/locks/install.py packages /venv/locks/[\w-]+\.txt",
            words,
        )
        assert re.findall(r"type=(\w+)", line) == ["bind", "bind", "secret", "secret"]
    assert "--require-hashes" in (HERE / "install.py").read_text(encoding="utf-8")


def test_train_and_engine_share_their_large_layers():
    shared = [s.name for s in lineage(STAGES, "train")[:-1]]
    assert shared == [s.name for s in lineage(STAGES, "engine")[:-1]]
    assert shared == ["python", "cuda", "torch"]
    assert "cuda" in {s.name for s in lineage(STAGES, "serve-gpu")}


@every_target
def test_only_a_server_has_an_entrypoint(target: str):
    """Kubeflow gives a step's command; an engine would put an entrypoint before it."""
    assert bool(ends(target, "ENTRYPOINT")) == (target not in STEPS)
    assert ends(target, "STOPSIGNAL") == ["SIGTERM"]


@every_target
def test_a_container_may_not_write_and_need_not(target: str):
    told = dict(word.split("=", 1) for line in ends(target, "ENV") for word in line.split())
    assert told["PYTHONDONTWRITEBYTECODE"] == "1"
    assert told["HOME"] == "/tmp"
    assert "PYTHONHASHSEED" not in told, "a server's hashes must not be known to its clients"


@every_target
def test_an_image_says_which_commit_it_is_of(target: str):
    assert STAGES[target].of("ARG") == ["REVISION"]
    assert 'image.revision="${REVISION}"' in STAGES[target].of("LABEL")[0]


def test_the_build_sees_only_what_it_names():
    """No .git, no .penstock, no .venv: a key beside the sources stays beside them."""
    lines = (HERE / ".containerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    wanted = {folder for group in images.GROUPS for folder in images.SOURCES[group]}
    assert rules[0] == "*"
    assert {r[1:] for r in rules if r.startswith("!")} == {*wanted, "requirements"}


def test_the_parser_sees_a_bad_recipe():
    """A law that no recipe breaks would hold of nothing."""
    stages = parse("ARG BASE=x:latest\nFROM a AS b\nENV A=1 \\\n    TOKEN=2\nUSER me\n")
    assert stages["b"].of("ENV") == ["A=1 TOKEN=2"]
    assert stages["b"].of("USER") == ["me"]


def test_the_script_of_the_images_names_every_target():
    script = Path(ROOT / "scripts" / "images.sh").read_text(encoding="utf-8")
    assert f"{' | '.join(TARGETS)})" in script
