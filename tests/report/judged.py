"""Numbers of gates as the judge leaves them, made by hand for tests of what is made of them."""

from __future__ import annotations

from typing import Any

Numbers = dict[str, Any]


def estimate(value: float, half: float | None, n: int = 600) -> Numbers:
    """Return a number with an interval of this half width, or without one."""
    low, high = (None, None) if half is None else (value - half, value + half)
    return {"value": value, "low": low, "high": high, "n": n}


def metric(value: float, half: float, *, champion: float | None) -> Numbers:
    """Return a metric of the challenger and, where there is one, of the champion."""
    return {
        "challenger": estimate(value, half),
        "champion": None if champion is None else estimate(champion, half),
        "difference": None if champion is None else estimate(value - champion, half / 2),
    }


def part(name: str, n: int, outcome: str, *, of: str, value: float | None, alone: bool) -> Numbers:
    """Return a slice; one without a value has too few rows."""
    found = None if value is None else estimate(value, 1.5 / n, n)
    moved = None if value is None or alone else estimate(value - 0.75, 1.2 / n, n)
    return {
        "name": name,
        "n": n,
        "metric": of,
        "challenger": found,
        "champion": None if alone else found,
        "difference": moved,
        "outcome": outcome,
        "margin": None if alone else 0.05,
    }


def ten_classes(*, alone: bool = False) -> Numbers:
    """Return the numbers of a reader of digits: no ROC, no costs, no groups."""
    champion = None if alone else 0.978
    confusion = [[60 if r == c else int((r + c) % 7 == 0) for c in range(10)] for r in range(10)]
    outcomes = {2: "inconclusive", 8: "fail"}
    return {
        "n": 600,
        "metric": "accuracy",
        "threshold": None,
        "metrics": {
            "accuracy": metric(0.983, 0.011, champion=champion),
            "log_loss": metric(0.061, 0.02, champion=None if alone else 0.07),
            "brier": metric(0.028, 0.009, champion=None if alone else 0.03),
            "calibration_error": metric(0.0037, 0.003, champion=None if alone else 0.005),
        },
        "slices": [
            part(f"class {c}", 55 + c, outcomes.get(c, "pass"), of="accuracy",
                 value=0.76 - 0.012 * (c == 8), alone=alone)
            for c in range(10)
        ],
        "fairness": [],
        "costs": None,
        "roc": None,
        "reliability": [{"n": 60, "predicted": p, "happened": h} for p, h in
                        ((0.62, 0.7), (0.93, 0.95), (0.985, 0.98), (0.999, 1.0), (1.0, 1.0))],
        "confusion": confusion,
        "by_class": [{"class": c, "n": 60, "accuracy": 0.98, "low": 0.92, "high": 1.0}
                     for c in range(10)],
    }  # fmt: skip


def nothing() -> Numbers:
    """Return the numbers of scores that are not finite: there are none."""
    empty = {"challenger": None, "champion": None, "difference": None}
    return {
        **ten_classes(),
        "metrics": {name: dict(empty) for name in ("accuracy", "log_loss")},
        "slices": [],
        "reliability": [],
        "confusion": [],
        "by_class": [],
    }


def two_classes(*, alone: bool = False, slices: int = 15) -> Numbers:
    """Return the numbers of a score with costs and sensitive attributes."""
    champion = None if alone else 0.752
    curve = [[t / 50, 0.8 - 1.1 * t / 50 + 1.4 * (t / 50) ** 2] for t in range(51)]
    names = [f"slice {i} with a name that is long enough to be cut" for i in range(slices)]
    outcomes = ["pass", "inconclusive", "fail", "error"]
    return {
        "n": 6002,
        "metric": "auc",
        "threshold": 0.2,
        "metrics": {
            "accuracy": metric(0.70, 0.012, champion=None if alone else 0.69),
            "auc": metric(0.757, 0.015, champion=champion),
            "log_loss": metric(0.45, 0.01, champion=None if alone else 0.46),
            "brier": metric(0.14, 0.006, champion=None if alone else 0.142),
            "calibration_error": metric(0.013, 0.006, champion=None if alone else 0.02),
            "expected_cost": metric(0.53, 0.02, champion=None if alone else 0.55),
        },
        "slices": [
            part(name, 30 + 40 * i, outcomes[i % 4], of="auc",
                 value=None if i % 4 == 3 else 0.75 + 0.01 * (i % 5 - 2), alone=alone)
            for i, name in enumerate(names)
        ],
        "fairness": [
            {
                "attribute": "age",
                "groups": [
                    {"name": "under 30", "n": 2100, "favoured": 0.62, "deserving": 1600,
                     "opportunity": 0.71},
                    {"name": "30 to 50", "n": 3300, "favoured": 0.71, "deserving": 2600,
                     "opportunity": 0.79},
                    {"name": "over 50", "n": 12, "favoured": 0.5, "deserving": 0,
                     "opportunity": None},
                ],
                "adverse_impact_ratio": estimate(0.873, 0.04, 6002),
                "equal_opportunity_difference": None,
            },
            {
                "attribute": "sex",
                "groups": [
                    {"name": "women", "n": 3600, "favoured": 0.69, "deserving": 2800,
                     "opportunity": 0.78},
                    {"name": "men", "n": 2402, "favoured": 0.66, "deserving": 1800,
                     "opportunity": 0.75},
                ],
                "adverse_impact_ratio": estimate(0.956, 0.03, 6002),
                "equal_opportunity_difference": estimate(0.03, 0.02, 4600),
            },
        ],
        "costs": {"false_positive": 1.0, "false_negative": 4.0, "threshold": 0.2,
                  "best_threshold": 0.235, "regret": estimate(0.004, 0.006, 6002), "curve": curve},
        "roc": {"challenger": [[x / 20, (x / 20) ** 0.4] for x in range(21)],
                "champion": None if alone else [[x / 20, (x / 20) ** 0.45] for x in range(21)]},
        "reliability": [{"n": 600, "predicted": 0.04 + 0.07 * i, "happened": 0.05 + 0.069 * i}
                        for i in range(10)],
        "confusion": [[3000, 1660], [400, 942]],
        "by_class": [],
    }  # fmt: skip


BEHAVIOURS = [
    {
        "name": "a month later is a <worse> client",
        "kind": "direction",
        "asked": 0.95,
        "outcome": "fail",
        "reason": "540 of 600 rows",
        "n": 600,
        "share": 0.9,
        "low": 0.87,
        "high": 0.92,
        "examples": [{"row": 7, "class": 1, "before": 0.31, "after": 0.12, "decided": 0,
                      "behaved": False}],
    },
    {
        "name": "plain cases",
        "kind": "minimum functionality",
        "asked": 1.0,
        "outcome": "error",
        "reason": "workloads/x/behaviour.py has no function 'plain'; write it.",
        "n": 0,
        "share": None,
        "low": None,
        "high": None,
        "examples": [],
    },
]  # fmt: skip
