"""Laws of the promotion contract: everything or nothing, and all that is missing is named."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.bundle import Bundle
from penstock.ledger import Ledger, LedgerError, Stage, stage_of
from penstock.register import featurecontract, promotion
from penstock.register.promotion import REQUIREMENTS, Given, admit, missing
from penstock.stage import Refused
from penstock.workload import Approval, AtLeast, NoWorse, Rule, Slice, Workload, load
from tests.bundles import NOW
from tests.people import person
from tests.register.admitted import CHECK, documents, evidence, package, registered

DIGITS = load("digits")
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """What there is for a version that lacks nothing."""
    ledger = Ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}")
    contract = documents(DIGITS)["contract.json"]
    featurecontract.sign(ledger, DIGITS, contract, actor=person(), now=NOW)
    entries = ledger.entries("digits")
    held = Given(
        documents=documents(DIGITS),
        digest=DIGEST,
        declared=DIGITS,
        entries=entries,
        standing=featurecontract.standings(ledger),
        evidence=evidence(DIGEST),
    )
    ledger.close()
    return held


def without(document: Any, path: str) -> None:
    """Take away what a dotted path names."""
    *above, last = path.split(".")
    for step in above:
        document = document[step]
    del document[last]


def with_value(document: Any, path: str, value: Any) -> None:
    """Put a value where a dotted path says."""
    *above, last = path.split(".")
    for step in above:
        document = document[step]
    document[last] = value


FAILED = {**CHECK, "outcome": "fail"}

TAKEN: dict[str, list[tuple[str, str, Any]]] = {
    "signed feature contract": [
        ("contract.json", "", None),
        ("contract.json", "definitions", None),
        ("contract.json", "schema", []),
        ("contract.json", "definitions", "sha256:other"),
        ("contract.json", "holder", "somebody else"),
        ("entries", "", None),
        ("standing", "", None),
    ],
    "data lineage hash": [
        ("lineage.json", "data", None),
        ("lineage.json", "data_digest", ""),
        ("lineage.json", "data_digest", "not a hash"),
    ],
    "verdicts": [
        ("verdicts/gate.json", "", None),
        ("verdicts/equivalence.json", "outcome", "inconclusive"),
        ("verdicts/data-verdict.json", "outcome", "error"),
        ("verdicts/data-verdict.json", "checks", []),
        ("verdicts/gate.json", "checks", [FAILED]),
        ("evidence", "verdicts", {}),
        ("evidence", "verdicts.gate", ""),
    ],
    "compared with the champion": [
        ("lineage.json", "artifacts", None),
        ("lineage.json", "digests", None),
        ("lineage.json", "artifacts.champion", "digits-package"),
        ("lineage.json", "digests.champion", "sha256:another"),
    ],
    "slice metrics": [
        ("scores.json", "", None),
        ("scores.json", "slices", []),
        ("scores.json", "slices.last", None),
        ("scores.json", "slices.outcome", None),
        ("scores.json", "slices.challenger", None),
        ("scores.json", "slices.outcome", "inconclusive"),
        ("scores.json", "slices.outcome", "fail"),
    ],
    "canary policy with rollback criteria": [
        ("lineage.json", "policy", {}),
        ("lineage.json", "policy.rollout.canary_percents", []),
        ("lineage.json", "policy.rollout.max_error_share", None),
        ("lineage.json", "policy.rollout.soak", 1.0),
    ],
    "named owner": [
        ("lineage.json", "owner", None),
        ("lineage.json", "owner", " "),
        ("lineage.json", "owner", "somebody else"),
    ],
    "infra validation": [
        ("evidence", "infra", None),
        ("evidence", "infra.outcome", "fail"),
        ("evidence", "infra.checks", []),
        ("evidence", "infra.checks", [FAILED]),
        ("evidence", "infra.package", "sha256:another"),
    ],
}
"""Of each requirement, ways to lack it: document, where in it, and what stands there instead."""


def take(held: Given, document: str, path: str, value: Any) -> Given:
    """Return the same with something taken away or put otherwise."""
    if document in ("entries", "standing"):
        return replace(held, **{document: [] if document == "entries" else {}})
    copied = copy.deepcopy(dict(held.documents))
    found = copy.deepcopy(dict(held.evidence))
    if document == "evidence":
        with_value(found, path, value)
    elif path == "":
        del copied[document]
    elif path == "slices.last":
        copied[document]["slices"].pop()
    elif path in ("slices.outcome", "slices.challenger"):
        copied[document]["slices"][3][path.partition(".")[2]] = value
    else:
        with_value(copied[document], path, value)
    return replace(held, documents=copied, evidence=found)


def names(lacking: list[str]) -> list[str]:
    """Return which requirements the sentences are about."""
    return [sentence.partition(":")[0] for sentence in lacking]


def test_a_version_that_has_everything_lacks_nothing(signed: Given):
    """The base of the laws below."""
    assert missing(signed) == []


ways = st.fixed_dictionaries({}, optional={n: st.sampled_from(w) for n, w in TAKEN.items()})


@given(ways)
def test_whatever_is_taken_away_is_named_and_nothing_else(
    signed: Given, taken: Mapping[str, tuple[str, str, Any]]
):
    """Any subset of the requirements, each lacking in any way: exactly those are named."""
    held = signed
    for way in taken.values():
        held = take(held, *way)

    lacking = missing(held)

    assert names(lacking) == [n for n in REQUIREMENTS if n in taken]


def test_every_requirement_has_ways_to_lack_it():
    """A requirement added to the contract is added to the law."""
    assert set(TAKEN) == set(REQUIREMENTS)


def test_nothing_at_all_lacks_everything():
    """No evidence is never a pass."""
    nothing = Given(documents={}, digest="", declared=DIGITS, entries=[], standing={}, evidence={})

    assert names(missing(nothing)) == list(REQUIREMENTS)


def test_slices_are_asked_by_every_metric_and_only_where_the_policy_asks(signed: Given):
    """A declared slice that nobody judged is missing; a policy without slices asks for none."""
    more = replace(DIGITS, slices=(Slice(name="dark", column="ink_mean", low=8),))
    plain = replace(DIGITS, gate=tuple(r for r in DIGITS.gate if not getattr(r, "slices", False)))

    asked = missing(replace(signed, declared=more))
    unasked = missing(take(replace(signed, declared=plain), "scores.json", "slices", []))

    assert names(asked) == ["slice metrics"]
    assert "accuracy of dark was not measured" in asked[0]
    assert unasked == []


def test_slices_that_are_declared_are_held_to_something(signed: Given):
    """A part that somebody named and no rule asks of is missing; where none is there, it is said.

    A workload of two classes has no slices but those it declares.
    """
    rules = tuple(r for r in DIGITS.gate if not getattr(r, "slices", False))
    part = Slice(name="dark", column="ink_mean", low=8)
    named = replace(DIGITS, gate=rules, slices=(part,))
    binary = replace(DIGITS, gate=rules, classes=2, threshold=0.5)

    assert names(missing(replace(signed, declared=named))) == ["slice metrics"]
    assert missing(replace(signed, declared=binary)) == []
    found = promotion.fingerprints(replace(signed, declared=binary))
    assert found["slices"].startswith("none: the workload declares no slices")


FIRST = {"accuracy": {"challenger": {"value": 0.96}, "champion": None}}


@pytest.mark.parametrize(
    ("rules", "metrics", "lets_in"),
    [
        ((NoWorse(metric="accuracy", margin=0.1, slices=True),), FIRST, True),
        ((NoWorse(metric="accuracy", margin=0.1, slices=True),), {}, False),
        ((AtLeast(metric="accuracy", value=0.5, slices=True),), FIRST, False),
        (
            (
                NoWorse(metric="accuracy", margin=0.1, slices=True),
                AtLeast(metric="accuracy", value=0.5, slices=True),
            ),
            FIRST,
            False,
        ),
    ],
    ids=["compared with nobody", "nobody says so", "held to a floor", "both"],
)
def test_the_first_model_is_compared_with_nobody_on_its_slices(
    signed: Given, rules: tuple[Rule, ...], metrics: dict[str, Any], lets_in: bool
):
    """A slice that was only to be compared has no outcome without a champion; any other must."""
    scores = copy.deepcopy(signed.documents["scores.json"])
    for part in scores["slices"]:
        part["outcome"] = None
    documents = {**signed.documents, "scores.json": {**scores, "metrics": metrics}}
    held = replace(signed, declared=replace(DIGITS, gate=rules), documents=documents)

    assert (missing(held) == []) == lets_in


def test_where_a_person_signs_a_pipeline_s_signature_does_not_count(signed: Given):
    """The same entry by the same actor: enough by the role of owner, not by that of pipeline."""
    regulated = replace(DIGITS, approval=Approval.PERSON)
    ((signer, stands),) = signed.standing.items()

    def lacking(declared: Workload, role: str) -> list[str]:
        now = {signer: replace(stands, roles=frozenset({role}))}
        return names(missing(replace(signed, declared=declared, standing=now)))

    assert lacking(DIGITS, "pipeline") == lacking(DIGITS, "owner") == []
    assert lacking(regulated, "owner") == []
    assert lacking(regulated, "pipeline") == ["signed feature contract"]
    assert lacking(DIGITS, "validator") == ["signed feature contract"]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in a file."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield held
    held.close()


def test_what_has_everything_enters_staging_with_its_evidence(tmp_path: Path, ledger: Ledger):
    """The move holds fingerprints of package, contract, data, verdicts and infra validation."""
    packaged = package(tmp_path / "p", documents(DIGITS))
    registered(ledger, packaged)
    contract = packaged.json("contract.json")
    featurecontract.sign(ledger, DIGITS, contract, actor=person(), now=NOW)

    entry = admit(packaged, DIGITS, ledger, version=1, actor=person(), now=NOW)

    assert stage_of(ledger.entries("digits"), 1) is Stage.STAGING
    assert entry.body["evidence"] == {
        "package": packaged.digest,
        "contract": featurecontract.digest_of(contract),
        "data": "sha256:da7a",
        "infra": "sha256:1f7a",
        "verdicts": {kind: f"sha256:{kind}" for kind in promotion.VERDICTS},
        "champion": None,
        "slices": {"accuracy": 10},
    }


def test_a_refusal_lists_all_that_is_missing_and_moves_nothing(tmp_path: Path, ledger: Ledger):
    """One sentence with every requirement that is not met, and what to do; it stays at NONE."""
    held = documents(DIGITS)
    held["lineage.json"]["owner"] = None
    packaged = package(tmp_path / "p", {**held, "scores.json": None})
    registered(ledger, packaged, evidence={})

    with pytest.raises(Refused) as refusal:
        admit(packaged, DIGITS, ledger, version=1, actor=person(), now=NOW)

    text = str(refusal.value)
    assert "5 of 8 requirements are not met" in text
    assert "\n" not in text
    for part in ("penstock contract sign digits", "class 9 was not measured", "declare an owner",
                 "the ledger has no digest of gate", "no server has answered"):  # fmt: skip
        assert part in text
    assert stage_of(ledger.entries("digits"), 1) is Stage.NONE


def test_evidence_of_one_version_lets_in_no_other(tmp_path: Path, ledger: Ledger):
    """The infra validation of other bytes is none; a version that was never registered has none."""
    packaged = package(tmp_path / "p", documents(DIGITS))
    other = package(tmp_path / "q", {**documents(DIGITS), "scores.json": {"slices": [], "n": 1}})
    registered(ledger, packaged)
    featurecontract.sign(ledger, DIGITS, packaged.json("contract.json"), actor=person(), now=NOW)

    with pytest.raises(Refused, match="of a package with other bytes"):
        admit(other, DIGITS, ledger, version=1, actor=person(), now=NOW)
    with pytest.raises(Refused, match="no server has answered"):
        admit(packaged, DIGITS, ledger, version=2, actor=person(), now=NOW)


def champion_of(ledger: Ledger, folder: Path) -> Bundle:
    """Register version 9 and carry it to all users."""
    packaged = package(folder / "champion", {**documents(DIGITS), "scores.json": None})
    registered(ledger, packaged, version=9)
    for to in (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION):
        ledger.move(workload="digits", version=9, to=to, reason="t", actor=person(), now=NOW)
    return packaged


def test_only_what_was_compared_with_the_present_champion_is_let_in(tmp_path: Path, ledger: Ledger):
    """By fingerprint and by digest: compared with nobody, another, or other bytes it stays out."""
    serving = champion_of(ledger, tmp_path)
    right = {"artifacts": serving.fingerprint, "digests": serving.digest}
    wrong = (
        {},
        {**right, "artifacts": "digits-another"},
        {**right, "digests": "sha256:other bytes"},
        right,
    )
    for version, said in enumerate(wrong, start=1):
        held = documents(DIGITS)
        for name, value in said.items():
            held["lineage.json"][name]["champion"] = value
        packaged = package(tmp_path / f"p{version}", held)
        registered(ledger, packaged, version=version)
        contract = packaged.json("contract.json")
        featurecontract.sign(ledger, DIGITS, contract, actor=person(), now=NOW)
        if said is right:
            admit(packaged, DIGITS, ledger, version=version, actor=person(), now=NOW)
            continue
        with pytest.raises(Refused, match=r"1 of 8.*compared with the champion:.*gate again"):
            admit(packaged, DIGITS, ledger, version=version, actor=person(), now=NOW)

    entries = ledger.entries("digits")
    assert [stage_of(entries, n) for n in (1, 2, 3, 4)] == [Stage.NONE] * 3 + [Stage.STAGING]
    assert entries[-1].body["evidence"]["champion"] == serving.fingerprint


class Meanwhile:
    """A ledger in which something happens after it was read."""

    def __init__(self, real: Ledger, happens: Callable[[], object]) -> None:
        self._real, self._happens = real, happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def entries(self, workload: str) -> Any:
        found = self._real.entries(workload)
        happens, self._happens = self._happens, lambda: None
        happens()
        return found


def test_a_champion_that_changes_during_the_admission_is_noticed(tmp_path: Path, ledger: Ledger):
    """What was decided on another state of the ledger is decided again."""
    packaged = package(tmp_path / "p", documents(DIGITS))
    registered(ledger, packaged)
    contract = packaged.json("contract.json")
    featurecontract.sign(ledger, DIGITS, contract, actor=person(), now=NOW)
    slow: Any = Meanwhile(ledger, lambda: champion_of(ledger, tmp_path))

    with pytest.raises(Refused, match="compared with nobody, and version 9"):
        admit(packaged, DIGITS, slow, version=1, actor=person(), now=NOW)

    assert stage_of(ledger.entries("digits"), 1) is Stage.NONE


def test_a_version_is_let_in_once(tmp_path: Path, ledger: Ledger):
    """What stands in STAGING already is not moved there again."""
    packaged = package(tmp_path / "p", documents(DIGITS))
    registered(ledger, packaged)
    contract = packaged.json("contract.json")
    featurecontract.sign(ledger, DIGITS, contract, actor=person(), now=NOW)
    admit(packaged, DIGITS, ledger, version=1, actor=person(), now=NOW)

    with pytest.raises(LedgerError, match="STAGING"):
        admit(packaged, DIGITS, ledger, version=1, actor=person(), now=NOW)
