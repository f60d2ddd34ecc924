"""A controller as a process: ``python -m tests.stories.controller HOME POLICY``, to be killed."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from penstock.ledger import Ledger
from penstock.processes import die_with_parent, undisturbed
from tests.stories.house import carrying


def main(home: Path, policy: Path) -> None:
    """Carry every release of a home until it ends."""
    die_with_parent()
    ledger = Ledger(f"sqlite:///{home / 'ledger.db'}")
    given = pickle.loads(policy.read_bytes())
    with carrying(home, ledger, given) as conductor, undisturbed() as heed:
        conductor.carry(heed)
    ledger.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
