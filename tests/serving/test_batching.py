"""Laws of batching: company changes no answer, nobody waits for it, and the old are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import workload as workloads
from penstock.register.contract import contract_of
from penstock.request import instances, v1_request
from serving.answering import FAILED, NO_FEATURES, Answering, softmax
from serving.batching import TOO_OLD, Batching
from serving.faults import Fault
from serving.package import Served
from serving.reading import Asked, Names, of_instances
from serving.seen import Seen
from tests.serving import tables

NAME = "streamrec"
CONTRACT = contract_of(workloads.load(NAME))
NAMES = Names(CONTRACT, None)
ROWS = tables.rows(CONTRACT, 60, seed=5)

AT_EASE: dict[str, Any] = {"timeout_ms": 60_000, "clock": lambda: 0.0}
"""Nobody grows old."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A real package, loaded once."""
    return Served(tables.make_package(tmp_path_factory.mktemp("batching") / "package", NAME).path)


def asked_for(first: int, count: int, **over: float) -> Asked:
    """Return a request for some of the rows, with columns of it replaced."""
    sent = instances(CONTRACT, ROWS.slice(first, count))
    asked = of_instances(NAMES, v1_request(CONTRACT, sent), Seen({}))
    for name, value in over.items():
        asked.columns[name] = np.full(count, value)
    return asked


def together(batching: Batching, batch: Sequence[Asked]) -> None:
    """Ask for all at once."""

    async def all_of_them() -> None:
        await asyncio.gather(*map(batching.answer, batch))

    asyncio.run(all_of_them())


class Noted:
    """Notes the batches that it is asked to run."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, batch: Sequence[Asked]) -> None:
        """Note how many rows each request has."""
        self.batches.append([asked.rows for asked in batch])


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)), min_size=1, max_size=20),
    st.integers(1, 64),
)
def test_an_answer_does_not_depend_on_the_company(
    served: Served, parts: list[tuple[int, int]], most: int
):
    """Alone, in pairs or in crowds, a row gets the same probabilities and the same label."""
    run = Answering(served, version="1").run
    alone, crowd = ([asked_for(*part) for part in parts] for _ in range(2))

    for asked in alone:
        run([asked])
    together(Batching(run, most=most, **AT_EASE), crowd)

    for one, other in zip(alone, crowd, strict=True):
        assert one.probability_nk is not None
        assert other.probability_nk is not None
        np.testing.assert_allclose(other.probability_nk, one.probability_nk, atol=1e-6)
        assert (one.labels, one.rows) == (other.labels, len(other.probability_nk))
        assert one.seen.label == other.seen.label


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(2, 40))
def test_who_comes_together_is_run_together_up_to_the_bound(rows: list[int], most: int):
    """Order is kept, no batch exceeds the bound but a request that does so alone, none is split."""
    noted = Noted()

    together(Batching(noted, most=most, **AT_EASE), [asked_for(0, n) for n in rows])

    assert [n for batch in noted.batches for n in batch] == rows
    for batch, following in zip(noted.batches, [*noted.batches[1:], [most]], strict=True):
        assert sum(batch) <= most or len(batch) == 1
        assert sum(batch) + following[0] > most


def test_nobody_waits_for_company():
    """A request that comes alone is run in the loop's next turn, before any timer could end."""
    noted = Noted()
    batching = Batching(noted, most=64, **AT_EASE)

    async def one_after_another() -> None:
        for _ in range(3):
            answered = asyncio.ensure_future(batching.answer(asked_for(0, 1)))
            for _ in range(3):
                await asyncio.sleep(0)
            assert answered.done()

    asyncio.run(one_after_another())

    assert noted.batches == [[1], [1], [1]]


def test_without_batching_each_runs_by_itself():
    """Where it does not pay, a bound of one runs every request at once and alone."""
    noted = Noted()

    together(Batching(noted, most=1, **AT_EASE), [asked_for(0, n) for n in (1, 3, 1)])

    assert noted.batches == [[1], [3], [1]]


@pytest.mark.parametrize("most", [1, 64])
def test_a_request_that_is_too_old_is_refused(most: int):
    """It waited longer than it may: 503, and the model does not work for it."""
    noted = Noted()
    batching = Batching(noted, most=most, timeout_ms=1000, clock=lambda: 10.0)
    batch = [asked_for(0, n) for n in (1, 2, 3)]
    for asked, begun_s in zip(batch, (8.9, 9.1, 10.0), strict=True):
        asked.begun_s = begun_s

    together(batching, batch)

    assert [asked.refusal for asked in batch] == [(503, TOO_OLD), None, None]
    assert sorted(n for run in noted.batches for n in run) == [2, 3]


@pytest.mark.parametrize("most", [1, 2])
def test_time_passes_between_batches(most: int):
    """What waits behind slow batches grows old there, and is refused when its turn comes."""
    now_s = [0.0]

    def slow(_batch: Sequence[Asked]) -> None:
        now_s[0] += 0.6

    batch = [asked_for(0, 2) for _ in range(3)]
    together(Batching(slow, most=most, timeout_ms=1000, clock=lambda: now_s[0]), batch)

    assert [asked.refusal for asked in batch] == [None, None, (503, TOO_OLD)]


def test_a_failure_of_what_answers_leaves_nobody_waiting():
    """Whoever was in the batch goes on, and so does whoever waits behind it."""
    ran: list[int] = []

    def fails(batch: Sequence[Asked]) -> None:
        ran.append(len(batch))
        raise RuntimeError("no")

    async def ask_all() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        await asyncio.wait_for(asyncio.gather(*map(batching.answer, batch)), 5)

    batch = [asked_for(0, 1) for _ in range(3)]
    batching = Batching(fails, most=2, **AT_EASE)
    asyncio.run(ask_all())

    assert ran == [2, 1]
    assert batching.waiting == 0


def test_an_answer_that_cannot_be_noted_fails_alone(served: Served):
    """A fault that raises where a label is noted refuses its request and no other."""

    class Broken(Fault):
        def label(self, label: int, classes: int, request_id: str) -> int:
            if request_id == "bad":
                raise RuntimeError("label")
            return label

    good, bad = asked_for(0, 1), asked_for(1, 1)
    bad.seen.request_id = "bad"
    fault = Broken.of("accuracy", on="all")
    Answering(served, version="1", fault=fault).run([bad, good])

    assert (bad.refusal, good.refusal) == ((500, FAILED), None)
    assert good.seen.label is not None


def test_a_look_up_that_breaks_is_stood_in_for(served: Served):
    """As one that fails in a known way: the declared stand-in answers, not the model's."""

    class Broken:
        def complete(self, _batch: Sequence[Asked]) -> None:
            raise KeyError("limit")

    class Stands:
        def remember(self, asked: Asked) -> None: ...

        def answer(self, asked: Asked, why: str) -> bool:
            asked.probability_nk = np.array([[0.25, 0.75]])
            asked.seen.fallbacks.append(why)
            return True

    needing, other = asked_for(0, 1), asked_for(1, 1)
    needing.needs = True
    Answering(served, version="1", features=Broken(), instead=Stands()).run([needing, other])

    assert (needing.refusal, other.refusal) == (None, None)
    assert (needing.seen.fallbacks, other.seen.fallbacks) == (["lookup"], [])
    assert needing.seen.label == [1]


def test_a_client_that_left_spoils_nothing():
    """The request of one who hung up is run with the others, and those are answered."""
    noted = Noted()
    batching = Batching(noted, most=64, **AT_EASE)

    async def one_leaves() -> None:
        waits = [asyncio.ensure_future(batching.answer(asked_for(0, n))) for n in (1, 2)]
        await asyncio.sleep(0)
        waits[0].cancel()
        await waits[1]

    asyncio.run(one_leaves())

    assert noted.batches == [[1, 2]]
    assert batching.waiting == 0


class Picky:
    """A real package's model that cannot bear one value."""

    def __init__(self, served: Served, answer: float | None = None) -> None:
        self._served, self._answer, self.contract = served, answer, served.contract

    def infer(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        """Return logits; fail, or answer nonsense, where a tenure is 666."""
        hit = columns["tenure_days"] == 666
        if hit.any() and self._answer is None:
            raise RuntimeError("the beast")
        logits = self._served.infer(columns)
        if hit.any():
            logits[hit] = self._answer
        return logits


@pytest.mark.parametrize("answer", [None, float("nan"), float("inf")])
def test_a_model_fails_for_the_requests_it_fails_for(served: Served, answer: float | None):
    """In a batch, those whose own rows break the model get 500; the others get their answers."""
    sound = [asked_for(n, 2) for n in range(4)]
    broken = [asked_for(5, 1, tenure_days=666), asked_for(6, 1, tenure_days=666)]
    batch = [sound[0], broken[0], *sound[1:3], broken[1], sound[3]]

    together(Batching(Answering(Picky(served, answer), version="1").run, most=64, **AT_EASE), batch)

    assert [asked.refusal for asked in broken] == [(500, FAILED)] * 2
    assert all(asked.labels is None for asked in broken)
    assert [asked.refusal for asked in sound] == [None] * 4
    assert all(asked.seen.label is not None for asked in sound)


class Broken:
    """Looks nothing up, and says so in the worst way."""

    def complete(self, batch: Sequence[Asked]) -> None:
        """Raise."""
        raise RuntimeError("store.py, line 3")


def test_whatever_a_part_raises_is_an_answer(served: Served):
    """A mistake in looking up ends in 500 for those that needed it, and nobody waits for ever."""
    needing, other = asked_for(0, 1), asked_for(1, 1)
    needing.needs = True

    run = Answering(served, version="1", features=Broken()).run
    together(Batching(run, most=1, **AT_EASE), [needing, other])

    assert (needing.refusal, other.refusal) == ((503, NO_FEATURES), None)


class Rules:
    """Stands in for a model that fails."""

    def __init__(self) -> None:
        self.remembered: list[Asked] = []

    def remember(self, asked: Asked) -> None:
        """Note what is to be kept."""
        self.remembered.append(asked)

    def answer(self, asked: Asked, why: str) -> bool:
        """Answer that nobody clicks."""
        asked.probability_nk = np.tile([0.9, 0.1], (asked.rows, 1))
        asked.seen.fallbacks.append(f"rules, {why}")
        return True


def test_what_stands_in_answers_for_exactly_those_that_failed(served: Served):
    """Its answers are labelled, noted and told apart from the model's, and never remembered."""
    rules, batch = Rules(), [asked_for(0, 2), asked_for(5, 2, tenure_days=666)]

    Answering(Picky(served), version="1", instead=rules).run(batch)

    assert [asked.seen.fallbacks for asked in batch] == [[], ["rules, failed"]]
    assert (batch[1].labels, batch[1].seen.probability) == ([0, 0], [0.9, 0.9])
    assert batch[1].seen.label == [0, 0]
    assert rules.remembered == [batch[0]]


@given(
    st.lists(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=3, max_size=3), min_size=1)
)
def test_probabilities_sum_to_one_and_keep_the_order(logits: list[list[float]]):
    """Whatever finite logits there are, however large."""
    probability_nk = softmax(np.array(logits, np.float32))

    np.testing.assert_allclose(probability_nk.sum(axis=1), 1)
    largest = np.array(logits, np.float32).argmax(axis=1)
    np.testing.assert_array_equal(
        probability_nk.max(axis=1), probability_nk[range(len(logits)), largest]
    )


def test_the_bound_of_a_batch_is_what_warm_up_measured(served: Served):
    """No batch size that took longer than the endpoint allows is ever formed."""
    served.warm()

    slowest = max(served.warmth, key=lambda w: w.steady_ms)
    most = served.batch_most(slowest.steady_ms * 0.999)

    assert all(w.steady_ms < slowest.steady_ms for w in served.warmth if w.batch == most)
    assert served.batch_most(0.0) == 1
