"""Ledger: append-only, signed, hash-chained record of every release decision."""

from penstock.ledger.actors import ROLES, Actor, KeyFileError, actor_from_environment
from penstock.ledger.audit import Audit, Broken
from penstock.ledger.chain import Ledger
from penstock.ledger.entry import Conflict, Entry, Head, LedgerError, NoLedger
from penstock.ledger.export import export, export_broken, verify_export
from penstock.ledger.lifecycle import (
    MOVED,
    REGISTERED,
    Stage,
    champion,
    deployable,
    package_of,
    serving_order,
    stage_of,
)
from penstock.ledger.roll import NotEnrolled

__all__ = [
    "MOVED",
    "REGISTERED",
    "ROLES",
    "Actor",
    "Audit",
    "Broken",
    "Conflict",
    "Entry",
    "Head",
    "KeyFileError",
    "Ledger",
    "LedgerError",
    "NoLedger",
    "NotEnrolled",
    "Stage",
    "actor_from_environment",
    "champion",
    "deployable",
    "export",
    "export_broken",
    "package_of",
    "serving_order",
    "stage_of",
    "verify_export",
]
