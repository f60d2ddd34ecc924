"""Laws of the feature contract: signed as it is, by who may; a changed one is signed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from penstock.cli import contract as contract_command
from penstock.ledger import Actor, Ledger, NotEnrolled
from penstock.register import featurecontract
from penstock.register.featurecontract import compose, digest_of, sign, signature
from penstock.stage import Refused
from penstock.workload import Approval, Column, Freshness, OnStale, Workload, load
from tests import strategies
from tests.bundles import NOW
from tests.people import person

DIGITS = load("digits")
REGULATED = replace(DIGITS, approval=Approval.PERSON)
CONTRACT = compose(DIGITS, definitions="sha256:feed")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger whose admin has enrolled a pipeline, an owner and a validator."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    for role in ("pipeline", "owner", "validator"):
        key, admin = person(f"the {role}").public_key, person("admin")
        held.enrol(name=f"the {role}", public_key=key, roles=[role], actor=admin, now=NOW)
    yield held
    held.close()


def signed(ledger: Ledger, declared: Workload, contract: dict[str, Any]) -> str | None:
    """Return who has signed a contract."""
    entries, standing = ledger.entries(declared.name), featurecontract.standings(ledger)
    found = signature(entries, digest_of(contract), declared=declared, standing=standing)
    return None if found is None else found.actor


def data(declared: Workload, **over: Any) -> Workload:
    """Return a workload whose data rules say otherwise."""
    return replace(declared, data=replace(declared.data, **over))


COLUMNS = DIGITS.data.columns
STALE = Freshness(
    feature="ink_mean", max_staleness=timedelta(hours=1), on_stale=OnStale.SERVE_STALE
)
CHANGES: dict[str, Callable[[], dict[str, Any]]] = {
    "definitions": lambda: compose(DIGITS, definitions="sha256:other"),
    "a column less": lambda: compose(data(DIGITS, columns=COLUMNS[1:]), definitions="sha256:feed"),
    "a wider range": lambda: compose(
        data(DIGITS, columns=(replace(COLUMNS[0], low=-1), *COLUMNS[1:])), definitions="sha256:feed"
    ),
    "another type": lambda: compose(
        data(DIGITS, columns=(replace(COLUMNS[0], dtype="double"), *COLUMNS[1:])),
        definitions="sha256:feed",
    ),
    "a value may be missing": lambda: compose(
        data(DIGITS, columns=(*COLUMNS[:-1], replace(COLUMNS[-1], nullable=True))),
        definitions="sha256:feed",
    ),
    "freshness": lambda: compose(data(DIGITS, freshness=(STALE,)), definitions="sha256:feed"),
    "quality": lambda: compose(data(DIGITS, at_least_rows=1), definitions="sha256:feed"),
    "holder": lambda: compose(replace(DIGITS, owner="others"), definitions="sha256:feed"),
    "service": lambda: compose(
        replace(DIGITS, feature_service="digits_v2"), definitions="sha256:feed"
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_contract_needs_a_new_signature(
    ledger: Ledger, change: Callable[[], dict[str, Any]]
):
    """A signature holds for the very contract that was signed, and for no other."""
    sign(ledger, REGULATED, CONTRACT, actor=person("the owner"), now=NOW)

    assert signed(ledger, REGULATED, CONTRACT) == "the owner"
    assert signed(ledger, REGULATED, change()) is None


@given(strategies.settings)
def test_the_digest_is_of_what_is_said_and_not_of_its_order(document: dict[str, Any]):
    """Keys in another order give the same digest; a key more gives another."""
    turned = dict(reversed(document.items()))

    assert digest_of(turned) == digest_of(document)
    assert digest_of({**document, "and more": 1}) != digest_of(document)


@given(st.builds(Column, name=strategies.identifiers, dtype=st.just("double"),
                 low=st.none() | strategies.finite, nullable=st.booleans()))  # fmt: skip
def test_the_schema_says_everything_of_a_column(column: Column):
    """Two columns that differ in anything differ in the contract."""
    held = compose(data(DIGITS, columns=(column,)), definitions="sha256:feed")["schema"]

    assert held[0].keys() == vars(column).keys()
    assert {n: held[0][n] for n in ("name", "low", "nullable")} == {
        n: getattr(column, n) for n in ("name", "low", "nullable")
    }


@pytest.mark.parametrize(
    ("declared", "who", "may"),
    [
        (DIGITS, "the pipeline", True),
        (DIGITS, "the owner", True),
        (DIGITS, "the validator", False),
        (REGULATED, "the owner", True),
        (REGULATED, "the pipeline", False),
        (REGULATED, "admin", True),
    ],
)
def test_who_may_sign(ledger: Ledger, declared: Workload, who: str, may: bool):
    """The owner always, the pipeline where no person is asked, nobody else; admins are all."""
    if may:
        sign(ledger, declared, CONTRACT, actor=person(who), now=NOW)
    else:
        with pytest.raises(Refused, match=f"{who} may not sign"):
            sign(ledger, declared, CONTRACT, actor=person(who), now=NOW)

    assert signed(ledger, declared, CONTRACT) == (who if may else None)


def test_nobody_signs_with_a_key_that_is_not_enrolled(ledger: Ledger):
    """The owner's name with another key is not the owner."""
    false = Actor("the owner", person("a thief").private_key)

    with pytest.raises(NotEnrolled):
        sign(ledger, REGULATED, CONTRACT, actor=false, now=NOW)

    assert signed(ledger, REGULATED, CONTRACT) is None


def test_a_signature_of_somebody_who_lost_the_role_holds_no_more(ledger: Ledger):
    """Who is revoked answers for nothing new."""
    sign(ledger, REGULATED, CONTRACT, actor=person("the owner"), now=NOW)

    ledger.revoke(name="the owner", reason="left", actor=person("admin"), now=NOW)

    assert signed(ledger, REGULATED, CONTRACT) is None


@pytest.mark.parametrize("key", ["another key", "the owner"])
def test_what_was_signed_before_a_revocation_counts_for_nobody_again(ledger: Ledger, key: str):
    """Enrolled again, with a new key or the old one, they sign anew: the old key was elsewhere."""
    sign(ledger, REGULATED, CONTRACT, actor=person("the owner"), now=NOW)
    again = Actor("the owner", person(key).private_key)
    named = {"name": "the owner", "public_key": again.public_key, "roles": ["owner"]}

    ledger.revoke(name="the owner", reason="key stolen", actor=person("admin"), now=NOW)
    ledger.enrol(**named, actor=person("admin"), now=NOW)

    assert signed(ledger, REGULATED, CONTRACT) is None
    sign(ledger, REGULATED, CONTRACT, actor=again, now=NOW)
    assert signed(ledger, REGULATED, CONTRACT) == "the owner"


def test_a_signature_by_a_key_that_was_replaced_holds_no_more(ledger: Ledger):
    """A name with another key is not the one who signed."""
    sign(ledger, REGULATED, CONTRACT, actor=person("the owner"), now=NOW)
    new = person("another key").public_key

    ledger.enrol(name="the owner", public_key=new, roles=["owner"], actor=person("admin"), now=NOW)

    assert signed(ledger, REGULATED, CONTRACT) is None


def test_the_register_step_signs_once_and_only_where_no_person_is_asked(ledger: Ledger):
    """The same contract is signed again by nobody; where a person must sign, it does not."""
    pipeline = person("the pipeline")

    def automatic(declared: Workload, contract: dict[str, Any]) -> bool:
        made = featurecontract.sign_if_automatic(
            ledger, declared, contract, actor=pipeline, now=NOW
        )
        return made is not None

    assert not automatic(REGULATED, CONTRACT)
    assert automatic(DIGITS, CONTRACT)
    assert not automatic(DIGITS, CONTRACT)
    assert automatic(DIGITS, compose(DIGITS, definitions="sha256:other"))


def test_the_entry_holds_the_contract_whole(ledger: Ledger):
    """Seven years later the promise can be read, though the code has changed since."""
    entry = sign(ledger, DIGITS, CONTRACT, actor=person("the owner"), now=NOW)

    assert digest_of(entry.body["document"]) == entry.body["contract"] == digest_of(CONTRACT)


def test_the_present_contract_is_that_of_the_definitions_on_disk():
    """The same files give the same contract, with the hash that the features stage takes."""
    first, second = featurecontract.present(DIGITS), featurecontract.present(DIGITS)

    assert first == second
    assert first["definitions"].startswith("sha256:")
    assert first["schema"][0]["name"] == "capture_id"


def test_the_command_shows_and_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is shown as unsigned is shown with its signer once it was signed."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    for variable in ("PENSTOCK_KEY", "PENSTOCK_LEDGER"):
        monkeypatch.delenv(variable, raising=False)
    run = CliRunner().invoke

    before = run(contract_command.app, ["show", "digits"])
    made = run(contract_command.app, ["sign", "digits"])
    after = run(contract_command.app, ["show", "digits"])

    digest = digest_of(featurecontract.present(DIGITS))[7:19]
    assert "not signed; penstock contract sign digits" in before.output
    assert f"signed contract {digest} of digits" in made.output
    assert f"contract {digest} of digits, held by ml-platform" in after.output
    assert "timestamp[us, tz=UTC]" in after.output
    assert "signed by" in after.output
