"""Run the monitor stage: look at what the champion answered, judge it, say what moved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from penstock import registered
from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, hash_file, write_json
from penstock.ledger import Entry, Ledger, champion
from penstock.monitor import signals
from penstock.monitor.look import Asked, Found, look
from penstock.predictions.place import ADDRESS_VARIABLE
from penstock.stage import Refused, carry_out
from penstock.workload import Workload, settings_of

KIND = "monitor"
LEDGER_VARIABLE = "PENSTOCK_LEDGER"
"""Environment variable: SQLAlchemy URL of the ledger."""


def run(
    *, workload: str, predictions: str, outcomes: str, hours: int, out: Path, now: datetime
) -> str:
    """Write the verdict on the champion as a bundle at ``out``; return its package's address.

    It holds ``verdict.json``, ``signals.json`` (what retrain decides on) and the report,
    ``report.md`` and ``report.html``. A bad champion does not raise, nor does a log that is not
    there: that is an error in the verdict, never a pass.

    Args:
        predictions: Folder of the prediction log, or ``s3://bucket/folder``; empty takes what
            ``PENSTOCK_PREDICTIONS`` names.
        outcomes: File of outcomes as JSON lines, or ``s3://bucket/file``; empty looks at none.
        hours: How far back to look; for outcomes further, by how late a label comes.

    Raises:
        Refused: Nobody serves, so there is nothing to watch.
        ValueError: ``hours`` is not above 0, or no ledger or log is named.
        BundleError: The champion's package is not whole.
    """
    declared = workloads.load(workload)
    if hours < 1:
        raise ValueError(f"hours is {hours}; look at one hour or more.")
    asked = Asked(
        predictions=_address(predictions),
        outcomes=outcomes,
        since=now - timedelta(hours=hours),
        until=now,
    )
    entries = _entries(workload)
    version = champion(entries)
    if version is None:
        raise Refused(f"no version of {workload} serves everybody; there is nothing to watch yet.")
    package = registered.package(entries, version)
    found = look(declared, package, version, asked)
    carry_out(
        "monitor",
        kind=KIND,
        workload=workload,
        inputs={"package": package},
        settings=_settings(declared, found),
        make=lambda folder: _make(folder, declared, package, found),
        out=out,
        now=now,
    )
    return str(registered.registration(entries, version).body["package"])


def _address(named: str) -> str:
    address = named or os.environ.get(ADDRESS_VARIABLE, "")
    if not address:
        raise ValueError(f"no prediction log is named; give one, or set {ADDRESS_VARIABLE}.")
    return address


def _entries(workload: str) -> Sequence[Entry]:
    url = os.environ.get(LEDGER_VARIABLE)
    if not url:
        raise ValueError(
            f"{LEDGER_VARIABLE} is not set; name the ledger, sqlite:///path/ledger.db."
        )
    ledger = Ledger(url, looking=True)
    try:
        return ledger.entries(workload)
    finally:
        ledger.close()


def _settings(declared: Workload, found: Found) -> dict[str, Any]:
    """Return what the verdict depends on besides the package: the policy and what was read."""
    asked = found.asked
    file = Path(asked.outcomes)
    return {
        "watch": settings_of(declared.watch),
        "slices": [settings_of(part) for part in declared.slices],
        "version": found.version,
        "since": asked.since.isoformat(),
        "until": asked.until.isoformat(),
        "seen": None if found.seen is None else found.seen.digest,
        "outcomes": hash_file(file) if file.is_file() else asked.outcomes,
    }


def _make(folder: Path, declared: Workload, package: Bundle, found: Found) -> Summary:
    from penstock.monitor import page  # noqa: PLC0415 - matplotlib; only when drawing

    verdict, said = found.verdict, signals.of(declared, found)
    write_json(folder / "verdict.json", verdict.to_dict())
    write_json(folder / "signals.json", said)
    page.write(folder, page.of(declared, package, found, said["diagnosis"]))
    requests = 0 if found.seen is None else found.seen.requests
    who = f"version {found.version}, {requests:,} requests"
    return Summary(verdict.outcome, "; ".join([who, verdict.reason, said["diagnosis"]]))
