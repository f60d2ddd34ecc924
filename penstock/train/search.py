"""A seeded search for hyper-parameters that a kill does not send back to its beginning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from penstock.train.batches import seed_of
from penstock.workload import Search, Searched, Training

SAMPLER = 3
"""What the seed is for; see :func:`penstock.train.batches.seed_of`."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of the search."""

    number: int
    parameters: dict[str, Any]
    metric: float


def find(
    search: Search,
    settings: Training,
    score: Callable[[Training], float],
    *,
    study: Path | None,
    identity: str,
    heard: Callable[[Trial], None] = lambda _: None,
) -> tuple[Training, list[Trial]]:
    """Return the settings of the best trial, and all trials in their order.

    Args:
        settings: What is not searched.
        score: Trains with some settings and returns the metric on validation rows, greater is
            better.
        study: SQLite file that keeps finished trials; None keeps them in memory. A search that was
            killed goes on after the last finished one, and its result is that of one which was not.
        identity: Of data, code and settings; finished trials of another are not used.

    Each trial's sampler has a seed of its own, so that nothing but the finished trials decides the
    next one.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if study is not None:
        study.parent.mkdir(parents=True, exist_ok=True)
    # Optuna calls its multivariate sampler experimental, though it has not changed since 2021.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        held = optuna.create_study(
            storage=None if study is None else f"sqlite:///{study}",
            study_name=identity,
            direction="maximize",
            load_if_exists=True,
        )
        while len(done := _finished(held)) < search.trials:
            seed = seed_of(settings.seed, SAMPLER, len(done)) % 2**32
            held.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
            trial = held.ask()
            parameters = {p.name: _suggested(trial, p, settings) for p in search.parameters}
            metric = score(replace(settings, search=None, **parameters))
            held.tell(trial, metric)
            heard(Trial(number=len(done), parameters=parameters, metric=metric))
    best = max(done, key=lambda t: (t.metric, -t.number))
    return replace(settings, search=None, **best.parameters), done


def _finished(study: optuna.Study) -> list[Trial]:
    """Return finished trials, numbered without those that a kill left unfinished."""
    states = (optuna.trial.TrialState.COMPLETE,)
    for abandoned in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(abandoned.number, state=optuna.trial.TrialState.FAIL)
    return [
        Trial(number=i, parameters=dict(t.params), metric=float(t.value or 0.0))
        for i, t in enumerate(study.get_trials(states=states))
    ]


def _suggested(trial: optuna.Trial, searched: Searched, settings: Training) -> Any:
    """Return a value of the field's own type: whole where the declared one is whole."""
    whole = isinstance(getattr(settings, searched.name), int)
    if searched.choices is not None:
        choices = [int(c) if whole else c for c in searched.choices]
        return trial.suggest_categorical(searched.name, choices)
    assert searched.low is not None
    assert searched.high is not None
    if whole:
        return trial.suggest_int(
            searched.name, int(searched.low), int(searched.high), log=searched.log
        )
    return trial.suggest_float(searched.name, searched.low, searched.high, log=searched.log)
