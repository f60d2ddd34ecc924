"""What every test shares: tests that need a GPU or a cluster say how to run them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

NEEDS = {
    "gpu": "needs a GPU; on a machine with one: make test-gpu",
    "images": "builds images, which takes minutes: make test-images",
    "cluster": 'needs a cluster; with kubectl pointing at one: make test ARGS="-m cluster"',
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the marked tests unless they are asked for by their mark."""
    for mark, sentence in NEEDS.items():
        if mark in config.option.markexpr:
            continue
        for item in items:
            if item.get_closest_marker(mark) is not None:
                item.add_marker(pytest.mark.skip(reason=sentence))


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Take back what a test wrote into the environment: verbs set it as for a process of theirs."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)
