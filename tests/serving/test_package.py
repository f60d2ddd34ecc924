"""Laws of a loaded package: what columns become, when it is warm, what batches it takes."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from penstock.bundle import MANIFEST, Recipe, Summary, write, write_json
from penstock.endpoint import Endpoint
from penstock.online.layout import KeyColumn, Layout, ViewLayout
from penstock.request import STAMP, TYPES, Contract, Feature, instances
from penstock.runtimes.onnxruntime import OnnxModel
from serving.package import MOST_ROUNDS, ROUNDS, WINDOW, NotServable, Served, Warmth, settled
from serving.rows import Rows, from_instances, taken
from tests.bundles import NOW
from tests.packages import DIGITS, GOLDEN, make_package, table
from workloads.digits.transform import request_input

LISTS = "list<element: float>"
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**53), 2**53),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    STAMP: st.integers(946_684_800_000_000, 4_102_444_800_000_000),
    LISTS: st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)),
}


@st.composite
def snapshots(draw: st.DrawFn) -> tuple[Contract, pa.Table]:
    """Return a contract of any features, and rows as a snapshot has them."""
    kinds = draw(st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=4))
    n, features, columns = draw(st.integers(1, 5)), list[Feature](), dict[str, pa.Array]()
    for number, kind in enumerate(kinds):
        length = draw(st.integers(1, 4)) if kind == LISTS else None
        nullable = length is None and draw(st.booleans())
        one = VALUES[kind]
        if length is not None:
            one = st.lists(st.floats(-9, 9, width=32), min_size=length, max_size=length)
        values = draw(st.lists(st.none() | one if nullable else one, min_size=n, max_size=n))
        feature = Feature(name=f"f{number}", dtype=kind, length=length, nullable=nullable)
        features.append(feature)
        columns[feature.name] = pa.array(values, feature.arrow)
    return replace(DIGITS, features=tuple(features)), pa.table(columns)


@given(snapshots())
def test_columns_become_the_very_table_that_training_saw(made: tuple[Contract, pa.Table]):
    """Rows of a snapshot, as they are sent, are the same table again: types, values and gaps."""
    contract, rows = made

    again = Rows(contract)(from_instances(instances(contract, rows), contract))

    again.validate(full=True)
    assert again.equals(rows)


@given(snapshots(), st.data())
def test_rows_that_are_taken_are_those_rows(made: tuple[Contract, pa.Table], data: st.DataObject):
    """Columns that are views or of another layout in memory give the same table."""
    contract, rows = made
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=7))
    columns = from_instances(instances(contract, rows), contract)

    again = Rows(contract)(taken(columns, np.array(chosen)))
    slanted = Rows(contract)({n: np.asfortranarray(v[::-1]) for n, v in columns.items()})

    assert again.equals(rows.take(chosen))
    assert slanted.equals(rows.take(list(range(len(rows)))[::-1]))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Return a package, loaded."""
    return Served(make_package(tmp_path_factory.mktemp("packages") / "package").path)


def test_columns_and_rows_are_answered_by_the_graph(served: Served):
    """Columns give what the graph gives for the transform of the same rows, batch or alone."""
    graph = OnnxModel(served.bundle.file("model.onnx"))
    expected = graph.run(request_input(table(GOLDEN)))

    actual = served.infer({"pixels": GOLDEN})

    np.testing.assert_array_equal(expected, actual)
    np.testing.assert_array_equal(expected, served.logits(table(GOLDEN)))
    alone = [served.infer({"pixels": GOLDEN[i : i + 1]})[0] for i in range(len(GOLDEN))]
    np.testing.assert_allclose(expected, np.array(alone), rtol=1e-5)


def test_a_package_of_before_still_serves(served: Served):
    """Without a layout, rules, other runtimes or an endpoint in its files, it has none and runs."""
    assert "runtimes" not in served.bundle.json("golden.json")
    assert (served.layout, served.rules) == (None, None)
    assert served.check_golden() == len(GOLDEN)


def right_only_alone(folder: Path) -> Summary:
    """Write a package whose graph adds the number of rows besides the first to every logit."""
    good = make_package(folder.with_name("good"))
    shutil.copytree(good.path, folder, dirs_exist_ok=True)
    (folder / MANIFEST).unlink()
    model = onnx.load(folder / "model.onnx")
    model.graph.node[-1].output[0] = "right"
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    model.graph.initializer.append(one)
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["image"], ["rows"], start=0, end=1),
            helper.make_node("Cast", ["rows"], ["rows_float"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["rows_float", "one"], ["others"]),
            helper.make_node("Add", ["right", "others"], ["logits"]),
        ]
    )
    onnx.save(model, folder / "model.onnx")
    return Summary("pass", "made for a test")


def test_a_graph_that_is_wrong_for_many_rows_is_not_ready(tmp_path: Path):
    """Right answers to rows alone do not vouch for batches: warming looks at what they give."""
    recipe = Recipe(kind="package", workload="digits")
    served = Served(write(tmp_path / "bad", recipe, make=right_only_alone, now=NOW).path)

    assert served.check_golden() == len(GOLDEN)
    with pytest.raises(NotServable, match=r"request 1 of 3, in a batch of 2, .* 1 apart, 0\.001"):
        served.warm()


def test_layout_and_rules_come_from_the_package(tmp_path: Path):
    """What the snapshot knew of online features, and the rules, are those of the files."""
    key = KeyColumn(name="user", asked="user_id", kind="INT64")
    view = ViewLayout(name="v", keys=(key,), features=("age",), fields=("00",), ttl_s=None)
    layout = Layout(project="p", service="s", definitions="sha256:1", views=(view,))

    def more(folder: Path) -> None:
        write_json(folder / "online.json", layout.to_dict())
        (folder / "rules.py").write_text("def rules(columns):\n    return len(columns['pixels'])\n")

    served = Served(make_package(tmp_path / "package", more=more).path)

    assert served.layout == layout
    assert served.rules is not None
    assert served.rules({"pixels": GOLDEN}) == len(GOLDEN)


def timed(durations_ms: Any) -> Callable[[], float]:
    """Return a clock by which calls take these times."""
    ends = itertools.chain.from_iterable((0.0, ms / 1000) for ms in durations_ms)
    return lambda: next(ends)


def test_first_and_steady_times_are_kept_of_every_batch(served: Served):
    """The first call counts as the first, and the last ones as steady, whatever lay between."""
    warmth = served.warm(timed(itertools.cycle([40.0, 9.0, 2.0, 2.0, 2.0, 2.0, 2.0])))

    assert [w.batch for w in warmth] == [1, 2, 4, 8, 16, 32, 64]
    assert {(w.first_ms, w.steady_ms, w.rounds) for w in warmth} == {(40.0, 2.0, 7)}
    assert served.warmth == warmth


def test_what_still_gets_quicker_is_not_ready(served: Served):
    """A model whose calls are never at their steady time is refused, and says how long it tried."""
    falling = (1e6 * 0.9**n for n in itertools.count())

    with pytest.raises(NotServable, match=f"quicker after {MOST_ROUNDS} calls"):
        served.warm(timed(falling))


@given(st.lists(st.floats(0.01, 100), min_size=WINDOW, max_size=WINDOW))
def test_noise_does_not_keep_a_server_from_starting(noise_ms: list[float]):
    """Times that are uneven, however much, and get no quicker, are settled after ``ROUNDS``."""
    repeated = noise_ms * (ROUNDS // WINDOW)

    assert any(settled(repeated[:n]) for n in range(1, ROUNDS + 1))


@given(st.floats(0.01, 100), st.integers(0, 20))
def test_slow_first_calls_do_not_count_as_settled(steady_ms: float, slow: int):
    """Calls that were ten times as slow are outlasted: it takes a window of quick ones after."""
    times = [10 * steady_ms * 2 ** (slow - n) for n in range(slow)] + [steady_ms] * WINDOW

    assert settled(times) == (slow > 0)
    assert not any(settled(times[:n]) for n in range(min(slow + WINDOW, len(times))))


def warmed(served: Served, *steady_ms: float, max_batch_ms: float = 5.0) -> Served:
    """Return a package as if it was warmed with these times of batches of 1, 2, 4 and so on."""
    served = copy(served)
    served.warmth = [
        Warmth(batch=2**i, first_ms=9.0, steady_ms=ms, rounds=6) for i, ms in enumerate(steady_ms)
    ]
    served.contract = replace(served.contract, endpoint=Endpoint(max_batch_ms=max_batch_ms))
    return served


def test_a_batch_is_as_large_as_its_time_allows(served: Served):
    """The largest batch within the bound, and one row where not even that is."""
    warm = warmed(served, 1.0, 1.5, 2.5, 6.0)

    assert [warm.batch_most(ms) for ms in (0.5, 1.5, 2.0, 5.0, 60.0)] == [1, 2, 2, 4, 8]


def test_batching_pays_only_where_a_row_gets_cheaper_within_the_bound(served: Served):
    """Not where time grows with the rows, nor where the bound leaves no batch, nor unwarmed."""
    assert warmed(served, 1.0, 1.1, 1.2).batching_pays
    assert not warmed(served, 1.0, 1.9, 3.8).batching_pays
    assert not warmed(served, 6.0, 6.1, 6.2).batching_pays
    assert not warmed(served).batching_pays
