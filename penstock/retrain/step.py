"""Run the retrain stage: decide on a look at the champion, and enter what was decided."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from penstock import workload as workloads
from penstock.bundle import Bundle, BundleError, Summary, read, write_json, write_text
from penstock.ledger import Actor, Conflict, Ledger, actor_from_environment
from penstock.release import Trigger
from penstock.report.documents import Facts, Page, Part, Says, markdown
from penstock.retrain.decide import Act, decide
from penstock.retrain.history import DECIDED, decided, history_of
from penstock.retrain.signals import Signals
from penstock.stage import Refused, carry_out
from penstock.verdict import Outcome
from penstock.workload import Workload

LEDGER_VARIABLE = "PENSTOCK_LEDGER"
"""Environment variable: SQLAlchemy URL of the ledger."""

TRIES = 5
"""Times that it is decided anew because another writer was faster."""

OUTCOMES = {Act.TRAIN: Outcome.PASS, Act.WAIT: Outcome.PASS, Act.DIAGNOSE: Outcome.FAIL}


def run(*, workload: str, monitor: Path, out: Path, now: datetime) -> str:
    """Write what was decided on the monitor's verdict as a bundle at ``out``, and return it.

    That is ``train``, ``wait``, or ``diagnose``: a person looks first. The bundle holds
    ``decision.json`` and ``report.md``. Whatever asked for a training is in the ledger with its
    reason, granted or not; a verdict that was decided on before is not decided on again.

    Raises:
        BundleError: The verdict is not whole, or another workload's.
        LedgerError: Whoever acts may not write.
        ValueError: ``PENSTOCK_LEDGER`` is not set.
    """
    declared = workloads.load(workload)
    watched = read(monitor, kind="monitor")
    if (of := watched.manifest["workload"]) != workload:
        raise BundleError(f"monitor at {monitor} is of {of!r}, not of {workload!r}.")
    ledger = Ledger(_ledger_url())
    try:
        said = decision(declared, watched, ledger, actor=actor_from_environment(), now=now)
    finally:
        ledger.close()
    carry_out(
        "retrain",
        kind="retrain",
        workload=workload,
        inputs={"monitor": watched},
        settings={"decision": said},
        make=lambda folder: _make(folder, declared, said),
        out=out,
        now=now,
    )
    return said["act"]


def trigger_of(path: Path) -> str:
    """Return why a training that a decision asks for is made; ``manual`` where it asks for none.

    Raises:
        BundleError: The decision is not whole.
    """
    return read(path, kind="retrain").json("decision.json")["trigger"] or str(Trigger.MANUAL)


def require_no_diagnosis(path: Path) -> None:
    """Do nothing unless a decision says that a person must look first.

    Raises:
        Refused: It does; the text is why.
        BundleError: It is not whole.
    """
    said = read(path, kind="retrain").json("decision.json")
    if said["act"] == Act.DIAGNOSE:
        raise Refused(f"look first: {said['reason']}")


def _ledger_url() -> str:
    url = os.environ.get(LEDGER_VARIABLE)
    if not url:
        raise ValueError(
            f"{LEDGER_VARIABLE} is not set; name the ledger, sqlite:///path/ledger.db."
        )
    return url


def decision(
    declared: Workload, watched: Bundle, ledger: Ledger, *, actor: Actor, now: datetime
) -> Mapping[str, Any]:
    """Return what is decided on a verdict; what asked for a training, or for a person, is entered.

    Raises:
        Conflict: Other writers of the ledger were faster every time.
        LedgerError: The actor may not write.
    """
    for left in reversed(range(TRIES)):
        try:
            return _decided(declared, watched, ledger, actor, now)
        except Conflict:
            if not left:
                raise
    raise AssertionError("unreachable: the last try returns or raises")


def _decided(
    declared: Workload, watched: Bundle, ledger: Ledger, actor: Actor, now: datetime
) -> Mapping[str, Any]:
    end, entries = ledger.head().sequence, ledger.entries(declared.name)
    if before := decided(entries, watched.digest):
        return before.body
    document = watched.json("signals.json")
    found = decide(declared.watch, history_of(entries), Signals.from_dict(document), now)
    body = {
        **found.to_dict(),
        "monitor": watched.digest,
        "since": document["since"],
        "until": document["until"],
        "diagnosis": document["diagnosis"],
    }
    if found.wish is not None or found.act is Act.DIAGNOSE:
        ledger.append(
            workload=declared.name,
            version=document["version"],
            kind=DECIDED,
            body=body,
            actor=actor,
            now=now,
            expect=end,
        )
    return body


def _make(folder: Path, declared: Workload, said: Mapping[str, Any]) -> Summary:
    act = Act(said["act"])
    write_json(folder / "decision.json", dict(said))
    write_text(folder / "report.md", markdown(_page(declared, said)))
    asked = f", asked for by {said['trigger']}" if act is Act.TRAIN else ""
    return Summary(OUTCOMES[act], f"{act}{asked}: {said['reason']}")


def _page(declared: Workload, said: Mapping[str, Any]) -> Page:
    facts = [
        ("asked for by", said["trigger"] or "nothing"),
        ("priority", said["priority"] or "none"),
        ("suppressed", "yes" if said["suppressed"] else "no"),
        ("looked at", f"{said['since']} to {said['until']}"),
    ]
    return Page(
        kicker=f"Training of {declared.title} again",
        title=f"{str(said['act']).capitalize()}: {said['reason']}",
        outcome=str(OUTCOMES[Act(said["act"])]),
        reason=f"Of what is asked and what is right: {said['diagnosis']}.",
        parts=[
            Part(
                title="Why",
                blocks=[
                    Says(str(said["asked"] or "Nothing asks for a training.")),
                    Facts(facts),
                ],
            )
        ],
    )
