"""Laws of a release sent back to shadow: an incident is one strike, a bad version has two."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.rollout.plan import Phase
from penstock.rollout.state import State
from penstock.verdict import Outcome
from tests.rollout.carried import Release


@pytest.mark.parametrize(
    ("lasts", "phase", "strikes"), [(1, Phase.DONE, 1), (9, Phase.ROLLED_BACK, 2)]
)
def test_what_fails_during_the_cool_down_is_put_aside_once(
    tmp_path: Path, lasts: int, phase: Phase, strikes: int
):
    """An incident that is over by then costs one strike; what fails after it is the second."""
    failing = 0

    def says(state: State) -> Outcome:
        nonlocal failing
        if state.step == 1 and not state.strikes:
            return Outcome.FAIL
        if state.step == 0 and state.strikes and failing < lasts:
            failing += 1
            return Outcome.FAIL
        return Outcome.PASS

    release = Release(folder=tmp_path, says=says)
    release.open()
    state = release.carry()

    assert (state.phase, state.strikes) == (phase, strikes)
    assert ("step back", 0) in release.story().acts
    assert release.story().acts.count(("enter", 0)) == 2, "evidence did not begin anew"
