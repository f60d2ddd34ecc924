"""Laws of the change document: what is material, what changed, and who must sign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.bundle import Bundle, read, write_json
from penstock.register import change as changes
from penstock.register.profile import profile
from penstock.workload import Workload, load
from tests import bundles
from tests.register import dossiers
from tests.strategies import identifiers, plain_values

FILES = dossiers.lineage()["files"]
GROUPS = ("network", "features", "task", "data", "hyperparameters", "seed", "quantization",
          "code", "environment", "image")  # fmt: skip


def champion(tmp_path: Path, **over: Any) -> Bundle:
    """Return the package of a version that serves already, as far as it says what it is made of."""
    held = dossiers.inputs(tmp_path / "before")
    said = changes.compose(
        tmp_path, dossiers.credit(), held, lineage=dossiers.lineage(**over), before=None
    )
    return bundles.bundle(
        tmp_path / "champion", "package", lambda f: write_json(f / "change.json", said)
    )


def composed(
    tmp_path: Path,
    *,
    before: Bundle | None,
    record: dict[str, Any] | None = None,
    declared: Workload | None = None,
    **over: Any,
) -> dict[str, Any]:
    """Return the change document of a challenger."""
    return changes.compose(
        tmp_path,
        declared or dossiers.credit(),
        dossiers.inputs(tmp_path / "after", **over),
        lineage=record or dossiers.lineage(),
        before=before,
    )


def test_the_first_model_is_material(tmp_path: Path):
    """There is nothing it could be a small change of; the committee signs."""
    document = composed(tmp_path, before=None)

    assert document["materiality"]["material"]
    assert "first model" in document["materiality"]["reasons"][0]
    assert document["against"] is None
    assert document["changes"] == []


def test_the_same_again_changes_nothing(tmp_path: Path):
    """No difference, so nothing material."""
    document = composed(tmp_path, before=champion(tmp_path))

    assert document["changes"] == []
    assert not document["materiality"]["material"]


@pytest.mark.parametrize(
    "over",
    [
        {"data": "digits-fresher"},
        {"seed": 43},
        {"hyperparameters": {"epochs": 18, "learning_rate": 0.004}},
        {"environment": {"python": "3.11.8"}},
        {"code": {"git": "9876fed", "sources": "sha256:6"}},
        {"image": "sha256:1111"},
    ],
    ids=lambda over: next(iter(over)),
)
def test_fresh_data_and_other_training_are_not_material(tmp_path: Path, over: dict[str, Any]):
    """They are named, and ask for the abbreviated validation."""
    document = composed(tmp_path, before=champion(tmp_path), record=dossiers.lineage(**over))

    assert document["changes"]
    assert document["materiality"]["review"] == changes.ABBREVIATED


@pytest.mark.parametrize(
    ("over", "about"),
    [
        ({"files": {**FILES, "workloads/digits/model.py": "sha256:new"}}, "model.py"),
        ({"files": {**FILES, "workloads/digits/data.py": "sha256:new"}}, "data.py"),
        ({"feature_definitions": "sha256:new"}, "definitions"),
        ({"features": {"pixels": "sha256:new", "ink_mean": "sha256:72"}}, "feature pixels"),
        ({"features": {"pixels": "sha256:71"}}, "feature ink_mean"),
    ],
)
def test_a_new_architecture_or_feature_source_is_material(
    tmp_path: Path, over: dict[str, Any], about: str
):
    """The reason names it, and all of the validation is done again."""
    document = composed(tmp_path, before=champion(tmp_path), record=dossiers.lineage(**over))

    assert document["materiality"]["review"] == changes.FULL
    assert about in document["materiality"]["reasons"][0]


def test_another_shape_of_the_network_is_material(tmp_path: Path):
    """Also where no source file changed: a library may have changed the network."""
    document = composed(tmp_path, before=champion(tmp_path), shapes=((3, 9), (9,)))

    assert document["materiality"]["material"]
    assert "tensor shapes" in document["materiality"]["reasons"][0]


def test_another_feature_view_is_material(tmp_path: Path):
    """A view that serves other features is another source."""
    online = {"views": [{"name": "capture_ink", "features": ["pixels"]}]}
    document = composed(tmp_path, before=champion(tmp_path), snapshot={"online.json": online})

    assert document["materiality"]["material"]


def test_what_cannot_be_shown_to_be_unchanged_is_material(tmp_path: Path):
    """No record on either side is no evidence of sameness; nor is a package without a record."""
    silent = dossiers.lineage(files={})
    held = champion(tmp_path, files={})
    old = bundles.bundle(tmp_path / "old", "package", lambda f: write_json(f / "lineage.json", {}))

    neither = composed(tmp_path, before=held, record=silent)
    nothing = composed(tmp_path, before=old)

    assert "model.py is not on record" in neither["materiality"]["reasons"][0]
    assert nothing["materiality"]["material"]


def test_who_validates_is_not_who_developed(tmp_path: Path):
    """The line of the validator says so and names the developer; the owner answers besides."""
    document = composed(tmp_path, before=None)
    lines = {s["role"]: s["stands_for"] for s in document["signatures"]}

    assert list(lines) == ["owner", "validator", "approver"]
    assert "not who developed it, ada" in lines["validator"]
    assert "committee" in lines["approver"]


def test_a_small_change_of_an_automatic_workload_needs_no_approver(tmp_path: Path):
    """Of a regulated one it does, and the record is kept as long as declared."""
    small = composed(tmp_path / "a", before=champion(tmp_path), record=dossiers.lineage(seed=43))
    automatic = changes.signatures(load("digits"), dossiers.lineage(), material=False)

    assert [s["role"] for s in small["signatures"]] == ["owner", "validator", "approver"]
    assert [s["role"] for s in automatic] == ["owner", "validator"]
    assert small["retention_days"] == 2557


def test_what_most_likely_moved_the_metric_is_told_beside_a_champion(tmp_path: Path):
    """From both packages' own records; without a profile of the data there is nothing to say."""
    snapshot = read(bundles.snapshot(tmp_path / "snapshot"))
    held = dossiers.inputs(tmp_path / "held")
    rows = profile({**held, "snapshot": snapshot})

    def fill(folder: Path) -> None:
        write_json(folder / "lineage.json", dossiers.lineage())
        write_json(folder / "profile.json", rows)
        write_json(folder / "scores.json", dossiers.scores(auc=0.5))

    champion = bundles.bundle(tmp_path / "champion", "package", fill)
    faster = dossiers.lineage(hyperparameters={"epochs": 17, "learning_rate": 0.01})
    silent = changes.likeliest(tmp_path, held, faster, champion)
    write_json(tmp_path / "profile.json", rows)
    told = changes.likeliest(tmp_path, held, faster, champion)

    assert silent is None
    assert told is not None
    assert told["headline"].startswith("auc 0.5000 → 0.7731")
    assert [(c["what"], c["was"], c["now"]) for c in told["changes"]] == [
        ("learning_rate", "0.004", "0.01")
    ]


groups = st.dictionaries(
    st.sampled_from(GROUPS), st.dictionaries(identifiers, plain_values, max_size=4), min_size=1
)


@given(before=groups, after=groups)
@settings(max_examples=40)
def test_every_difference_is_named_and_nothing_else(before: Any, after: Any):
    """A value is among the changes exactly when the two sides do not say the same of it."""
    found = {(c["group"], c["name"]) for c in changes.compare(before, after)}
    differ = {
        (group, name)
        for group in after
        for name in {*before.get(group, {}), *after[group]}
        if before.get(group, {}).get(name) != after[group].get(name)
    }

    assert found == differ
