"""Laws of the behaviours: rows are changed as the world would change them, and in nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from penstock import workload as workloads
from penstock.gate.behaviour import judge_behaviours
from penstock.policy import Direction, Invariance, MinimumFunctionality
from penstock.register.contract import contract_of
from penstock.request import request_input
from tests.serving.tables import rows as drawn
from tests.workloads.test_credit import client, table
from workloads.credit import behaviour as credit
from workloads.credit import data as clients
from workloads.streamrec import behaviour as streamrec
from workloads.streamrec.simulator import Settings, World, feature_rows
from workloads.streamrec.transform import FEATURES

LINES = [client(i, np.random.default_rng(i)) for i in range(1, 201)]
SEPTEMBER = len(LINES)
"""Rows of the last month stand at the end."""


def september(lines: list[dict[str, object]]) -> pa.Table:
    """Return the clients' features of the month that is decided on."""
    held = clients.months(table(lines))
    return held.slice(len(held) - SEPTEMBER)


def changed(name: str, change: Callable[[int], int]) -> list[dict[str, object]]:
    """Return the clients with one number of September changed in the source."""
    return [{**line, name: change(int(str(line[name])))} for line in LINES]


def assert_same(made: pa.Table, wanted: pa.Table) -> None:
    """Compare two tables up to rounding."""
    assert made.schema == wanted.schema
    for name in wanted.column_names:
        found, right = made[name].to_numpy(), wanted[name].to_numpy()
        if found.dtype.kind == "f":
            np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-9, err_msg=name)
        else:
            assert (found == right).all(), name


def test_a_month_later_is_what_the_source_would_have_made_of_it():
    """A client one month later in the file has the features that the behaviour gives."""
    later = changed("PAY_0", lambda status: max(status, 0) + 1)

    assert_same(credit.a_month_later(september(LINES)), september(later))


def test_a_dollar_more_is_what_the_source_would_have_made_of_it():
    """A bill of one dollar more in the file has the features that the behaviour gives."""
    dearer = changed("BILL_AMT1", lambda bill: bill + 1)

    assert_same(credit.a_dollar_more(september(LINES)), september(dearer))


def test_nobody_is_later_than_the_data_know():
    """Who is nine months late already stays as they are."""
    late = september(changed("PAY_0", lambda _: 9))

    assert_same(credit.a_month_later(late), late)


def test_plain_clients_are_ones_the_declaration_allows():
    """Every value of a plain case is in its column's range, and both decisions are asked."""
    contract = contract_of(workloads.load("credit"))
    cases = credit.plain_clients(september(LINES).append_column("defaulted", pa.array([0] * 200)))

    assert np.isfinite(request_input(workloads.part("credit", "transform"))(cases)).all()
    for feature in contract.features:
        held = cases[feature.name].to_numpy()
        assert feature.low is None or (held >= feature.low).all()
        assert feature.high is None or (held <= feature.high).all()
    assert set(cases["defaulted"].to_pylist()) == {0, 1}


CONTRACT = contract_of(workloads.load("streamrec"))


def impressions() -> pa.Table:
    """Return impressions whose items are known in all columns or in none, as from one view."""
    rows = drawn(CONTRACT, 300).append_column("clicked", pa.array(np.arange(300) % 2))
    shown, unknown = rows["item_impressions_24h"], rows["item_impressions_24h"].is_null()
    clicks = pa.array(np.random.default_rng(2).integers(0, 500, 300))
    columns = {
        "item_clicks_24h": pc.min_element_wise(clicks, shown, skip_nulls=False),
        "item_rate_24h": pc.if_else(unknown, None, 0.1),
    }
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
    return rows


IMPRESSIONS = impressions()
STREAMREC = ("a_better_item", "a_better_match", "an_hour_later", "shown_once_more")


@pytest.mark.parametrize("name", STREAMREC)
def test_a_change_keeps_order_types_and_what_is_missing(name: str):
    """Nothing unknown becomes known, no column another type, and the ids stay in their rows."""
    made = getattr(streamrec, name)(IMPRESSIONS)

    assert made.schema == IMPRESSIONS.schema
    assert made["user_id"].equals(IMPRESSIONS["user_id"])
    for column in IMPRESSIONS.column_names:
        assert made[column].is_null().equals(IMPRESSIONS[column].is_null())


def test_rates_are_smoothed_as_the_simulator_smooths_them():
    """The rate of every item the simulator writes is the one the behaviours would work out."""
    world = World(Settings(impressions=2_000, days=3, warm_up_days=1))
    (_, held), *_ = feature_rows(world)
    items = held["items"]

    found = (items["item_clicks_24h"] + streamrec.PRIOR_CLICKS) / (
        items["item_impressions_24h"] + streamrec.PRIOR_IMPRESSIONS
    )

    assert len(found)
    np.testing.assert_allclose(found, items["item_rate_24h"])


def test_a_better_item_has_a_higher_rate_and_never_more_clicks_than_impressions():
    """Where it changes anything it raises the rate; counts stay possible."""
    made = streamrec.a_better_item(IMPRESSIONS)
    more = pc.greater(made["item_clicks_24h"], IMPRESSIONS["item_clicks_24h"])
    apart, both = made.filter(more), IMPRESSIONS.filter(more)

    assert len(apart)
    assert pc.all(pc.less_equal(apart["item_clicks_24h"], apart["item_impressions_24h"])).as_py()
    wanted = (both["item_clicks_24h"].to_numpy() + 20 + 1) / (
        both["item_impressions_24h"].to_numpy() + 10
    )
    np.testing.assert_allclose(apart["item_rate_24h"].to_numpy(), wanted)


def test_an_hour_later_changes_the_hour_alone():
    """The network sees the next of twenty-four hours, and all else to the bit."""
    transform, hour = (
        request_input(workloads.part("streamrec", "transform")),
        FEATURES.index("hour"),
    )
    was, made = (transform(t) for t in (IMPRESSIONS, streamrec.an_hour_later(IMPRESSIONS)))

    assert np.array_equal(made[:, hour], (was[:, hour] + 1) % 24)
    assert np.array_equal(np.delete(made, hour, axis=1), np.delete(was, hour, axis=1))


def test_a_model_that_turns_with_the_clock_does_not_behave():
    """A planted fault: it says yes in even hours, and the behaviour of an hour finds it."""
    declared = workloads.load("streamrec")
    asked = [b for b in declared.behaviours if getattr(b, "change", "") == "an_hour_later"]
    transform, hour = (
        request_input(workloads.part("streamrec", "transform")),
        FEATURES.index("hour"),
    )

    def by_the_clock(rows: pa.Table) -> np.ndarray:
        even = transform(rows)[:, hour] % 2 == 0
        return np.stack([0.0 * even, np.where(even, 2.0, -2.0)], axis=1)

    (found,) = judge_behaviours(replace(declared, behaviours=tuple(asked)), IMPRESSIONS,
                                by_the_clock)  # fmt: skip
    assert (found.share, found.outcome) == (0.0, "fail")


@pytest.mark.parametrize("name", ["credit", "streamrec"])
def test_a_model_that_says_the_same_of_everybody_keeps_no_direction(name: str):
    """Whatever else it passes: it looks at nothing."""
    declared = workloads.load(name)
    directions = tuple(b for b in declared.behaviours if isinstance(b, Direction))
    table = IMPRESSIONS if name == "streamrec" else september(LINES)

    found = judge_behaviours(
        replace(declared, behaviours=directions), table, lambda t: np.tile([0.0, -2.0], (len(t), 1))
    )
    assert [f.outcome for f in found] == ["fail"] * len(directions)


def test_plain_impressions_are_possible_and_of_both_kinds():
    """Fifty of each label, in range; who, where and when are the holdout's."""
    cases = streamrec.plain_impressions(IMPRESSIONS)

    assert cases["clicked"].value_counts().field("counts").to_pylist() == [50, 50]
    assert np.isfinite(request_input(workloads.part("streamrec", "transform"))(cases)).all()
    assert set(cases["user_id"].to_pylist()) <= set(IMPRESSIONS["user_id"].to_pylist())


@pytest.mark.parametrize("name", ["credit", "digits", "streamrec"])
def test_every_declared_behaviour_has_its_function(name: str):
    """A declaration names functions that exist."""
    module = workloads.part(name, "behaviour")

    for behaviour in workloads.load(name).behaviours:
        function = getattr(behaviour, "change", None) or getattr(behaviour, "cases", None)
        assert callable(getattr(module, str(function), None)), function


@pytest.mark.parametrize("name", ["credit", "streamrec"])
def test_all_three_kinds_are_asked_of_a_probability(name: str):
    """Invariance, direction and minimum functionality: one of each at least."""
    kinds = {type(b) for b in workloads.load(name).behaviours}

    assert kinds == {Direction, Invariance, MinimumFunctionality}


def test_credit_is_decided_as_its_costs_say():
    """The threshold is where costs are least; granting is the favour; a person approves."""
    declared = workloads.load("credit")

    assert declared.costs is not None
    assert declared.threshold == declared.costs.threshold == pytest.approx(0.2)
    assert (declared.favourable, declared.approval) == (0, "person")
    assert declared.retention.days >= 7 * 365
