"""Our predictor without one of its parts, to see what the part costs.

python -m benchmarks.serving.altered {unlogged,cold} [what serving.predictor takes]
"""

from __future__ import annotations

import sys
from typing import Any

from serving import predictor
from serving.package import Served


class NoLog:
    """Takes predictions and keeps none."""

    def __init__(self, *_given: Any, **_named: Any) -> None:
        """Take what the log takes."""

    def __getattr__(self, _name: str) -> Any:
        """Return a method that does nothing, or counts that stay empty."""
        return _Nothing()


class _Nothing(dict[str, int]):
    def __call__(self, *_given: Any, **_named: Any) -> None:
        """Do nothing."""


def main() -> int:
    """Serve without the part."""
    what = sys.argv.pop(1)
    if what == "unlogged":
        predictor.PredictionLog = NoLog  # type: ignore[misc, assignment]
    elif what == "cold":
        Served.warm = lambda _self: []  # type: ignore[method-assign]
    else:
        raise SystemExit(f"{what!r} is no part; name unlogged or cold.")
    return predictor.main()


if __name__ == "__main__":
    sys.exit(main())
