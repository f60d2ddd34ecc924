"""Parts of a model card that hold numbers: how good, for whom, at what cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.report import gateplots, plots
from penstock.report.documents import Block, Facts, Plot, Says, Table, estimate, number
from penstock.report.gateplots import Drawing, worded
from penstock.stats.distance import EQUAL_DB

Record = Mapping[str, Any]

RESOURCES = {
    "latency_p50_ms": ("latency, median, usual batch", "ms"),
    "latency_p99_ms": ("latency, slowest in a hundred, usual batch", "ms"),
    "throughput_per_s": ("throughput, largest batch", "a second"),
    "peak_memory_mb": ("memory at its peak", "MB"),
    "cold_start_s": ("from start to the first answer", "s"),
    "warm_up_s": ("until latency settles", "s"),
}
"""What a card says of each measured number, and its unit."""


def metrics(card: Record) -> Iterator[Block]:
    """Yield every metric of the version beside the champion's, and each class."""
    scored = card["scores"]
    against = any(m["champion"] for m in scored["metrics"].values())
    yield Says(
        "The graph that serves, on the holdout, "
        + ("beside the champion." if against else "against nobody: no version serves yet.")
    )
    rows = [
        [worded(name), estimate(m["challenger"]), _beside(m, "champion"), _beside(m, "difference")]
        for name, m in scored["metrics"].items()
    ]
    yield Table(["metric", "this version", "champion", "difference"], rows)
    if scored["confusion"]:
        yield from _drawn(gateplots.decisions(scored))
    if scored["by_class"]:
        rows = [
            [str(c["class"]), number(c["accuracy"]), _between(c), str(c["n"])]
            for c in scored["by_class"]
        ]
        folded = f"all {len(rows)} classes"
        yield Table(["class", "accuracy", "interval", "rows"], rows, folded=folded)


def _beside(metric: Record, side: str) -> str:
    return estimate(metric[side], sign=side == "difference") or "–"


def _between(found: Record) -> str | None:
    low, high = number(found["low"]), number(found["high"])
    return None if low is None or high is None else f"{low} to {high}"


def slices(card: Record) -> Iterator[Block]:
    """Yield the metric of every slice and its difference from the champion's."""
    scored = card["scores"]
    if scored["metrics"]:
        yield from _drawn(gateplots.slices(scored))
    rows = [
        [s["outcome"] or "not asked", s["name"], worded(s["metric"]), estimate(s["challenger"]),
         _beside(s, "difference"), str(s["n"])]
        for s in scored["slices"]
    ]  # fmt: skip
    head = ["", "slice", "metric", "this version", "difference from the champion", "rows"]
    yield Table(head, rows)


def fairness(card: Record) -> Iterator[Block]:
    """Yield, for each sensitive attribute, how unequally decisions fall on its groups."""
    if not card["sensitive"]:
        yield Says("The workload declares no sensitive attributes, so nothing was compared.")
        return
    yield from _drawn(gateplots.groups(card["scores"]))
    for found in card["scores"]["fairness"]:
        yield Facts(
            [
                ("attribute", found["attribute"]),
                ("adverse impact ratio", estimate(found["adverse_impact_ratio"])),
                ("equal opportunity difference", estimate(found["equal_opportunity_difference"])),
            ]
        )
        rows = [
            [g["name"], number(g["favoured"]), number(g["opportunity"]), str(g["n"]),
             str(g["deserving"])]
            for g in found["groups"]
        ]  # fmt: skip
        head = ["group", "favoured", "favoured of the deserving", "rows", "deserving rows"]
        yield Table(head, rows)
    missing = set(card["sensitive"]) - {f["attribute"] for f in card["scores"]["fairness"]}
    for name in sorted(missing):
        yield Facts([(name, None)])


def calibration(card: Record) -> Iterator[Block]:
    """Yield how often it happened against how probable it was said to be."""
    scored, found = card["scores"], card["training"]["calibration"]
    measured = scored["metrics"].get("calibration_error")
    error = None if measured is None else estimate(measured["challenger"])
    yield Facts([("error of the probabilities on the holdout", error)])
    bins = scored["reliability"]
    if bins:
        rows = [[number(b["predicted"]), number(b["happened"]), str(b["n"])] for b in bins]
        yield Table(["predicted", "happened", "rows"], rows, folded=f"the {len(rows)} bins")
    if found is None:
        return
    yield Says(
        f"When it was trained: on {found['rows']} validation rows the probability of "
        f"{found['of']} differed from what happened by {number(found['error'])} on average; of "
        f"perfect probabilities so few rows would show {number(found['by_chance'])}."
    )
    if not bins:
        yield Plot(plots.reliability(found), "Drawn in card.html: reliability when trained.")


def _drawn(drawings: list[Drawing]) -> list[Block]:
    return [Plot(d.svg, f"Drawn in card.html: {d.text}.") for d in drawings]


def behaviours(card: Record) -> Block:
    """Return what the model does to rows changed on purpose."""
    rows = [
        [b.get("outcome", "–"), b["name"], b["kind"], number(b["share"]), _between(b),
         number(b["asked"]), str(b["n"])]
        for b in card["behaviours"]
    ]  # fmt: skip
    head = ["", "behaviour", "kind", "share that behaves", "interval", "asked", "rows"]
    return Table(head, rows)


def costs(card: Record) -> Block:
    """Return what wrong decisions cost, and the threshold that follows from it."""
    decides, costs = card["decides"], card["scores"]["costs"]
    if decides["threshold"] is None:
        return Says("The most likely class is the decision: there is no threshold.")
    declared: Record = decides["costs"] or {}
    measured: Record = costs or {}
    return Facts(
        [
            ("decides from a probability of", number(decides["threshold"])),
            ("a false positive costs", number(declared.get("false_positive"))),
            ("a false negative costs", number(declared.get("false_negative"))),
            ("best threshold on validation rows", number(measured.get("best_threshold"))),
            ("costs more than the best, each decision", estimate(measured.get("regret"))),
        ]
    )


def graph(card: Record) -> Iterator[Block]:
    """Yield how near each step from the network to the graph that serves stays."""
    rows = [
        [s["outcome"], f"{s['against']} → {s['step']}", number(s["agreement"]),
         _noise(s["snr_db"]), number(s["metric_drop"], sign=True), str(s["n"])]
        for s in card["equivalence"]
    ]  # fmt: skip
    head = ["", "step", "decisions that stay", "signal to noise", "metric drop", "rows"]
    yield Table(head, rows)
    made = card["quantization"]
    if made:
        kept = ", ".join(made.get("float_layers") or []) or "none"
        yield Facts(
            [
                (
                    "weighted layers in whole numbers",
                    f"{made.get('int8')} of {made.get('weighted')}",
                ),
                ("ranges by", made.get("calibrator")),
                ("from training rows", number(made.get("examples"))),
                ("layers kept in float", kept),
            ]
        )


def _noise(snr_db: float | None) -> str | None:
    equal = snr_db is not None and snr_db >= EQUAL_DB
    return "equal bits" if equal else number(snr_db, unit="dB")


def resources(card: Record) -> Iterator[Block]:
    """Yield what the version needs, beside what the policy allows."""
    held = card["resources"]
    limits = card["constraints"]["resources"]
    rows = [
        [name, number(held["budget"].get(key), unit=unit),
         number(limits.get(key, {}).get("limit"), unit=unit) or "–"]
        for key, (name, unit) in RESOURCES.items()
    ]  # fmt: skip
    yield Facts([("graph", held["graph"]), ("measured on", held["processor"])])
    yield Table(["", "measured", "limit of the policy"], rows)
    sizes = [
        [str(b["batch"]), number(b["latency_p50_ms"], unit="ms"),
         number(b["latency_p99_ms"], unit="ms"), number(b["throughput_per_s"])]
        for b in held["batches"]
    ]  # fmt: skip
    if sizes:
        yield Table(["rows at once", "median", "slowest in a hundred", "rows a second"], sizes)
    engines = [[e["name"], e["state"], e["reason"] or "–"] for e in held["engines"]]
    yield Table(["engine", "state", "why"], engines)
