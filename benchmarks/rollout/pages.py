"""Tables and a plot of what the studies found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rollout import rules, studies
from benchmarks.rollout.studies import Rate
from benchmarks.serving.tables import Part, number

WAYS: Mapping[str, Sequence[str]] = {
    "errors": (
        studies.OURS,
        studies.COUNT,
        studies.FAILING,
        *(n for n in rules.RULES if "click" not in n and "p99" not in n),
    ),
    "clicks": (studies.OURS, studies.CLICKS, *(n for n in rules.RULES if "click" in n)),
    "latency": (studies.OURS, studies.SLOW, *(n for n in rules.RULES if "p99" in n)),
    "split": (studies.OURS,),
}
"""Which ways are asked about which kind of regression."""

Caught = Mapping[str, Mapping[str, Any]]


def whole(found: Mapping[str, Mapping[str, Any]]) -> Part:
    """Return the table of whole releases."""
    columns = ("promoted", "rolled back by strikes", "rolled back without proof", "any strike")
    rows = [
        [name, str(one["promoted"].n), *(str(one[c]) for c in columns), number(one["median hours"])]
        for name, one in found.items()
    ]
    struck = [
        f"- {name}: " + "; ".join(f"{check} {count}" for check, count in one["strikes by"].items())
        for name, one in found.items()
        if one["strikes by"]
    ]
    return Part(
        title="Whole releases",
        head=("version", "releases", *columns, "median hours"),
        rows=rows,
        notes=["Rates with exact 95 % intervals. What strikes were for:", "\n".join(struck)],
    )


def harmless(one: Caught) -> Part:
    """Return the table of harmless canaries: how often each way stops one."""
    rows = [[name, str(told["stopped"]), number(told["requests"])] for name, told in one.items()]
    return Part(
        title="A harmless version's canary",
        head=("way", "rolled back", "median requests of the challenger"),
        rows=rows,
        notes=["Rates with exact 95 % intervals. A median is given where more than half stop."],
    )


def planted(found: Mapping[str, Caught]) -> list[Part]:
    """Return a table for each kind of regression: how often it is caught, and how soon."""
    parts: list[Part] = []
    for kind, ways in WAYS.items():
        ones = {name: one for name, one in found.items() if name.startswith(kind)}
        rows = [[way, *(_cell(one[way]) for one in ones.values())] for way in ways]
        parts.append(
            Part(
                title=f"Planted: {kind}",
                head=("way", *ones),
                rows=rows,
                notes=[_noted(ones)] if kind == "errors" else (),
            )
        )
    return parts


def _cell(told: Mapping[str, Any]) -> str:
    stopped: Rate = told["stopped"]
    after = told["requests"]
    share = f"{stopped.count / stopped.n:.0%}"
    return share if after is None else f"{share}, {after:,.0f}"


def _noted(ones: Mapping[str, Caught]) -> str:
    """Say how many failing users it took."""
    said = [
        f"{name}: {_whole(one[studies.OURS]['events'])} and {_whole(one[studies.COUNT]['events'])}"
        for name, one in ones.items()
    ]
    return (
        "Failing users of both arms until half of the canaries were stopped, by the judge and by "
        f"the count test alone: {'; '.join(said)}."
    )


def _whole(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


def costs(found: Mapping[int, Mapping[str, float]]) -> Part:
    """Return the table of what a look costs."""
    rows = [
        [number(c["rows"]), number(c["ms"]), number(c["looks_per_s"]), number(c["rows_per_s"])]
        for c in found.values()
    ]
    return Part(
        title="What a look costs",
        head=("rows of evidence", "CPU ms a look", "looks a second", "rows a second"),
        rows=rows,
        notes=["CPU time of one core, evidence already in memory; median of five looks."],
    )


def plot(path: Path, harmless: Caught, found: Mapping[str, Caught]) -> None:
    """Draw false alarms against how soon twice the errors are caught, each way a point."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "rollout"
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1, 1.4))
    ways = WAYS["errors"]
    rates: list[Rate] = [harmless[way]["stopped"] for way in ways]
    places = range(len(ways))
    for y, rate in zip(places, rates, strict=True):
        share = rate.count / rate.n
        left.errorbar(
            share, y, xerr=[[share - rate.low], [rate.high - share]], fmt="o", color=f"C{y}"
        )
    left.axvline(0.01, color="0.6", linestyle=":", linewidth=1)
    left.set(
        yticks=list(places), yticklabels=list(ways), xlabel="harmless canaries rolled back",
        xscale="symlog", xlim=(0, 1.3), ylim=(len(ways) - 0.5, -0.5),
    )  # fmt: skip
    left.set_xscale("symlog", linthresh=0.01)
    left.set_xticks([0, 0.01, 0.1, 1], ["0", "1 %", "10 %", "100 %"])
    errors = [name for name in found if name.startswith("errors")]
    labels = [name.removeprefix("errors ") for name in errors]
    for n, way in enumerate(ways):
        after = [found[name][way]["requests"] for name in errors]
        right.plot(labels, [a or float("nan") for a in after], "o-", color=f"C{n}", label=way)
    right.set(
        yscale="log",
        xlabel="planted errors",
        ylabel="median requests of the challenger until stopped",
    )
    figure.suptitle("Errors: false alarms, and time to catch a planted regression", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def plain(value: Any) -> Any:
    """Return figures as JSON holds them."""
    if isinstance(value, Rate):
        return value.figures()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return value
