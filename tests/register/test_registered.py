"""Laws of registered packages: the very bytes that the ledger names, or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import registered
from penstock.bundle import BundleError
from penstock.ledger import REGISTERED, Ledger, Stage
from penstock.workload import load
from tests.bundles import NOW
from tests.people import person
from tests.register import admitted

DIGITS = load("digits")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in a file."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield held
    held.close()


def test_a_whole_package_in_the_place_of_the_registered_one_is_refused(
    tmp_path: Path, ledger: Ledger
):
    """Being whole is not enough: the digest of its entry decides."""
    right = admitted.package(tmp_path / "p", admitted.documents(DIGITS))
    other = admitted.package(tmp_path / "q", {**admitted.documents(DIGITS), "scores.json": None})
    admitted.registered(ledger, right)
    entries = ledger.entries("digits")
    assert registered.package(entries, 1).digest == right.digest

    shutil.rmtree(right.path)
    shutil.copytree(other.path, right.path)

    for asked in (registered.package, registered.package_to_serve):
        with pytest.raises(BundleError, match="registered as version 1 was"):
            asked(entries, 1)


def test_an_entry_without_a_digest_vouches_for_no_package(tmp_path: Path, ledger: Ledger):
    """Nothing shows that the package is the one; that is not a pass."""
    right = admitted.package(tmp_path / "p", admitted.documents(DIGITS))
    body = {"package": str(right.path), "fingerprint": right.fingerprint}
    named = {"workload": "digits", "version": 1, "kind": REGISTERED}
    ledger.append(**named, body=body, actor=person(), now=NOW)

    with pytest.raises(BundleError, match="registered as version 1 was"):
        registered.package(ledger.entries("digits"), 1)


def test_what_is_archived_is_read_and_not_served(tmp_path: Path, ledger: Ledger):
    """The record of an archived version stays; of one that never was there is none."""
    right = admitted.package(tmp_path / "p", admitted.documents(DIGITS))
    admitted.registered(ledger, right)
    move = {"workload": "digits", "version": 1, "to": Stage.ARCHIVED, "reason": "t"}
    ledger.move(**move, actor=person(), now=NOW)
    entries = ledger.entries("digits")

    assert registered.package(entries, 1).digest == right.digest
    with pytest.raises(LookupError, match="archived"):
        registered.package_to_serve(entries, 1)
    with pytest.raises(LookupError, match="version 2 is not in the ledger"):
        registered.package(entries, 2)
