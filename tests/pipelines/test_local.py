"""Laws of the local runner: steps become events, a refusal says why, nothing is skipped unseen."""

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from kfp import dsl
from kfp.compiler import Compiler

from penstock.stage import MARK
from pipelines.local import Steps, execute

# No postponed annotations here: kfp reads a component's types from the function itself.

OUTPUT = [
    "04:31:36.409 - INFO - Executing task '\x1b[96mfeatures\x1b[0m'",
    "some library: talking",
    MARK + '{"stage": "features", "outcome": "pass", "line": "", "fingerprint": "", "reused": 1}',
    "04:31:38 - Task '\x1b[96mfeatures\x1b[0m' finished with status \x1b[92mSUCCESS\x1b[0m",
    "04:31:38.100 - INFO - Executing task 'datachecks'",
    "Traceback (most recent call last):",
    "penstock.stage.Refused: data refused: 3 of 9 rows",
    "04:31:39.000 - INFO - Task 'datachecks' finished with status FAILURE",
]


def events(pieces: list[str]) -> list[dict[str, Any]]:
    """Return the events of output that arrives in these pieces."""
    found: list[dict[str, Any]] = []
    steps = Steps(io.StringIO(), lambda e: found.append(dict(e)))
    for piece in pieces:
        steps.write(piece)
    for event in found:
        event.pop("seconds", None)
    return found


def test_output_becomes_events():
    """A step's start, its line, its end and the reason of a refusal are each told."""
    started, finished, _, refused = events([line + "\n" for line in OUTPUT])

    assert started == {"event": "started", "task": "features"}
    assert finished["ok"]
    assert finished["said"]["reused"]
    assert (refused["ok"], refused["refused"]) == (False, True)
    assert refused["reason"] == "data refused: 3 of 9 rows"


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_events_do_not_depend_on_how_output_arrives(cuts: list[int]):
    """Cut anywhere, the same output gives the same events."""
    text, pieces = "\n".join(OUTPUT) + "\n", []
    for cut in cuts:
        pieces.append(text[:cut])
        text = text[cut:]

    assert events([*pieces, text]) == events([line + "\n" for line in OUTPUT])


def test_a_branch_that_could_not_be_decided_is_not_success(tmp_path: Path):
    """kfp.local skips a condition on a named output and says SUCCESS; the runner says it failed."""
    component = dsl.component(base_image="python", install_kfp_package=False)

    @component
    def two() -> NamedTuple("Two", [("decision", str)]):  # pyright: ignore[reportInvalidTypeForm]
        return ("promote",)  # pyright: ignore[reportReturnType]

    @component
    def after():
        print("reached")

    @dsl.pipeline(name="skips")
    def skips():
        judged = two()
        with dsl.If(judged.outputs["decision"] == "promote"):
            after()

    Compiler().compile(skips, str(tmp_path / "skips.yaml"))
    found: list[dict[str, Any]] = []

    ok = execute(tmp_path / "skips.yaml", {}, root=tmp_path, emit=lambda e: found.append(dict(e)))

    assert not ok
    assert "unresolved" in [e["event"] for e in found], json.dumps(found)
