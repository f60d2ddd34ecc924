"""Evidence rows a second: the log read, joined and judged, beside bare scans of the same files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from benchmarks.scale import logs
from penstock import workload as workloads
from penstock.policy import Slice
from penstock.predictions import files
from penstock.release import EVERYWHERE
from penstock.rollout import lines
from penstock.rollout.judge import judge
from penstock.rollout.judgement import Window
from penstock.rollout.plan import plan_of
from penstock.rollout.reading import LogReader

Figures = dict[str, Any]

GROUPED = """
SELECT version, "user", count(*), sum(CASE WHEN status >= 500 THEN 1 ELSE 0 END), max(latency_ms)
FROM {source} GROUP BY ALL
"""
"""The least that a comparison of users needs."""


def measured(folder: Path, *, rows: int, form: str) -> Figures:
    """Return the figures of one log, taken in a process of their own so that memory is theirs."""
    folders = logs.write(folder, rows, form=form)
    try:
        with get_context("spawn").Pool(1, maxtasksperchild=1) as alone:
            ours = alone.apply(_ours, (folders, rows))
        with get_context("spawn").Pool(1, maxtasksperchild=1) as alone:
            floor = alone.apply(_floor, (folders, form))
    finally:
        shutil.rmtree(folder)
    return {
        "rows": rows, "form": form, **ours, **floor,
        "rows_per_s": rows / ours["read_cpu_s"],
        "to_arrow": ours["read_cpu_s"] / floor["arrow_cpu_s"],
        "to_duckdb": ours["read_cpu_s"] / floor["duckdb_cpu_s"],
    }  # fmt: skip


def _ours(folders: Mapping[str, Path], rows: int) -> Figures:
    declared = workloads.load(logs.WORKLOAD)
    plan = plan_of(declared.rollout)
    reader = LogReader(logs=folders, outcomes=Path("outcomes.jsonl"), declared=declared)
    before_mb = peak_mb()
    read_s = _cpu(reader.poll)
    held_mb = peak_mb() - before_mb
    now_s = logs.BEGUN + rows / logs.PER_S
    window = Window(
        market=EVERYWHERE, champion="1", challenger="2", step=plan.steps[1], since=logs.BEGUN,
        opened=logs.BEGUN,
    )  # fmt: skip
    found: list[Any] = []
    join_s = _cpu(lambda: found.append(reader.evidence(window, now=now_s, alive=True)))
    evidence, now = found[0], datetime.fromtimestamp(now_s, UTC)
    judge_s = _cpu(lambda: judge(plan, evidence, plan.steps[1], now=now))
    users = evidence.challenger.users + evidence.champion.users
    assert len(evidence.challenger) + len(evidence.champion) == rows == len(reader.rows.requests)
    taken_mb = peak_mb() - before_mb
    return {
        "read_cpu_s": read_s, "join_cpu_s": join_s, "judge_cpu_s": judge_s,
        "look_s": join_s + judge_s, "users": users, "held_mb": held_mb, "peak_mb": taken_mb,
        "bytes_a_row": taken_mb * 2**20 / rows, "bytes_a_user": taken_mb * 2**20 / users,
    }  # fmt: skip


def _floor(folders: Mapping[str, Path], form: str) -> Figures:
    """Return what bare scans of the same columns cost, on one thread as ours."""
    ending = files.PARQUET if form == "parquet" else files.JOURNAL
    paths = [path for folder in folders.values() for path in sorted(folder.glob(f"*{ending}"))]
    pa.set_cpu_count(1)
    sort = "read_parquet" if form == "parquet" else "read_json"
    names = ", ".join(f"'{path}'" for path in paths)
    with duckdb.connect(config={"threads": 1}) as database:
        query = GROUPED.format(source=f"{sort}([{names}])")
        duckdb_s = _cpu(lambda: database.execute(query).fetchall())
    wanted = lines.schema(sorted({part.column for part in _slices()}))
    read = _parquet if form == "parquet" else _json
    arrow_s = _cpu(lambda: [read(path, wanted) for path in paths])
    held = sum(path.stat().st_size for path in paths)
    return {"arrow_cpu_s": arrow_s, "duckdb_cpu_s": duckdb_s, "mb": held / 2**20}


def _slices() -> list[Slice]:
    """Return the slices that a log can tell: those that are looked at."""
    declared = workloads.load(logs.WORKLOAD)
    return [part for part in declared.slices if part.column not in declared.endpoint.hashed]


def _parquet(path: Path, wanted: pa.Schema) -> int:
    features = [f"features.{field.name}" for field in wanted.field("features").type]
    columns = [name for name in wanted.names if name != "features"]
    return len(pq.read_table(path, columns=[*columns, *features], use_threads=False))


def _json(path: Path, wanted: pa.Schema) -> int:
    options = pj.ParseOptions(explicit_schema=wanted, unexpected_field_behavior="ignore")
    whole = pj.ReadOptions(use_threads=False, block_size=64 << 20)
    return len(pj.read_json(path, read_options=whole, parse_options=options))


def _cpu(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def peak_mb() -> float:
    """Return the most memory that this process has held; of its own, not of who started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
