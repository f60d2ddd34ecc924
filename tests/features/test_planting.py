"""Laws of planted rows: a join that sees the future is caught, and one that sees nothing too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from penstock.features import join as joins
from penstock.features.join import JoinError, View, joined
from penstock.features.planting import planted
from penstock.features.pointintime import Held
from penstock.features.source import Columns

T = datetime(2026, 1, 5, tzinfo=UTC)


def stamps(hours: list[int], unit: str) -> pa.Array:
    """Return instants by their hour."""
    return pa.array([T + timedelta(hours=h) for h in hours], pa.timestamp(unit, "UTC"))


def sources(folder: Path, *, unit: str = "us") -> list[View]:
    """Write two sources, a file and a folder, and return their views."""
    n = 6
    hours = list(range(n))
    users = {"uid": pa.array(range(n), pa.int64()), "at": stamps(hours, unit),
             "seen": stamps(hours, unit), "visits": [None, *range(1, n)]}  # fmt: skip
    items = {"item": [f"i{i}" for i in range(n)], "at": stamps(hours, unit), "price": [1.5] * n}
    pq.write_table(pa.table(users), folder / "users.parquet")
    (folder / "items").mkdir()
    pq.write_table(pa.table(items), folder / "items" / "0.parquet")
    here = fs.LocalFileSystem()
    return [
        View(name="users", path=str(folder / "users.parquet"), label_keys=("user",), ttl=None,
             columns=Columns(keys=("uid",), event="at", created="seen"),
             features={"visits": "visits"}, filesystem=here),
        View(name="items", path=str(folder / "items"), label_keys=("item",),
             ttl=timedelta(days=9), columns=Columns(keys=("item",), event="at", created=None),
             features={"price": "price"}, filesystem=here),
    ]  # fmt: skip


def labels(unit: str = "us") -> pa.Table:
    """Return label rows."""
    return pa.table(
        {"user": [3, 1, 1], "item": ["i2", "i0", None], "event_timestamp": stamps([5, 2, 9], unit)}
    )


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_an_honest_join_passes_and_nothing_stays_behind(tmp_path: Path, unit: str):
    """The planted rows change no answer, come off again, and leave the sources as they were."""
    views = sources(tmp_path, unit=unit)
    before, _ = joined(labels(unit), views, time="event_timestamp")

    with planted(labels(unit), views, time="event_timestamp") as asked:
        got, _ = joined(asked.labels, views, time="event_timestamp")
        kept = asked.gathered(got)

    assert kept.equals(before)
    assert asked.features == ("visits", "price")
    again, _ = joined(labels(unit), views, time="event_timestamp")
    assert again.equals(before)


def sees(change: Any) -> Any:
    """Return a search that looks at changed feature rows, unchecked by the join's own proof."""
    search = joins.newest_known

    def changed(asked: Any, held: Held, **named: Any) -> Any:
        return search(asked, change(held), **named)

    return changed


FAULTS = {
    "ignores when a value became known": lambda h: Held(h.codes_n, h.event_n, None),
    "sees events early": lambda h: Held(
        h.codes_n, h.event_n - 10**11, h.event_n - 10**11 if h.created_n is not None else None
    ),
    "finds nothing": lambda h: Held(h.codes_n[:0], h.event_n[:0], None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_join_that_leaks_or_loses_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
):
    """Whatever the join itself believes, the planted rows tell."""
    views = sources(tmp_path)
    monkeypatch.setattr(joins, "newest_known", sees(FAULTS[fault]))
    monkeypatch.setattr(joins, "_prove", lambda *_, **__: None)

    with (
        planted(labels(), views, time="event_timestamp") as asked,
        pytest.raises(JoinError, match="planted value"),
    ):
        asked.gathered(joined(asked.labels, views, time="event_timestamp")[0])


def test_the_sources_are_cleared_when_the_join_fails(tmp_path: Path):
    """A planted row never stays among real ones."""
    views = sources(tmp_path)

    with pytest.raises(RuntimeError), planted(labels(), views, time="event_timestamp"):
        raise RuntimeError

    rows = pq.read_table(tmp_path / "users.parquet")
    assert pc.min(rows["uid"]).as_py() == 0


def test_a_key_that_leaves_nothing_unused_is_refused(tmp_path: Path):
    """Truth values are all used; planting in them would touch a real entity."""
    views = sources(tmp_path)
    table = labels().set_column(0, "user", pa.array([True, False, True]))

    with (
        pytest.raises(JoinError, match="keys are whole numbers or text"),
        planted(table, views, time="event_timestamp"),
    ):
        pass
