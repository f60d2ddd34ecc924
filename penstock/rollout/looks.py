"""Looks: what the controller saw at each of its looks, in a bounded file, for people and plots.

The ledger decides and the looks do not: without them a release goes on, and nothing but the lines
between two decisions is lost. Each line is a JSON object as :func:`look` makes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np

from penstock.bundle import write_text
from penstock.rollout.judgement import Judgement, Seen

FILE = "looks.jsonl"
MOST = 400
"""Lines kept when the file is thinned, which is done when there are twice as many."""

HEAVY = ("segments", "scatter")
HEAVY_EVERY = 20
"""Looks between two that hold what is long and changes slowly; one that acts always does."""

Look = Mapping[str, Any]


def looks_folder(home: Path, release: str) -> Path:
    """Return the folder of a release's looks below a home.

    >>> looks_folder(Path("h"), "digits/2/all/1").as_posix()
    'h/serving/releases/digits-2-all-1'
    """
    return home / "serving" / "releases" / release.replace("/", "-")


def look(
    *,
    at: datetime,
    step: str | None,
    share_percent: float,
    seen: Seen,
    summary: Mapping[str, Any],
    act: str = "hold",
    why: str = "",
    waits_for: str = "",
    until: datetime | None = None,
) -> dict[str, Any]:
    """Return one look as plain values; a number that is not finite becomes None.

    Args:
        step: Name of the step in force, None before the first.
        share_percent: Of users, that the challenger answers.
        summary: Counts of the evidence, as :meth:`Evidence.summary` gives them; its ``scatter``
            is moved out of it.
        act: What was decided; ``hold`` where nothing was.
        waits_for, until: What a hold waits for, and when it is decided otherwise at the latest.
    """
    counts = dict(summary)
    scatter = counts.pop("scatter", None)
    document = {
        "at": at,
        "step": step,
        "share_percent": share_percent,
        **_judged(seen.judgement),
        "summary": counts,
        "scatter": scatter,
        "act": act,
        "why": why,
        "waits_for": waits_for,
        "until": until,
        "ready": seen.ready,
        "refused": seen.refused,
        "conflict": seen.conflict,
        "evidence_at": seen.evidence_at,
        "standby_ready": seen.standby_ready,
        "drilled": seen.drilled,
        "documents": seen.documents,
        "killed": seen.killed,
    }
    return cast("dict[str, Any]", plain(document))


def _judged(judgement: Judgement | None) -> dict[str, Any]:
    if judgement is None:
        return {"outcome": None, "effect": None, "reason": "", "critical": "", "rows": []}
    return {
        "outcome": str(judgement.outcome),
        "effect": str(judgement.effect),
        "reason": judgement.reason,
        "critical": judgement.critical,
        "rows": judgement.rows,
        "segments": judgement.segments,
    }


def plain(value: object) -> object:
    """Return a value as JSON takes it: times as text, numbers that are not finite as None.

    >>> plain({"low": float("-inf"), "users": (3, 4)})
    {'low': None, 'users': [3, 4]}
    """
    if isinstance(value, np.generic):
        return plain(cast("Any", value).item())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in cast("Sequence[object]", value)]
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value.isoformat() if isinstance(value, datetime) else str(value)


class Looks:
    """Writes the looks of one release. A disk that takes none costs looks, never the release."""

    def __init__(self, folder: Path, *, most: int = MOST) -> None:
        """Append to the file of a folder, which is made when the first look is noted."""
        self._folder, self._most = folder, most
        self._count: int | None = None
        self._since_heavy = HEAVY_EVERY
        self._step: object = None
        self.problem = ""
        """Why the last look could not be kept; empty where it was."""

    def note(self, seen: Look) -> None:
        """Keep one look."""
        try:
            self._append(self._lightened(seen))
            self.problem = ""
        except OSError as e:
            # What was written of the line is torn; the next one begins anew.
            self._count = None
            self.problem = f"looks are not kept: {e}"

    def _lightened(self, seen: Look) -> Look:
        """Leave out what is long, unless it is due or belongs to a decision."""
        due = self._since_heavy >= HEAVY_EVERY or seen["step"] != self._step
        if due or seen["act"] != "hold":
            self._since_heavy, self._step = 1, seen["step"]
            return seen
        self._since_heavy += 1
        return _without(seen)

    def _append(self, seen: Look) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        file, begin = self._folder / FILE, ""
        if self._count is None:
            # A writer that was killed may have left a line without its end.
            begin, self._count = "\n", len(read_looks(self._folder))
        with file.open("a", encoding="utf-8") as out:
            out.write(begin + _line(seen))
        self._count += 1
        if self._count >= 2 * self._most:
            kept = thinned(read_looks(self._folder), self._most)
            write_text(file, "".join(map(_line, kept)))
            self._count = len(kept)


def _line(seen: Look) -> str:
    return json.dumps(seen, allow_nan=False, separators=(",", ":")) + "\n"


def _without(seen: Look) -> Look:
    return {k: v for k, v in seen.items() if k not in HEAVY}


def read_looks(folder: Path) -> list[dict[str, Any]]:
    """Return the looks of a release, oldest first; lines that were cut off are left out.

    A file that is not there holds none: the release looks nowhere yet, or is of another machine.
    """
    try:
        text = (folder / FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [found for line in text.splitlines() if (found := _read(line)) is not None]


def _read(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
        datetime.fromisoformat(found["at"])
    except (ValueError, TypeError, KeyError):
        return None
    return found


def thinned(looks: Sequence[Look], most: int) -> list[Look]:
    """Return at most ``most`` looks, in order: the ends, the changes, and the rest evenly in time.

    What is long stays with the last look of each step alone.
    """
    if len(looks) <= most:
        return list(looks)
    changes = [i for i in range(1, len(looks)) if _said(looks[i]) != _said(looks[i - 1])]
    marks = {0, len(looks) - 1, *changes[-most // 2 :]}
    kept = sorted({*marks, *_spaced(looks, max(0, most - len(marks)))})
    last = {looks[i]["step"]: i for i in kept}
    return [looks[i] if last[looks[i]["step"]] == i else _without(looks[i]) for i in kept]


def _said(seen: Look) -> tuple[object, ...]:
    return tuple(seen.get(name) for name in ("step", "outcome", "act", "waits_for"))


def _spaced(looks: Sequence[Look], most: int) -> Iterable[int]:
    """Return the first look of each of ``most`` equally long parts of the time."""
    at = [datetime.fromisoformat(seen["at"]) for seen in looks]
    gap = (at[-1] - at[0]) / max(1, most)
    if not most or gap <= timedelta(0):
        return ()
    parts = [min(most - 1, max(0, (moment - at[0]) // gap)) for moment in at]
    return {part: i for i, part in reversed(list(enumerate(parts)))}.values()
