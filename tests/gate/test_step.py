"""Laws of the gate as a stage: what serves is scored, what does not belong is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock import gate
from penstock import workload as workloads
from penstock.bundle import STORE_VARIABLE, BundleError, read
from penstock.gate import gathered
from penstock.stage import parse, verdict_of
from penstock.verdict import Outcome
from penstock.workload import AtLeast, Sensitive, Slice, transform_file
from tests import bundles
from tests.gate.chain import PROOF, Chain

DIGITS = workloads.load("digits")
FILES = {"verdict.json", "scores.json", "behaviours.json", "report.md", "report.html"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Return one run's bundles of a model that is good enough."""
    return Chain(tmp_path_factory.mktemp("chain"))


def run(chain: Chain, out: Path, *, champion: str = "", now: datetime = bundles.NOW) -> str:
    """Run the gate on a chain and return what it says."""
    return gate.run(workload="digits", **chain.given(), champion=champion, out=out, now=now)


def checks(out: Path) -> dict[str, Outcome]:
    """Return the outcome of each check by its name."""
    return {check.name: check.outcome for check in verdict_of(read(out, kind="gate")).checks}


def test_a_good_model_is_promoted_with_all_that_was_asked_on_record(
    whole: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Earlier stages, the policy and every behaviour; the line names the task's metric."""
    out = tmp_path / "out"

    assert run(whole, out) == "promote"
    bundle = read(out, kind="gate")
    assert set(bundle.manifest["files"]) == FILES
    asked = checks(out)
    assert {"data-verdict", "equivalence", "determinism"} < set(asked)
    kinds = [b["kind"] for b in bundle.json("behaviours.json")]
    assert kinds == ["invariance", "invariance", "minimum functionality"]
    assert sum(name.startswith(("invariance: ", "minimum functionality: ")) for name in asked) == 3
    said = parse(capsys.readouterr().out)
    assert said is not None
    assert said.line.startswith("accuracy 0.97")
    assert "on 600 holdout rows against no champion yet" in said.line
    first = (out / "report.md").read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# Promote: {len(asked)} of {len(asked)} checks passed"


def test_a_bad_model_is_rejected_and_the_report_says_why(tmp_path: Path):
    """It does not raise: a rejection is a result."""
    bad = Chain(tmp_path, wrong=700)

    assert run(bad, tmp_path / "out") == "reject"
    verdict = verdict_of(read(tmp_path / "out", kind="gate"))
    assert verdict.outcome is Outcome.FAIL
    first = (tmp_path / "out" / "report.md").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# Reject: ")


@pytest.mark.parametrize(
    ("wrong", "outcome"), [(0, Outcome.PASS), (250, Outcome.FAIL)], ids=["as good", "worse"]
)
def test_the_champion_is_scored_on_the_same_holdout(
    whole: Chain, tmp_path: Path, wrong: int, outcome: Outcome
):
    """The same graph is no worse than itself; a spoiled one is."""
    champion = whole.package(tmp_path / "package")
    challenger = Chain(tmp_path / "chain", wrong=wrong)

    run(challenger, tmp_path / "out", champion=str(champion))

    scores = read(tmp_path / "out", kind="gate").json("scores.json")["metrics"]["accuracy"]
    assert scores["champion"]["value"] > 0.96
    assert (scores["difference"]["value"] < -0.02) == (outcome is Outcome.FAIL)
    compared = [o for n, o in checks(tmp_path / "out").items() if n.startswith("accuracy no worse")]
    assert outcome in compared


def test_an_earlier_stage_that_failed_rejects(tmp_path: Path):
    """Whatever the scores say."""
    chain = Chain(tmp_path, ladder="fail")

    assert run(chain, tmp_path / "out") == "reject"
    assert checks(tmp_path / "out")["equivalence"] is Outcome.FAIL


def test_a_budget_that_was_not_measured_rejects(tmp_path: Path):
    """No evidence is never a pass."""
    chain = Chain(tmp_path, budget={"problem": "measuring ended with 1"})

    assert run(chain, tmp_path / "out") == "reject"
    assert Outcome.ERROR in checks(tmp_path / "out").values()


def test_inputs_of_two_runs_are_refused(whole: Chain, tmp_path: Path):
    """An engine of another run's graph says nothing of this one's cost."""
    other = Chain(tmp_path / "other", name="another run")

    with pytest.raises(BundleError, match="not of one chain"):
        gate.run(
            workload="digits",
            **{**whole.given(), "engine": other.made["engine"]},
            champion="",
            out=tmp_path / "out",
            now=bundles.NOW,
        )
    assert not (tmp_path / "out").exists()


def test_a_champion_that_was_altered_is_refused(whole: Chain, tmp_path: Path):
    """Its scores would be anybody's."""
    package = whole.package(tmp_path / "package")
    (package / "serving.json").write_text("{}")

    with pytest.raises(BundleError, match="was altered"):
        run(whole, tmp_path / "out", champion=str(package))


def test_a_champion_that_cannot_be_scored_is_an_error(whole: Chain, tmp_path: Path):
    """A graph of other inputs is no champion to be no worse than, and none is not a pass."""
    champion = bundles.bundle(tmp_path / "package", "package", _other_inputs).path

    assert run(whole, tmp_path / "out", champion=str(champion)) == "reject"
    asked = checks(tmp_path / "out")
    assert asked["champion"] is Outcome.ERROR
    assert {o for name, o in asked.items() if "no worse" in name} == {Outcome.ERROR}
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "A champion serves and could not be scored" in page
    assert "no champion" not in page


def test_a_champion_is_scored_through_the_transform_it_was_trained_with(
    whole: Chain, tmp_path: Path
):
    """Today's has the same shape and other numbers: any challenger would beat what it makes."""
    rows = pq.read_table(whole.made["snapshot"] / "holdout.parquet")
    today = transform_file("digits").read_text(encoding="utf-8")
    turned = f"{today}\n_given = training_input\ndef training_input(rows): return -_given(rows)\n"
    mine, other, none = (
        read(whole.package(tmp_path / name, transform=source), kind="package")
        for name, source in (("mine", today), ("other", turned), ("none", "import nothing"))
    )

    scored = gathered.champion(mine, DIGITS, rows)
    opposite = gathered.champion(other, DIGITS, rows)

    assert scored.right_n.mean() > 0.5
    assert opposite.right_n.mean() < scored.right_n.mean() / 2
    assert read(other.path).digest == other.digest, "scoring leaves the package as it is"
    with pytest.raises(gathered.Unscored, match="it cannot be run on the holdout"):
        gathered.champion(none, DIGITS, rows)


def _other_inputs(folder: Path) -> None:
    import onnx  # noqa: PLC0415 - seconds to import

    from tests.gate.chain import graph  # noqa: PLC0415

    model = graph()
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 9
    onnx.save(model, folder / "model.onnx")
    (folder / "serving.json").write_text("{}")
    shutil.copy(transform_file("digits"), folder / "transform.py")


def test_a_champion_keeps_its_own_threshold(whole: Chain, tmp_path: Path):
    """Of another package's contract; one that says nothing has the workload's."""
    rows = pq.read_table(whole.made["snapshot"] / "holdout.parquet")
    declared = replace(DIGITS, threshold=None)

    silent = read(whole.package(tmp_path / "silent"), kind="package")
    telling = read(whole.package(tmp_path / "telling", threshold=None), kind="package")

    assert gathered.champion(silent, declared, rows).threshold is None
    assert gathered.champion(telling, declared, rows).threshold is None
    two = read(whole.package(tmp_path / "two", threshold=0.3), kind="package")
    with pytest.raises(gathered.Unscored, match="2 where there is a threshold"):
        gathered.champion(two, declared, rows)


@pytest.mark.parametrize("reuse", [False, True], ids=["anew", "kept"])
def test_a_verdict_does_not_speak_for_data_that_have_grown_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reuse: bool
):
    """A kept verdict is found again within a day of the data's age, and not on a later one."""
    if reuse:
        monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))
    monkeypatch.setattr(workloads, "load", lambda _: replace(DIGITS, recorded=False))
    chain = Chain(tmp_path / "chain")
    newest = datetime(2026, 1, 5, 17, 59, tzinfo=UTC)

    for days in (1, 40):
        run(chain, tmp_path / f"out{days}", now=newest + timedelta(days=days))

    young, old = (checks(tmp_path / f"out{days}") for days in (1, 40))
    (name,) = {n for n in young if young[n] is not old[n]}
    assert "age" in name
    assert (young[name], old[name]) == (Outcome.PASS, Outcome.FAIL)


def snapshot(path: Path, **over: Any):
    """Return a snapshot bundle."""
    return read(bundles.snapshot(path, **{"proof": PROOF, **over}), kind="snapshot")


def test_a_few_fresh_rows_make_no_old_data_young(tmp_path: Path):
    """Nine rows in ten decide: one of a hundred of today, or nine, changes nothing; eleven do."""
    live = replace(DIGITS, recorded=False)
    for fresh, days in ((1, 50), (9, 50), (11, 0)):
        times = [bundles.NOW - timedelta(days=50)] * (100 - fresh) + [bundles.NOW] * fresh
        rows = pa.table({"event_timestamp": times, "label": [0] * 100})
        made = snapshot(tmp_path / str(fresh), train=rows)

        assert gathered.data_age_days(live, made, now=bundles.NOW) == days


def test_recorded_data_are_as_old_as_when_they_were_taken(tmp_path: Path):
    """They get no newer, and no older; others age with the clock, each begun day counted."""
    taken, day = datetime.fromisoformat(PROOF["as_of"]), timedelta(days=1)
    rows = pa.table({"event_timestamp": [taken - 1.5 * day] * 10, "label": [0] * 10})
    made, live = snapshot(tmp_path / "snapshot", train=rows), replace(DIGITS, recorded=False)

    for later in (taken, taken + 900 * day):
        assert gathered.data_age_days(DIGITS, made, now=later) == 2
    assert gathered.data_age_days(live, made, now=taken + day) == 3
    assert gathered.data_age_days(live, made, now=taken - 1.5 * day) == 0


def test_an_age_that_nobody_can_tell_is_none(tmp_path: Path):
    """A recording that does not say when it was taken has no age; from the future is refused."""
    silent = snapshot(tmp_path / "snapshot", proof=bundles.PROOF)
    live = replace(DIGITS, recorded=False)

    assert gathered.data_age_days(DIGITS, silent, now=bundles.NOW) is None
    with pytest.raises(BundleError, match="later than"):
        gathered.data_age_days(live, silent, now=bundles.NOW)


GROUPS = (
    Sensitive(
        name="hand",
        groups=(
            Slice(name="left", column="hand", among=("left",)),
            Slice(name="right", column="hand", among=("right",)),
        ),
    ),
)


HANDED = replace(
    DIGITS,
    classes=2,
    threshold=0.5,
    sensitive=GROUPS,
    gate=(AtLeast(metric="adverse_impact_ratio", value=0.8),),
)


def test_groups_are_joined_by_key_whatever_the_order():
    """Each row has the attributes of its own entity; what is not known is in no group."""
    rows = pa.table({"id": [3, 1, 2, 1], "label": [0, 1, 0, 1]})
    held = pa.table({"id": [1, 2, 3], "hand": ["left", None, "right"]})

    assert gathered.joined(rows, held)["hand"].to_pylist() == ["right", "left", None, "left"]


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"id": [1, 1, 2, 3], "hand": ["left"] * 4}, "'id' twice"),
        ({"id": [1, 2], "hand": ["left"] * 2}, "no row for 1 of 4 holdout rows"),
        ({"other": [1, 2, 3], "hand": ["left"] * 3}, "keyed by 'other', which the holdout has not"),
    ],
)
def test_attributes_of_other_rows_are_refused(held: dict[str, Any], said: str):
    """A group that lost rows on the way would look fairer, or less fair, than it is."""
    rows = pa.table({"id": [3, 1, 2, 1], "label": [0, 1, 0, 1]})

    with pytest.raises(BundleError, match=said):
        gathered.joined(rows, pa.table(held))


def test_groups_may_be_of_a_column_of_the_holdout_itself(tmp_path: Path):
    """Where no attributes are kept apart; every declared group has its rows."""
    whole = bundles.rows().slice(1197)
    hands = np.where(np.arange(len(whole)) % 3 == 0, "left", "right")
    rows = whole.append_column("hand", pa.array(hands))
    found = gathered.groups(HANDED, snapshot(tmp_path / "snapshot"), rows)

    assert list(found) == ["hand"]
    assert {name: int(held.sum()) for name, held in found["hand"].items()} == {
        "left": 200,
        "right": 400,
    }


def test_a_column_that_is_nowhere_is_refused(tmp_path: Path):
    """It names the column, and those that there are."""
    with pytest.raises(ValueError, match=r"looks at column 'hand'; the rows have"):
        gathered.groups(HANDED, snapshot(tmp_path / "snapshot"), bundles.rows().slice(1197))
