"""What every test shares: tests that need a GPU or a cluster say how to run them."""

from __future__ import annotations

import pytest

NEEDS = {
    "gpu": "needs a GPU; on a machine with one: make test-gpu",
    "cluster": 'needs a cluster; with kubectl pointing at one: make test ARGS="-m cluster"',
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the marked tests unless they are asked for by their mark."""
    for mark, sentence in NEEDS.items():
        if mark in config.option.markexpr:
            continue
        for item in items:
            if mark in item.keywords:
                item.add_marker(pytest.mark.skip(reason=sentence))
