"""Laws of stand-ins: they answer only what they may, say so, and forget in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import workload as workloads
from penstock.endpoint import Endpoint, Instead
from penstock.online import KeyColumn, Layout, ViewLayout
from penstock.register.contract import contract_of
from penstock.request import STAMP, Contract, Feature, packaged_rules
from serving import instead
from serving.answering import FAILED, Answering
from serving.instead import StandIn
from serving.reading import Asked, Names
from serving.seen import Seen
from tests.packages import make_package

CONTRACT = Contract(
    workload="test",
    classes=2,
    threshold=0.5,
    rows=64,
    features=(
        Feature(name="x", dtype="double"),
        Feature(name="amount", dtype="double"),
        Feature(name="event_timestamp", dtype=STAMP),
    ),
)
LAYOUT = Layout(
    project="p",
    service="s",
    definitions="d",
    views=(
        ViewLayout(
            name="things",
            keys=(KeyColumn(name="id", asked="id", kind="INT64"),),
            features=("x",),
            fields=("00",),
            ttl_s=None,
        ),
    ),
)
BOTH = (Instead.CACHED, Instead.RULES)


def sure(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rules that are certain of class 1."""
    n = len(next(iter(columns.values())))
    return np.tile([0.0, 1.0], (n, 1))


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def declared(layout: Layout | None = LAYOUT, **ways: Any) -> Names:
    """Return the names of the contract with an endpoint."""
    return Names(replace(CONTRACT, endpoint=Endpoint(**ways)), layout)


def asked(*ids: int, user: bytes | None = None, needs: bool = True, **sent: float) -> Asked:
    """Return a request about entities."""
    seen = Seen({} if user is None else {b"x-user-id": user})
    rows = max(1, len(ids))
    columns = {name: np.full(rows, value) for name, value in sent.items()}
    columns["event_timestamp"] = np.full(rows, round(seen.at * 1e6), np.int64)
    keys = {"id": list(ids)} if ids else {}
    return Asked(rows=rows, columns=columns, keys=keys, needs=needs, seen=seen)


def answered(request: Asked, *probabilities: float) -> Asked:
    """Return a request with the model's answer."""
    request.probability_nk = np.array([[1 - p, p] for p in probabilities])
    return request


def test_the_last_answer_to_the_same_entities_is_given_again():
    """Whatever company they come in, if all of them are known."""
    stand_in = StandIn(None, declared(lookup=("cached",)))
    stand_in.remember(answered(asked(1, 2), 0.1, 0.2))
    stand_in.remember(answered(asked(2, 3), 0.25, 0.3))

    found = asked(3, 2, 1)
    assert stand_in.answer(found, "lookup")
    assert found.probability_nk is not None
    assert found.probability_nk[:, 1].tolist() == [0.3, 0.25, 0.1]
    assert found.seen.fallbacks == ["cached"]
    unknown = asked(1, 4)
    assert not stand_in.answer(unknown, "lookup")
    assert (unknown.probability_nk, unknown.seen.fallbacks) == (None, [])
    assert not stand_in.answer(asked(1), "failed"), "it is declared for look-ups alone"


def test_an_answer_grows_too_old():
    """At its limit it still counts; past it, it does not."""
    clock = Clock()
    contract = declared(lookup=("cached",), cached_for=timedelta(seconds=60))
    stand_in = StandIn(None, contract, clock=clock)
    stand_in.remember(answered(asked(1), 0.5))

    clock.now_s += 60
    assert stand_in.answer(asked(1), "lookup")
    clock.now_s += 0.001
    assert not stand_in.answer(asked(1), "lookup")


def test_what_is_kept_has_a_bound_in_number_and_in_time(monkeypatch: pytest.MonkeyPatch):
    """The oldest make room, and nobody is remembered longer than it is of use."""
    monkeypatch.setattr(instead, "KEPT", 3)
    clock = Clock()
    stand_in = StandIn(None, declared(lookup=("cached",)), clock=clock)
    for one in (1, 2, 3, 1, 4):
        stand_in.remember(answered(asked(one), 0.5))

    known = [one for one in (1, 2, 3, 4) if stand_in.answer(asked(one), "lookup")]
    assert known == [1, 3, 4]
    clock.now_s += 601
    stand_in.remember(answered(asked(5), 0.5))
    assert len(stand_in._kept) == 1


def test_an_answer_that_something_stood_in_for_is_not_kept():
    """Else an outage would outlive itself."""
    stand_in = StandIn(sure, declared(lookup=BOTH))
    made_up = asked(1)
    assert stand_in.answer(made_up, "lookup")
    stand_in.remember(made_up)

    again = asked(1)
    assert stand_in.answer(again, "lookup")
    assert again.seen.fallbacks == ["rules"]


def test_a_clerk_does_not_get_one_client_s_answer_for_another():
    """Who asks is not whom it is about."""
    stand_in = StandIn(None, declared(failed=("cached",)))
    stand_in.remember(answered(asked(1, user=b"clerk"), 0.1))

    assert not stand_in.answer(asked(2, user=b"clerk"), "failed")
    assert stand_in.answer(asked(1, user=b"other"), "failed")


@pytest.mark.parametrize("layout", [None, LAYOUT])
def test_an_answer_is_kept_for_its_question_and_not_for_who_asked(layout: Layout | None):
    """All that was sent counts: the same user with another picture is another question."""
    stand_in = StandIn(None, declared(layout, failed=("cached",)))

    def sent(user: bytes, **other: float) -> Asked:
        made = asked(user=user, needs=False, **{"x": 1.0, "amount": 2.0} | other)
        made.columns["event_timestamp"] = np.array([int(other.get("event_timestamp", 3))])
        return made

    stand_in.remember(answered(sent(b"u"), 0.1))

    assert stand_in.answer(sent(b"u"), "failed")
    assert stand_in.answer(sent(b"v"), "failed")
    for name in ("x", "amount", "event_timestamp"):
        assert not stand_in.answer(sent(b"u", **{name: 9.0}), "failed")


def test_what_is_sent_beside_the_entities_is_part_of_the_question():
    """What was looked up is not: it cannot be known when the store is out."""
    stand_in = StandIn(None, declared(lookup=("cached",)))
    stand_in.remember(answered(asked(1, 2, amount=5.0, x=7.0), 0.1, 0.2))

    found = asked(2, amount=5.0)
    assert stand_in.answer(found, "lookup")
    assert found.probability_nk is not None
    assert found.probability_nk[:, 1].tolist() == [0.2]
    assert not stand_in.answer(asked(2, amount=5.5), "lookup")
    assert not stand_in.answer(asked(2), "lookup")


@pytest.mark.parametrize(
    "answer",
    [
        np.full((3, 2), 0.5),
        np.full((2, 3), 1 / 3),
        np.array([[0.5, 0.6]] * 2),
        np.array([[-1.0, 2.0]] * 2),
        np.array([[np.nan, 1.0]] * 2),
        None,
    ],
)
def test_rules_that_give_no_probabilities_do_not_answer(answer: Any):
    """Of other rows, other classes, sums or signs; nor those that raise."""

    def rules(columns: Mapping[str, np.ndarray]) -> np.ndarray:
        if "id" not in columns:
            return sure(columns)
        if answer is None:
            raise KeyError("x")
        return answer

    request = asked(1, 2)

    assert not StandIn(rules, declared(lookup=("rules",))).answer(request, "lookup")
    assert (request.probability_nk, request.seen.fallbacks) == (None, [])


def test_rules_that_are_declared_and_do_not_answer_are_refused_at_the_start():
    """None, and those that need a column."""
    with pytest.raises(ValueError, match="declares rules, and its package carries none"):
        StandIn(None, declared(failed=("rules",)))
    with pytest.raises(ValueError, match="do not answer where every column is missing: 'x'"):
        StandIn(lambda columns: columns["x"], declared(lookup=("rules",)))
    StandIn(None, declared(lookup=("cached",)))


class Broken:
    """A model that fails for some rows."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def infer(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Fail where x is negative."""
        if (columns["x"] < 0).any():
            raise RuntimeError("negative")
        return np.column_stack([0 * columns["x"], columns["x"]]).astype(np.float32)


def test_a_failing_model_is_made_up_for_as_declared_and_only_where_it_fails():
    """A cached answer, else the rules; whoever came with it has the model's answer."""
    contract = declared(failed=BOTH)
    stand_in = StandIn(sure, contract)
    answering = Answering(Broken(contract.contract), version="1", instead=stand_in)
    before = [asked(1, x=3.0)]
    answering.run(before)

    batch = [asked(1, x=-1.0), asked(2, x=-1.0), asked(3, x=-3.0, user=b"u"), asked(4, x=3.0)]
    answering.run(batch)

    assert [one.seen.fallbacks for one in batch] == [
        ["failed:cached"],
        ["failed:rules"],
        ["failed:rules"],
        [],
    ]
    assert [one.labels for one in batch] == [[1]] * 4
    assert batch[0].probability_nk == pytest.approx(before[0].probability_nk)
    assert all(one.seen.probability is not None for one in batch)
    nothing = [asked(2, x=-1.0)]
    Answering(Broken(contract.contract), version="1", instead=StandIn(None, declared())).run(
        nothing
    )
    assert nothing[0].refusal == (500, FAILED)


@pytest.mark.parametrize("name", workloads.known())
def test_what_a_workload_declares_it_has(name: str, tmp_path: Any):
    """Rules that a package carries answer by themselves, knowing nothing."""
    declares = workloads.load(name)
    endpoint = declares.endpoint
    rules = None
    if Instead.RULES in (*endpoint.lookup, *endpoint.failed):
        source = workloads.root() / "workloads" / name / "rules.py"
        package = make_package(
            tmp_path / "p", more=lambda folder: (folder / "rules.py").write_text(source.read_text())
        )
        rules = packaged_rules(package)

    StandIn(rules, Names(contract_of(declares), None))


CREDIT = workloads.part("credit", "rules").rules
CLICKS = workloads.part("streamrec", "rules").rules
FEW = st.one_of(st.just(float("nan")), st.integers(0, 9).map(float))


@given(FEW, FEW, st.one_of(st.just(float("nan")), st.floats(0, 1)), st.sets(st.integers(0, 2)))
def test_credit_s_rules_never_favour_who_was_later(
    late: float, count: float, repaid: float, left_out: set[int]
):
    """A month more of delay raises what they say or leaves it, whatever else is known."""
    names = ("months_late", "late_count", "repaid_share")
    held = dict(zip(names, (late, count, repaid), strict=True))
    known = {n: v for at, (n, v) in enumerate(held.items()) if at not in left_out}
    worse = {n: v + 1 if n != "repaid_share" else v for n, v in known.items()}

    first, second = (
        CREDIT({"client_id": np.array([1]), **{n: np.array([v]) for n, v in one.items()}})
        for one in (known, worse)
    )

    assert first.shape == (1, 2)
    assert first.sum() == 1
    assert second[0, 1] >= first[0, 1]
    if np.isnan(known.get("months_late", np.nan)):
        assert first[0, 1] >= workloads.load("credit").threshold, "unknown arrears are refused"


def test_credit_s_rules_agree_with_what_nobody_would_dispute():
    """The plain clients that any model must refuse or grant."""
    cases = workloads.part("credit", "behaviour").plain_clients
    columns = ("defaulted", "months_late", "late_count", "repaid_share")
    rows = cases(pa.table({name: pa.array([0.0]) for name in columns}))
    held = {name: rows[name].to_numpy() for name in columns[1:]}
    threshold = workloads.load("credit").threshold

    assert ((CREDIT(held)[:, 1] >= threshold) == rows["defaulted"].to_numpy()).all()


def test_clicks_without_a_rate_are_usual_and_with_one_are_ordered_by_it():
    """Base rates: of everything, or of the item."""
    found = CLICKS({"item_rate_24h": np.array([np.nan, 0.1, 0.4])})

    assert found[:, 1].tolist() == [0.23, 0.1, 0.4]
    assert CLICKS({"user_id": np.array([1, 2])})[:, 1].tolist() == [0.23, 0.23]
