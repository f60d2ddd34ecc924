"""Laws of recipe, fingerprint and bundle: whole or not at all, and every byte checked."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from penstock import bundle
from penstock.bundle import MANIFEST, BundleError, Recipe, Summary, fingerprint
from tests.strategies import file_trees, identifiers, plain_values, recipes, unstable_values, words
from tests.strategies import settings as plain_settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = Recipe(kind="model", workload="digits", inputs={"snapshot": "digits-1"}, settings={"a": 1})

each_in_a_fresh_folder = hypothesis_settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@pytest.fixture
def fresh(tmp_path):
    """Return a function that gives a new empty folder: Hypothesis reuses one test's tmp_path."""
    count = iter(range(10**6))

    def make() -> Path:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        return folder

    return make


def filled(tree):
    def make(folder: Path) -> Summary:
        for name, content in tree.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return Summary("pass", "made")

    return make


def one_file(folder: Path) -> Summary:
    return filled({"weights.bin": b"0123456789"})(folder)


def shuffled(mapping, seed):
    keys = list(mapping)
    random.Random(seed).shuffle(keys)
    return {key: mapping[key] for key in keys}


# Fingerprints.


@given(recipes)
def test_equal_recipes_have_equal_fingerprints(recipe):
    again = replace(recipe, inputs=dict(recipe.inputs), settings=dict(recipe.settings))

    assert again.fingerprint == recipe.fingerprint


@given(recipes, st.sampled_from(["kind", "workload", "code", "environment"]), identifiers)
def test_a_changed_part_changes_the_fingerprint(recipe, part, addition):
    changed = replace(recipe, **{part: getattr(recipe, part) + addition})

    assert changed.fingerprint != recipe.fingerprint


@given(recipes, st.sampled_from(["inputs", "settings"]), identifiers, words)
def test_a_changed_input_or_setting_changes_the_fingerprint(recipe, part, key, value):
    mapping = {**getattr(recipe, part), key: value}
    changed = replace(recipe, **{part: mapping})

    assert (changed.fingerprint == recipe.fingerprint) == (mapping == getattr(recipe, part))


@given(plain_settings, st.integers())
def test_the_order_of_keys_does_not_matter(values, seed):
    assert fingerprint("digits", {}, values) == fingerprint("digits", {}, shuffled(values, seed))


@given(plain_settings)
def test_settings_that_read_back_from_json_keep_the_fingerprint(values):
    read_back = json.loads(json.dumps(values))

    assert fingerprint("digits", {}, read_back) == fingerprint("digits", {}, values)


@given(plain_values, unstable_values)
def test_a_value_without_a_stable_form_is_refused_wherever_it_hides(plain, unstable):
    for settings in ({"a": unstable}, {"a": [plain, unstable]}, {"a": {"b": (unstable,)}}):
        with pytest.raises(TypeError, match="no stable form"):
            fingerprint("digits", {}, settings)


def test_no_setting_can_take_the_place_of_the_code():
    """A setting named like the recipe's own entry neither hides it nor is hidden."""
    plain = replace(RECIPE, settings={})
    named = replace(RECIPE, settings={"made_by": "someone"})

    assert named.fingerprint != plain.fingerprint
    assert replace(named, code="other").fingerprint != named.fingerprint


# Reading.


@given(file_trees, recipes)
@each_in_a_fresh_folder
def test_a_bundle_reads_back_as_it_was_written(fresh, tree, recipe):
    path = fresh() / "b"
    written = bundle.write(path, recipe, make=filled(tree), now=NOW)
    found = bundle.read(path, kind=recipe.kind)

    assert found.fingerprint == recipe.fingerprint
    assert found.manifest == written.manifest
    assert {name: found.file(name).read_bytes() for name in found.manifest["files"]} == tree


@given(file_trees, st.data())
@each_in_a_fresh_folder
def test_any_changed_byte_of_any_file_is_refused(fresh, tree, data):
    path = fresh() / "b"
    bundle.write(path, RECIPE, make=filled(tree), now=NOW)
    name = data.draw(st.sampled_from(sorted(tree)))
    content = bytearray((path / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (path / name).write_bytes(content)

    with pytest.raises(BundleError, match="was altered"):
        bundle.read(path)


@given(file_trees, st.data())
@each_in_a_fresh_folder
def test_any_changed_byte_of_the_manifest_is_refused(fresh, tree, data):
    path = fresh() / "b"
    bundle.write(path, RECIPE, make=filled(tree), now=NOW)
    text = bytearray((path / MANIFEST).read_bytes())
    text[data.draw(st.integers(0, len(text) - 1))] ^= data.draw(st.integers(1, 255))
    (path / MANIFEST).write_bytes(text)

    with pytest.raises(BundleError):
        bundle.read(path)


@given(file_trees, st.data())
@each_in_a_fresh_folder
def test_a_missing_file_is_refused(fresh, tree, data):
    path = fresh() / "b"
    bundle.write(path, RECIPE, make=filled(tree), now=NOW)
    (path / data.draw(st.sampled_from([*sorted(tree), MANIFEST]))).unlink()

    with pytest.raises(BundleError, match=r"has lost|is not a bundle"):
        bundle.read(path)


@pytest.mark.parametrize("name", ["more.txt", "deep/more.txt", ".hidden", "manifest.json.bak"])
def test_an_extra_file_is_refused(tmp_path, name):
    bundle.write(tmp_path / "b", RECIPE, make=one_file, now=NOW)
    (tmp_path / "b" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "b" / name).write_text("smuggled")

    with pytest.raises(BundleError, match="does not list"):
        bundle.read(tmp_path / "b")


def test_a_link_in_place_of_a_file_is_refused(tmp_path):
    """The bytes may be right today; what the link points to is outside of the bundle."""
    bundle.write(tmp_path / "b", RECIPE, make=one_file, now=NOW)
    (tmp_path / "b" / "weights.bin").rename(tmp_path / "elsewhere")
    (tmp_path / "b" / "weights.bin").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(BundleError):
        bundle.read(tmp_path / "b")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": 1}', "\udcff"])
def test_a_manifest_that_is_not_one_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(BundleError):
        bundle.read(tmp_path)


def test_a_bundle_of_another_kind_is_refused(tmp_path):
    bundle.write(tmp_path / "b", RECIPE, make=one_file, now=NOW)

    with pytest.raises(BundleError, match="a snapshot was wanted"):
        bundle.read(tmp_path / "b", kind="snapshot")


def test_a_file_it_does_not_hold_is_refused_with_those_it_holds(tmp_path):
    written = bundle.write(tmp_path / "b", RECIPE, make=one_file, now=NOW)

    with pytest.raises(BundleError, match=r"no file 'weights'; it holds weights\.bin"):
        written.file("weights")


def test_contents_decide_the_digest_and_the_recipe_does_not(tmp_path):
    a = bundle.write(tmp_path / "a", RECIPE, make=one_file, now=NOW)
    b = bundle.write(tmp_path / "b", replace(RECIPE, code="other"), make=one_file, now=NOW)

    assert a.digest == b.digest
    assert a.fingerprint != b.fingerprint


# Writing.


def crash(folder: Path) -> Summary:
    one_file(folder)
    raise KeyboardInterrupt


def test_a_crash_while_making_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        bundle.write(tmp_path / "b", RECIPE, make=crash, now=NOW)

    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_making_again_leaves_what_was_there(tmp_path):
    bundle.write(tmp_path / "b", RECIPE, make=one_file, now=NOW)
    with pytest.raises(KeyboardInterrupt):
        bundle.write(tmp_path / "b", replace(RECIPE, code="2"), make=crash, now=NOW)

    assert bundle.read(tmp_path / "b").fingerprint == RECIPE.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_unstable_settings_are_refused_before_anything_is_at_the_path(tmp_path):
    with pytest.raises(TypeError, match="no stable form"):
        bundle.write(tmp_path / "b", replace(RECIPE, settings={"f": print}), make=one_file, now=NOW)

    assert list(tmp_path.iterdir()) == []


def test_a_time_without_a_zone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="time zone"):
        bundle.write(tmp_path / "b", RECIPE, make=one_file, now=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake

    assert list(tmp_path.iterdir()) == []


SLOW_WRITER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from penstock.bundle import Recipe, Summary, write

def make(folder):
    for i in range(40):
        (folder / f"{i}.bin").write_bytes(bytes([i]) * 200_000)
        time.sleep(0.002)
    return Summary("pass", "made")

path = Path(sys.argv[1])
print("ready", flush=True)
for n in range(1000):
    write(path, Recipe(kind="model", workload="digits", settings={"n": n}), make=make,
          now=datetime.now(UTC))
"""


@pytest.mark.parametrize("after_ms", [5, 40, 90, 130, 170, 230, 310])
def test_killed_while_writing_it_leaves_a_whole_bundle_or_none(tmp_path, after_ms):
    writer = subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITER, str(tmp_path / "b")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert writer.stdout is not None
    with writer.stdout as said:
        said.readline()
        time.sleep(after_ms / 1000)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    if (tmp_path / "b").exists():
        assert len(bundle.read(tmp_path / "b").manifest["files"]) == 40
    else:
        with pytest.raises(BundleError, match="not a bundle"):
            bundle.read(tmp_path / "b")
    for rest in tmp_path.glob(".part-*"):
        assert rest.name.startswith(".part-")
    bundle.write(tmp_path / "b", RECIPE, make=one_file, now=NOW)

    assert bundle.read(tmp_path / "b").fingerprint == RECIPE.fingerprint


# Reuse.


def counted(calls):
    def make(folder: Path) -> Summary:
        calls.append(folder)
        return one_file(folder)

    return make


def test_a_whole_stored_bundle_is_reused(tmp_path):
    calls: list[Path] = []
    outs = [
        bundle.produce(
            tmp_path / f"out{i}", RECIPE, make=counted(calls), now=NOW, store=tmp_path / "store"
        )
        for i in range(2)
    ]

    assert [reused for _, reused in outs] == [False, True]
    assert len(calls) == 1
    assert outs[0][0].digest == outs[1][0].digest


def test_without_a_store_nothing_is_reused(tmp_path):
    calls: list[Path] = []
    for _ in range(2):
        _, reused = bundle.produce(tmp_path / "out", RECIPE, make=counted(calls), now=NOW)

    assert not reused
    assert len(calls) == 2


def test_another_recipe_is_made_and_not_reused(tmp_path):
    for code in ("1", "2"):
        _, reused = bundle.produce(
            tmp_path / "out",
            replace(RECIPE, code=code),
            make=one_file,
            now=NOW,
            store=tmp_path / "store",
        )

    assert not reused


@pytest.mark.parametrize("damage", ["alter", "lose", "add", "manifest", "folder"])
def test_a_damaged_stored_bundle_is_made_again(tmp_path, damage):
    store = tmp_path / "store"
    bundle.produce(tmp_path / "out", RECIPE, make=one_file, now=NOW, store=store)
    kept = store / RECIPE.kind / RECIPE.fingerprint
    {
        "alter": lambda: (kept / "weights.bin").write_bytes(b"0123456780"),
        "lose": (kept / "weights.bin").unlink,
        "add": lambda: (kept / "more").write_text("x"),
        "manifest": lambda: (kept / MANIFEST).write_text("{"),
        "folder": partial(shutil.rmtree, kept),
    }[damage]()
    calls: list[Path] = []
    made, reused = bundle.produce(
        tmp_path / "out", RECIPE, make=counted(calls), now=NOW, store=store
    )

    assert not reused
    assert len(calls) == 1
    assert made.file("weights.bin").read_bytes() == b"0123456789"
    assert bundle.read(kept, kind=RECIPE.kind).fingerprint == RECIPE.fingerprint


def test_another_bundle_in_the_store_under_the_name_is_not_taken_for_it(tmp_path):
    store = tmp_path / "store"
    other = replace(RECIPE, code="other")
    bundle.write(store / RECIPE.kind / RECIPE.fingerprint, other, make=one_file, now=NOW)
    made, reused = bundle.produce(tmp_path / "out", RECIPE, make=one_file, now=NOW, store=store)

    assert not reused
    assert made.fingerprint == RECIPE.fingerprint


def test_a_reused_bundle_is_a_copy_that_cannot_harm_the_stored_one(tmp_path):
    store = tmp_path / "store"
    made, _ = bundle.produce(tmp_path / "out", RECIPE, make=one_file, now=NOW, store=store)
    made.file("weights.bin").write_bytes(b"changed")

    assert bundle.read(store / RECIPE.kind / RECIPE.fingerprint)


def test_what_an_import_adds_to_the_path_is_no_library_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Setuptools puts its own copies there; the same recipe would get another name."""
    before = bundle.environment_revision()
    (tmp_path / "carried-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))

    assert bundle.environment_revision() == before
