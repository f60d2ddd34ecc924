"""Rubric: the 28 tests of the ML Test Score, in our words, and the evidence that earns each.

Source: Breck, Cai, Nielsen, Salib and Sculley (2017), *The ML Test Score: A Rubric for ML
Production Readiness and Technical Debt Reduction*, IEEE Big Data.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from penstock.register.claims import (
    Claim,
    both,
    canary_passed,
    contract_signed,
    covered,
    in_commit,
    judged_live,
    locked,
    passed,
    registered,
    released_with,
    rolled_back,
    shows,
)

CARD, SCORES = "package:card.json", "package:scores.json"
NOT_YET = "(no stage makes it yet)"
ON_RECORD = f"its result on record {NOT_YET}"


class Section(StrEnum):
    """Where a system may be weak; the weakest section is its score."""

    DATA = "data"
    MODEL = "model"
    INFRASTRUCTURE = "infrastructure"
    MONITORING = "monitoring"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One test of the rubric."""

    section: Section
    asks: str

    earn: str
    """What would earn it whole: a command, a stage or an entry."""

    whole: Claim | None = None
    """Automated, and on record for this version."""

    half: Claim | None = None
    """There is evidence, but of a part of it, of another version, or made once by hand."""


def _slices_pass(scores: Any) -> bool:
    return _slices_judged(scores) and all(s["outcome"] == "pass" for s in scores["slices"])


def _slices_judged(scores: Any) -> bool:
    """Whether every slice had rows, and there was one."""
    return bool(scores["slices"]) and all(s["n"] > 0 for s in scores["slices"])


def _all_finite(card: Any) -> bool:
    steps = card["equivalence"]
    return bool(steps) and all(s["every_slice_finite"] for s in steps)


def _limited(serving: Any) -> bool:
    """Whether a request is refused for what a feature may not be."""
    limits = ("low", "high", "among")
    return any(feature[name] is not None for feature in serving["features"] for name in limits)


def _measured(scores: Any) -> bool:
    """Whether some group was compared with another: a number, not only a name."""
    compared = ("adverse_impact_ratio", "equal_opportunity_difference")
    return any(part[name] is not None for part in scores["fairness"] for name in compared)


_DETERMINISTIC = shows(CARD, lambda c: c["training"]["certificate"]["holds"] is True)
_GATE = passed("gate")
_BUDGETS = passed("gate", "latency_|peak_memory_|cold_start_")


DATA = (
    Item(
        section=Section.DATA,
        asks="What features may be is written down and checked",
        whole=passed("data-verdict", "train: "),
        half=shows("declaration", lambda d: d["data"]["columns"]),
        earn="penstock datachecks passes, and the version is registered",
    ),
    Item(
        section=Section.DATA,
        asks="Every feature helps",
        earn=f"the loss without each feature, on record {NOT_YET}",
    ),
    Item(
        section=Section.DATA,
        asks="No feature costs more than it helps",
        earn=f"each feature's latency and storage beside its use {NOT_YET}",
    ),
    Item(
        section=Section.DATA,
        asks="Features keep the rules that are set for them",
        whole=both(passed("data-verdict", "train: no unknown columns"), contract_signed),
        half=passed("data-verdict", "train: no unknown columns"),
        earn="the owner signs the feature contract: penstock contract sign",
    ),
    Item(
        section=Section.DATA,
        asks="Personal data are protected along the whole pipeline",
        earn=f"who may read which column, and how a person is deleted {NOT_YET}",
    ),
    Item(
        section=Section.DATA,
        asks="A new feature is added quickly",
        half=covered("tests/workloads/test_how_to.py"),
        earn=ON_RECORD,
    ),
    Item(
        section=Section.DATA,
        asks="The code that makes features is tested",
        half=covered("feature tests"),
        earn=f"a test that imports its data or transform; {ON_RECORD}",
    ),
)

MODEL = (
    Item(
        section=Section.MODEL,
        asks="Every change of the model is reviewed and in version control",
        half=in_commit,
        earn=f"commit, penstock run, and another person's review on record {NOT_YET}",
    ),
    Item(
        section=Section.MODEL,
        asks="Metrics before release move with what users then get",
        half=judged_live("primary", versions=2),
        earn=f"metrics of several releases beside their outcomes {NOT_YET}",
    ),
    Item(
        section=Section.MODEL,
        asks="Hyper-parameters are tuned",
        whole=shows(CARD, lambda c: c["training"]["trials"] > 1),
        earn="declare Training.search, then penstock run",
    ),
    Item(
        section=Section.MODEL,
        asks="What a stale model costs is known",
        earn=f"quality against age, from older models on newer data {NOT_YET}",
    ),
    Item(
        section=Section.MODEL,
        asks="A simpler model is not as good",
        earn=f"a simpler model on the same holdout {NOT_YET}",
    ),
    Item(
        section=Section.MODEL,
        asks="Quality is enough on every slice that matters",
        whole=both(_GATE, shows(SCORES, _slices_pass)),
        half=both(_GATE, shows(SCORES, _slices_judged)),
        earn="declare slices and rules on them, with rows enough; penstock gate passes",
    ),
    Item(
        section=Section.MODEL,
        asks="Nobody is treated worse for who they are",
        whole=both(
            passed("gate", "adverse_impact_ratio|equal_opportunity_difference"),
            shows(SCORES, _measured),
        ),
        half=shows(SCORES, _measured),
        earn="declare sensitive attributes and fairness rules; penstock gate passes",
    ),
)

INFRASTRUCTURE = (
    Item(
        section=Section.INFRASTRUCTURE,
        asks="Training gives the same bits again",
        whole=both(_DETERMINISTIC, locked),
        half=_DETERMINISTIC,
        earn="penstock train proves it; the version's libraries are those that are locked",
    ),
    Item(
        section=Section.INFRASTRUCTURE,
        asks="The code of the model has unit tests",
        half=covered("model tests"),
        earn=f"a test that imports its model; {ON_RECORD}",
    ),
    Item(
        section=Section.INFRASTRUCTURE,
        asks="The whole pipeline has an integration test",
        half=covered("tests/pipelines/test_local.py"),
        earn=ON_RECORD,
    ),
    Item(
        section=Section.INFRASTRUCTURE,
        asks="Quality is judged before a model serves",
        whole=both(_GATE, registered),
        half=_GATE,
        earn="penstock gate passes, and penstock register puts the package into the ledger",
    ),
    Item(
        section=Section.INFRASTRUCTURE,
        asks="One example can be followed through the model, step by step",
        half=passed("equivalence"),
        earn=f"one example's values at every layer, on record {NOT_YET}",
    ),
    Item(
        section=Section.INFRASTRUCTURE,
        asks="Few users see a model before all do",
        whole=canary_passed(own=True),
        half=canary_passed(own=False),
        earn="penstock run releases it over a champion, by canary",
    ),
    Item(
        section=Section.INFRASTRUCTURE,
        asks="Users return to the model before, quickly and safely",
        whole=rolled_back,
        half=covered("tests/rollout/test_controller.py"),
        earn="a drill: penstock run NAME --break-challenger latency",
    ),
)

MONITORING = (
    Item(
        section=Section.MONITORING,
        asks="Somebody is told when a dependency changes",
        half=locked,
        earn=f"an alert on a changed source or library {NOT_YET}",
    ),
    Item(
        section=Section.MONITORING,
        asks="What holds of training data holds of requests",
        half=both(passed("data-verdict"), shows("package:serving.json", _limited)),
        earn=f"requests counted and alarmed on while it serves {NOT_YET}",
    ),
    Item(
        section=Section.MONITORING,
        asks="Training and serving compute a feature alike",
        half=shows(CARD, lambda c: c["data"]["online_compared"] > 0),
        earn=f"served features compared while it serves, on record {NOT_YET}",
    ),
    Item(
        section=Section.MONITORING,
        asks="Models do not grow too old",
        half=passed("gate", "data_age_days"),
        earn=f"age watched while it serves {NOT_YET}",
    ),
    Item(
        section=Section.MONITORING,
        asks="Numbers stay finite",
        half=both(passed("equivalence"), shows(CARD, _all_finite)),
        earn=f"answers that are no numbers alarmed on while it serves {NOT_YET}",
    ),
    Item(
        section=Section.MONITORING,
        asks="Neither latency nor memory gets worse",
        whole=both(_BUDGETS, released_with("latency")),
        half=_BUDGETS,
        earn="budgets in the policy, and a release by penstock run",
    ),
    Item(
        section=Section.MONITORING,
        asks="Quality for users does not get worse",
        half=released_with("primary"),
        earn=f"outcomes joined while it serves {NOT_YET}",
    ),
)

ITEMS = (*DATA, *MODEL, *INFRASTRUCTURE, *MONITORING)
