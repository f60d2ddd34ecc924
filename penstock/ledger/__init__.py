"""Ledger: append-only, hash-chained record of every release decision."""

from penstock.ledger.chain import Entry, Ledger, LedgerError
from penstock.ledger.lifecycle import Stage, champion, stage_of

__all__ = ["Entry", "Ledger", "LedgerError", "Stage", "champion", "stage_of"]
