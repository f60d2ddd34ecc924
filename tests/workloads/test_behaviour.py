"""Laws of the behaviours: rows are changed as the world would change them, and in nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from penstock import workload as workloads
from penstock.policy import Direction, Invariance, MinimumFunctionality
from penstock.register.contract import contract_of
from penstock.request import request_input
from tests.serving.tables import rows as drawn
from tests.workloads.test_credit import client, table
from workloads.credit import behaviour as credit
from workloads.credit import data as clients
from workloads.streamrec import behaviour as streamrec
from workloads.streamrec.simulator import Settings, World, feature_rows

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

    assert np.isfinite(request_input("credit")(cases)).all()
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
STREAMREC = ("a_better_item", "a_better_match", "another_minute", "shown_once_more")


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


def test_another_minute_is_the_same_to_the_network():
    """The transform knows the hour alone, so the input is the same to the bit."""
    transform = request_input("streamrec")
    made = streamrec.another_minute(IMPRESSIONS)

    assert not made["event_timestamp"].equals(IMPRESSIONS["event_timestamp"])
    assert np.array_equal(transform(made), transform(IMPRESSIONS))


def test_plain_impressions_are_possible_and_of_both_kinds():
    """Fifty of each label, in range; who, where and when are the holdout's."""
    cases = streamrec.plain_impressions(IMPRESSIONS)

    assert cases["clicked"].value_counts().field("counts").to_pylist() == [50, 50]
    assert np.isfinite(request_input("streamrec")(cases)).all()
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
