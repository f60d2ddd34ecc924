"""A whole release by the controller, on a fake cluster of real sockets, from evidence that is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rollout.adapters import published
from tests.rollout.controlled.world import World, world


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a world."""
    published.need()
    with world(tmp_path, monkeypatch) as made:
        yield made


def test_a_version_is_released_to_its_end(place: World):
    """From STAGING to every user, and the version before stands by; nobody but `--open` asked."""
    held = place.replica(opens=True)
    place.until(held, lambda: place.phase() == "DONE")
