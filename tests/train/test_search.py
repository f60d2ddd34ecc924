"""Laws of the search: seeded, resumable, and never better by chance of an interruption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.train.search import Trial, find
from penstock.workload import Search, Searched, Training

SETTINGS = Training(epochs=2, batch_size=32, learning_rate=1e-3)
SEARCH = Search(
    trials=8,
    parameters=(
        Searched(name="learning_rate", low=1e-4, high=1e-1, log=True),
        Searched(name="epochs", low=1, high=9),
        Searched(name="batch_size", choices=(16, 32, 64)),
    ),
)


def peak(settings: Training) -> float:
    """Return a metric that is best at a learning rate of 0.01 and many epochs."""
    return settings.epochs / 10 - abs(settings.learning_rate - 0.01)


def run(
    study: Path | None = None,
    score: Callable[[Training], float] = peak,
    settings: Training = SETTINGS,
    heard: Callable[[Trial], None] = lambda _: None,
) -> tuple[Training, list[Trial]]:
    """Search."""
    return find(SEARCH, settings, score, study=study, identity="sha256:1", heard=heard)


def test_the_same_seed_finds_the_same_and_another_looks_elsewhere():
    """A search is a function of its seed and of what its trials score."""
    _, first = run()
    _, again = run()
    _, other = run(settings=replace(SETTINGS, seed=43))

    assert first == again
    assert [t.parameters for t in first] != [t.parameters for t in other]


def test_no_trial_is_done_twice():
    """Each draws anew; one seed for all would try the same values again and again."""
    _, trials = run()

    assert len({t.parameters["learning_rate"] for t in trials}) == SEARCH.trials


def test_the_best_trial_decides_and_nothing_else_changes():
    """Its parameters have the types of the fields they are for."""
    best, trials = run()

    assert len(trials) == SEARCH.trials
    assert peak(best) == max(t.metric for t in trials)
    assert isinstance(best.epochs, int)
    assert isinstance(best.batch_size, int)
    names = ("learning_rate", "epochs", "batch_size")
    assert replace(best, **{n: getattr(SETTINGS, n) for n in names}) == SETTINGS


@pytest.mark.parametrize("trial", [0, 3, 7])
def test_killed_in_any_trial_it_ends_as_if_it_had_not_been(tmp_path: Path, trial: int):
    """Finished trials are kept, the unfinished one is done again."""

    class KilledError(Exception):
        pass

    seen = iter(range(100))

    def dies(settings: Training) -> float:
        if next(seen) == trial:
            raise KilledError
        return peak(settings)

    study = tmp_path / "study.db"
    with pytest.raises(KilledError):
        run(study, dies)
    tried: list[Training] = []

    def counts(settings: Training) -> float:
        tried.append(settings)
        return peak(settings)

    assert run(study, counts) == run()
    assert len(tried) == SEARCH.trials - trial


def test_a_finished_search_is_not_done_again(tmp_path: Path):
    """Its result is read."""
    first = run(tmp_path / "study.db")

    def never(_: Training) -> float:
        raise AssertionError("trained again")

    assert run(tmp_path / "study.db", never) == first


def test_every_trial_is_heard_of_once():
    """In its order, with its number."""
    told: list[Trial] = []
    _, trials = run(heard=told.append)

    assert told == trials
    assert [t.number for t in told] == list(range(SEARCH.trials))


def test_a_search_for_what_training_does_not_have_is_refused():
    """When it is declared."""
    strange = Search(trials=1, parameters=(Searched(name="momentum", low=0, high=1),))
    with pytest.raises(ValueError, match="momentum"):
        replace(SETTINGS, search=strange)
    with pytest.raises(ValueError, match="low and high, or choices"):
        Searched(name="learning_rate")
    with pytest.raises(ValueError, match="not below"):
        Searched(name="learning_rate", low=2, high=1)
