"""Weighed: all that differs between two versions, each weighed as a cause, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.register import profile
from penstock.register.causes import Cause, cause_of_file, cause_of_library, cause_of_setting
from penstock.stats import drift
from penstock.stats.drift import Distance

SHIFTED = 0.2
"""PSI from which a column is customarily said to have shifted."""

SLIGHT = 0.1
"""PSI from which it is said to have moved at all; below, beyond noise or not, it seldom matters."""

RATE = 0.05
"""Of the columns said to have moved, the share that may be so by chance."""

NAMED = 3
"""Columns, files or settings named in a reason; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a package says of how it was made and how it scored."""

    name: str
    fingerprint: str
    lineage: Mapping[str, Any]
    profile: Mapping[str, Any]
    scores: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that differs."""

    kind: str
    """``features``, ``data``, ``code``, ``hyperparameters``, ``seed``, ``environment`` …"""

    what: str
    was: str
    now: str
    reason: str
    """Why it is ranked where it is."""

    weight: float
    """Rank among what may explain, 0 to 1: a rule, no probability. 0: it cannot move the metric."""


class Trace:
    """Which contents on the way from data to metric are the same bytes in both."""

    def __init__(self, one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
        self._pair = (one, two)

    def same(self, stage: str, file: str) -> bool | None:
        """Return whether a stage's file is the same in both; None where one does not say."""
        held = [side.get("stages", {}).get(stage, {}).get("files", {}) for side in self._pair]
        one, two = (files.get(file) for files in held)
        return None if one is None or two is None else one == two

    def weighed(self, cause: Cause) -> tuple[float, str]:
        """Return a cause's weight, 0 where what it would have changed is the same, and why."""
        if cause.through == "data" and self.same("snapshot", "holdout.parquet") is False:
            return cause.weight, cause.reason
        passed = {
            "data": (self.same("snapshot", "train.parquet"), "the training rows are the same"),
            "model": (self.same("model", "model.safetensors"), "the trained weights are the same"),
            "graph": (self._same_graph(), "the graph that serves is the same"),
        }
        order = list(passed)
        if cause.through in order:
            for name in order[order.index(cause.through) :]:
                same, why = passed[name]
                if same:
                    return 0.0, f"{why} in both, so it moved nothing"
        return cause.weight, cause.reason

    def _same_graph(self) -> bool | None:
        one, two = (side.get("model") for side in self._pair)
        return None if one is None or two is None else one == two


def all_of(
    first: Made, second: Made, columns: Mapping[str, Distance], trace: Trace
) -> list[Change]:
    """Return everything that differs from the first to the second, in no order of weight."""
    one, two = first.lineage, second.lineage
    return [
        *_features(one, two, trace),
        *_data(first, second, columns, trace),
        *_settings(one, two, trace),
        *_seed(one, two, trace),
        *_code(one, two, trace),
        *_environment(one, two, trace),
        *_choices(one, two, trace),
        *_others(one, two),
    ]


def distances(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Distance]:
    """Return the PSI of every training column that both profiles can be compared in."""
    found = {
        name: profile.distance(one["columns"][name], two["columns"][name])
        for name in one["columns"]
        if name in two["columns"]
    }
    return {name: distance for name, distance in found.items() if distance is not None}


def _features(one: Mapping[str, Any], two: Mapping[str, Any], trace: Trace) -> Iterator[Change]:
    cause = Cause("data", 0.9, "a definition decides what a feature is, in every row")
    weight, reason = trace.weighed(cause)
    old, new = one.get("features", {}), two.get("features", {})
    for name, was, now in _differing(old, new):
        yield Change(
            kind="features", what=f"definition of {name}", was=_short(was), now=_short(now),
            reason=reason, weight=weight,
        )  # fmt: skip
    if one.get("feature_service") != two.get("feature_service"):
        yield Change(
            kind="features", what="feature service", was=str(one.get("feature_service")),
            now=str(two.get("feature_service")), reason=reason, weight=weight,
        )  # fmt: skip


def _data(
    first: Made, second: Made, columns: Mapping[str, Distance], trace: Trace
) -> Iterator[Change]:
    one, two = first.profile, second.profile
    if trace.same("snapshot", "train.parquet") is False:
        yield _moved(columns, first, second, trace)
    for name, was, now in _differing(one["columns"], two["columns"]):
        if was is None or now is None:
            reason = "the network sees another set of features"
            weight, reason = trace.weighed(Cause("data", 0.85, reason))
            held = ["absent" if side is None else str(side["type"]) for side in (was, now)]
            yield Change(
                kind="data", what=f"column {name}", was=held[0], now=held[1], reason=reason,
                weight=weight,
            )  # fmt: skip
    if first.lineage.get("data_source") != second.lineage.get("data_source"):
        weight, reason = trace.weighed(Cause("data", 0.25, "the rows come from elsewhere"))
        yield Change(
            kind="data", what="source", was=str(first.lineage.get("data_source")),
            now=str(second.lineage.get("data_source")), reason=reason, weight=weight,
        )  # fmt: skip
    if trace.same("snapshot", "holdout.parquet") is False:
        yield Change(
            kind="holdout", what="the rows scored on", was=f"{one['holdout_rows']} rows",
            now=f"{two['holdout_rows']} rows", weight=0.2,
            reason="other rows may be easier or harder beyond what an interval covers",
        )  # fmt: skip


def _moved(columns: Mapping[str, Distance], first: Made, second: Made, trace: Trace) -> Change:
    """Return how the training rows moved: the columns beyond noise, by PSI."""
    names = list(columns)
    standing = drift.significant([columns[n].p for n in names], rate=RATE)
    beyond = sorted(
        (n for n, stands in zip(names, standing, strict=True) if stands),
        key=lambda n: -columns[n].value,
    )
    sides = [f"{p['rows']} rows{_days(p)}" for p in (first.profile, second.profile)]
    weight, reason = trace.weighed(
        _data_cause(beyond, columns, *(s.profile for s in (first, second)))
    )
    what = f"training rows, {beyond[0]} most" if beyond else "training rows"
    return Change(kind="data", what=what, was=sides[0], now=sides[1], reason=reason, weight=weight)


def _data_cause(
    beyond: list[str],
    columns: Mapping[str, Distance],
    one: Mapping[str, Any],
    two: Mapping[str, Any],
) -> Cause:
    if beyond:
        named = ", ".join(
            f"{n} PSI {columns[n].value:.3f} (chance {columns[n].noise:.3f})"
            for n in beyond[:NAMED]
        )
        more = f" and {len(beyond) - NAMED} more" if len(beyond) > NAMED else ""
        value = columns[beyond[0]].value
        band, weight = "slightly", 0.3
        if value >= SHIFTED:
            band, weight = "far", 0.8
        elif value >= SLIGHT:
            band, weight = "somewhat", 0.55
        count = f"{len(beyond)} of {len(columns)} columns moved beyond noise, {band}"
        return Cause("data", weight, f"{count}: {named}{more}")
    rows = two["rows"] / max(1, one["rows"])
    if not 0.8 < rows < 1.25:
        reason = f"there are {rows:.2g} times as many rows; no column moved beyond noise"
        return Cause("data", 0.4, reason)
    return Cause("data", 0.15, "other rows, no column of which moved beyond noise")


def _days(held: Mapping[str, Any]) -> str:
    period = held.get("period")
    return f", {period[0][:10]} to {period[1][:10]}" if period else ""


def _settings(one: Mapping[str, Any], two: Mapping[str, Any], trace: Trace) -> Iterator[Change]:
    for name, was, now in _differing(one["hyperparameters"], two["hyperparameters"]):
        weight, reason = trace.weighed(cause_of_setting(name))
        yield Change(
            kind="hyperparameters", what=name, was=str(was), now=str(now), reason=reason,
            weight=weight,
        )  # fmt: skip


def _seed(one: Mapping[str, Any], two: Mapping[str, Any], trace: Trace) -> Iterator[Change]:
    if one["seed"] != two["seed"]:
        reason = "another seed alone gives another model; how far they spread is not known here"
        weight, reason = trace.weighed(Cause("model", 0.35, reason))
        yield Change(
            kind="seed", what="training seed", was=str(one["seed"]), now=str(two["seed"]),
            reason=reason, weight=weight,
        )  # fmt: skip


def _code(one: Mapping[str, Any], two: Mapping[str, Any], trace: Trace) -> Iterator[Change]:
    """Yield a change for each package of which files differ."""
    by_package: dict[str, list[str]] = {}
    for path, _, _ in _differing(one.get("files", {}), two.get("files", {})):
        by_package.setdefault(cause_of_file(path)[0], []).append(path)
    commits = [_commit(side) for side in (one, two)]
    for package, paths in by_package.items():
        weight, reason = trace.weighed(cause_of_file(paths[0])[1])
        named = ", ".join(paths[:NAMED])
        more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
        yield Change(
            kind="code", what=f"{package}: {named}{more}", was=commits[0], now=commits[1],
            reason=reason, weight=weight,
        )  # fmt: skip


def _commit(side: Mapping[str, Any]) -> str:
    git = side["code"]["git"]
    if git is None:
        return "no commit"
    commit, _, changes = git.partition("+")
    return commit[:9] + (" and changes" if changes else "")


def _environment(one: Mapping[str, Any], two: Mapping[str, Any], trace: Trace) -> Iterator[Change]:
    old, new = (side.get("environment", {}) for side in (one, two))
    causes = {
        "gpu": Cause("model", 0.3, "another kind of GPU sums in another order"),
        "compute_capability": Cause("model", 0.3, "another kind of GPU sums in another order"),
        "python": Cause("model", 0.1, "the interpreter seldom changes a number"),
        "driver": Cause("model", 0.1, "a driver chooses kernels, which round differently"),
        "cuda": Cause("model", 0.1, "a driver chooses kernels, which round differently"),
        "machine": Cause("model", 0.2, "another processor rounds differently"),
    }
    libraries = [side.get("libraries", {}) for side in (old, new)]
    changed = list(_differing(*libraries))
    for name, was, now in changed:
        weight, reason = trace.weighed(cause_of_library(name))
        yield Change(
            kind="environment", what=name, was=was or "absent", now=now or "absent", reason=reason,
            weight=weight,
        )  # fmt: skip
    if not changed and old.get("lock") != new.get("lock"):
        causes["lock"] = Cause("model", 0.08, "a library not named here has another version")
    for name, cause in causes.items():
        if old.get(name) != new.get(name):
            weight, reason = trace.weighed(cause)
            yield Change(
                kind="environment", what=name, was=_short(old.get(name)), now=_short(new.get(name)),
                reason=reason, weight=weight,
            )  # fmt: skip


def _choices(one: Mapping[str, Any], two: Mapping[str, Any], trace: Trace) -> Iterator[Change]:
    """Yield what was chosen on the way from the model to the graph."""
    for name, was, now in _differing(_chosen(one), _chosen(two)):
        cause = Cause("graph", 0.28, "it decides how the model was made small")
        if name in ("serve", "threshold"):
            cause = Cause("scoring", 0.6, "it decides what a prediction is")
        weight, reason = trace.weighed(cause)
        yield Change(
            kind="choices", what=name.replace("_", " "), was=str(was), now=str(now), reason=reason,
            weight=weight,
        )  # fmt: skip


def _chosen(side: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was chosen, and what was declared of the choice."""
    declared = side.get("stages", {}).get("serving", {}).get("settings", {})
    asked = {
        f"{part} {n}": v
        for part in ("quantize", "export")
        for n, v in declared.get(part, {}).items()
    }
    return {**side.get("choices", {}), **asked}


def _others(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Change]:
    """Yield what a reader wants to know of and what cannot move a metric of the holdout."""
    if one.get("image") != two.get("image"):
        reason = "what is in an image is listed as code and libraries; the rest seldom matters"
        yield Change(
            kind="image", what="image", was=_short(one.get("image")), now=_short(two.get("image")),
            reason=reason, weight=0.05,
        )  # fmt: skip
    reasons = {
        "policy": "a policy judges a metric and does not make it",
        "rehearsal": "the fault shows in serving and not on the holdout",
        "owner": "who answers for it changes no number",
    }
    for name, reason in reasons.items():
        if one.get(name) != two.get(name):
            was, now = (_plain(side.get(name)) for side in (one, two))
            yield Change(kind=name, what=name, was=was, now=now, reason=reason, weight=0.0)


def _plain(value: object) -> str:
    return "declared" if isinstance(value, Mapping) else str(value)


def _differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each name whose value differs, with both; None where there is none."""
    for name in sorted({*one, *two}):
        if one.get(name) != two.get(name):
            yield name, one.get(name), two.get(name)


def _short(value: object) -> str:
    """Return a hash or a name so that it fits a table."""
    text = "absent" if value is None else str(value)
    return text.removeprefix("sha256:")[:12] if text.startswith("sha256:") else text
