"""One champion for all tests: it was trained on five thousand clients."""

from __future__ import annotations

import pytest

from penstock.bundle import Bundle
from tests.monitor import world


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The champion's package."""
    return world.package(
        tmp_path_factory.mktemp("champion") / "package",
        train=world.clients(5_000, seed=1),
        scores=world.numbers(world.clients(4_000, seed=2)),
    )
