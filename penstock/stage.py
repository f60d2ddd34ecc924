"""Stage: carry out one step: name what it makes, reuse or make it, say how it ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from penstock import workload as workloads
from penstock.bundle import (
    Bundle,
    BundleError,
    Recipe,
    Summary,
    code_revision,
    environment_revision,
    produce,
    read,
    store_from_environment,
)
from penstock.verdict import Outcome, Verdict

MARK = "::penstock "
"""Starts a line of machine-readable progress on a step's standard output."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a stage said when it ended."""

    stage: str
    outcome: str
    line: str
    fingerprint: str
    reused: bool


class Refused(RuntimeError):
    """A stage's verdict forbids going on. The text is the reason in one sentence."""


def carry_out(
    stage: str,
    *,
    kind: str,
    workload: str,
    inputs: Mapping[str, Bundle],
    settings: Mapping[str, Any],
    make: Callable[[Path], Summary],
    out: Path,
    now: datetime,
    quiet: bool = False,
) -> Bundle:
    """Put the stage's bundle at ``out``, made now or reused, and print its line.

    Args:
        stage: The stage's word; its package's sources become part of the fingerprint.
        inputs: Verified bundles it is made from; their fingerprints become part of its own.
        settings: What else decides the result, as plain values.
        make: Fills a folder and returns the line.
        quiet: Leave the line to the stage, which has more to do before it is true.

    Raises:
        BundleError: An input is another workload's.
    """
    for name, bundle in inputs.items():
        if (of := bundle.manifest["workload"]) != workload:
            raise BundleError(f"{name} at {bundle.path} is of {of!r}, not of {workload!r}.")
    recipe = Recipe(
        kind=kind,
        workload=workload,
        inputs={name: bundle.fingerprint for name, bundle in inputs.items()},
        settings=settings,
        code=code_revision(*workloads.sources(stage, workload)),
        environment=environment_revision(),
    )
    bundle, reused = produce(out, recipe, make=make, now=now, store=store_from_environment())
    if not quiet:
        say(stage, bundle, line=bundle.summary.line, reused=reused)
    return bundle


def say(stage: str, bundle: Bundle, *, line: str, reused: bool) -> None:
    """Print how a stage ended, for people to read and for the runner to pick out."""
    said = Progress(
        stage=stage,
        outcome=bundle.summary.outcome,
        line=line,
        fingerprint=bundle.fingerprint,
        reused=reused,
    )
    print(MARK + json.dumps(asdict(said)), flush=True)


def parse(text: str) -> Progress | None:
    """Return the progress in a line of output, or None if it is an ordinary line."""
    _, mark, document = text.partition(MARK)
    if not mark:
        return None
    try:
        return Progress(**json.loads(document))
    except (json.JSONDecodeError, TypeError):
        return None


def verdict_of(bundle: Bundle) -> Verdict:
    """Return the verdict a bundle carries in ``verdict.json``."""
    return Verdict.from_dict(bundle.json("verdict.json"))


def require_pass(path: Path, *, kind: str) -> Bundle:
    """Return the bundle if its verdict is a pass.

    Raises:
        Refused: It is anything else; only a pass moves forward.
    """
    bundle = read(path, kind=kind)
    verdict = verdict_of(bundle)
    if verdict.outcome is not Outcome.PASS:
        raise Refused(f"{kind} is {verdict.outcome}: {verdict.reason}")
    return bundle
