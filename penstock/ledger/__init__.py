"""Ledger: append-only, hash-chained record of every release decision."""

from penstock.ledger.chain import Entry, Ledger, LedgerError
from penstock.ledger.lifecycle import (
    REGISTERED,
    Stage,
    champion,
    package_of,
    serving_order,
    stage_of,
)

__all__ = [
    "REGISTERED",
    "Entry",
    "Ledger",
    "LedgerError",
    "Stage",
    "champion",
    "package_of",
    "serving_order",
    "stage_of",
]
