"""What the ladder leaves: its numbers, the line of its stage, the inputs that fare worst."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from penstock.equivalence import engines, inputs, running
from penstock.equivalence.climb import CPU, Ladder
from penstock.equivalence.holdout import Holdout
from penstock.stats import comparison


def document(found: Ladder) -> dict[str, Any]:
    """Return what ``ladder.json`` holds."""
    steps = [
        {**one.to_dict(), "goes_wrong_at": found.located[one.name].said} for one in found.steps
    ]
    # What an engine computes inside cannot be seen from here.
    steps += [{**one.to_dict(), "goes_wrong_at": None} for one in found.engines.steps]
    floor = {
        "jitter": inputs.JITTER,
        "rows": len(found.golden.inputs_n),
        "snr_db": found.floor_db,
    }
    return {"steps": steps, "engines": list(found.engines.states), "floor": floor}


def line(found: Ladder) -> str:
    """Return what was kept at each step, which engines did not run, the verdict, and where."""
    steps = (*found.steps, *found.engines.steps)
    kept = {one.name: f"{one.name} {one.parts[0].found.agreement:.2%} agree" for one in steps}
    # No later step is held against it.
    beside = kept.pop(CPU)
    # Why is said by the stage that tried, and in the report.
    others = [
        f"{state['name']} {engines.word(state)}"
        for state in found.engines.states
        if state["state"] != engines.RAN
    ]
    where = [f"{name} goes wrong at {one.said}" for name, one in found.located.items() if one.said][
        :1
    ]
    ladder = " → ".join(["torch", *kept.values()])
    return "; ".join([ladder, f"beside it {beside}", *others, found.verdict.reason, *where])


def worst(found: Ladder, holdout: Holdout) -> pa.Table:
    """Return the worst inputs of each step.

    Columns: ``step``, ``row`` of the holdout, ``key`` as JSON, ``label``, the decisions ``before``
    and ``after``, and the largest ``error`` of a logit. A golden row that the holdout does not have
    is row -1, without key and label.
    """
    logits, threshold = found.outputs.logits, holdout.declared.threshold
    rows = [
        (one.name, *each)
        for one in found.steps
        for each in comparison.worst(logits[one.against], logits[one.name], threshold=threshold)
    ]
    given = found.golden
    numbers = [found.outputs.rows.get(running.fingerprint(x), -1) for x in given.inputs_n]
    rows += [
        (name, numbers[i], before, after, error)
        for name, outputs in found.engines.outputs.items()
        for i, before, after, error in comparison.worst(given.int8_nk, outputs, threshold=threshold)
    ]
    at = np.array([row[1] for row in rows], np.int64)
    known = at[at >= 0]
    keys = dict(zip(known.tolist(), holdout.keys(known), strict=True))
    labels = dict(zip(known.tolist(), holdout.labels()[known].tolist(), strict=True))
    return pa.table(
        {
            "step": [row[0] for row in rows],
            "row": at,
            "key": [keys.get(row[1]) for row in rows],
            "label": [labels.get(row[1]) for row in rows],
            "before": [row[2] for row in rows],
            "after": [row[3] for row in rows],
            "error": [row[4] for row in rows],
        }
    )
