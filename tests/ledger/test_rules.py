"""Laws of what may be entered: by whom, why, when and how it is written, whoever signs it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ledger import Broken, Ledger, LedgerError, NotEnrolled, Stage
from penstock.ledger.audit import SKEW, audit
from penstock.ledger.entry import Draft, hash_of, sealed, signing_input
from penstock.ledger.lifecycle import MOVERS, WRITERS, refused_role
from tests.ledger.conftest import Place
from tests.ledger.steps import NOW, note, register
from tests.people import person

BOB = person("bob")
ON_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
CONTROLLERS = {"pipeline", "operator"}
RETURNERS = CONTROLLERS | {"owner", "compliance", "admin"}


def allowed(kind: str, target: str | None) -> set[str]:
    """Return the roles that may write an entry, as the promotion contract says it."""
    if kind != "moved":
        return {
            "registered": {"pipeline"},
            "contract": {"owner", "pipeline"},
            "retired": {"owner", "operator"},
            "aliases": CONTROLLERS | {"owner"},
            "command": {"operator", "owner", "admin", "approver", "compliance"},
            "approval": {"approver"},
            "document": CONTROLLERS | {"owner", "validator", "compliance"},
            "kill": CONTROLLERS | {"owner", "compliance", "admin"},
            "kill cleared": {"compliance", "admin"},
            "drill": CONTROLLERS | {"owner"},
            **dict.fromkeys(("returning", "returned", "contaminated"), RETURNERS),
        }.get(kind, CONTROLLERS)
    if target == "STAGING":
        return {"pipeline"}
    return RETURNERS if target == "ARCHIVED" else CONTROLLERS


@given(
    roles=st.frozensets(
        st.sampled_from(["admin", "pipeline", "owner", "validator", "approver", "compliance",
                         "operator"]), min_size=1),
    kind=st.sampled_from([*WRITERS, "intent", "verdict", "in force", "release"]),
    target=st.sampled_from([None, *MOVERS]),
)  # fmt: skip
def test_a_role_may_write_what_it_is_for_and_nothing_else(
    roles: frozenset[str], kind: str, target: str | None
):
    """An admin may stop things; for all else an admin, who gives roles, needs one to act."""
    kind = kind if target is None else "moved"

    why = refused_role("ann", roles, kind, target)

    assert (why is None) == bool(roles & allowed(kind, target))


def test_a_key_without_the_role_carries_nothing_to_production(ledger: Ledger):
    """Whoever is enrolled as something else neither registers nor moves, and is told the role."""
    register(ledger, 1)
    key = BOB.public_key
    ledger.enrol(name="bob", public_key=key, roles=["compliance"], actor=person(), now=NOW)
    before = ledger.head()

    with pytest.raises(NotEnrolled, match=r"'registered' entry; it takes the role pipeline"):
        register(ledger, 2, actor=BOB)
    with pytest.raises(NotEnrolled, match="may not move a version to STAGING"):
        ledger.move(workload="digits", version=1, to=Stage.STAGING, reason="t", actor=BOB, now=NOW)
    assert ledger.head() == before

    ledger.move(workload="digits", version=1, to=Stage.ARCHIVED, reason="law", actor=BOB, now=NOW)
    assert ledger.verify() == 4


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_move_needs_a_reason(ledger: Ledger, reason: str):
    """A record that does not say why is none."""
    register(ledger, 1)

    with pytest.raises(LedgerError, match="gives no reason"):
        ledger.move(
            workload="digits", version=1, to=Stage.STAGING, reason=reason, actor=person(), now=NOW
        )

    assert ledger.verify() == 2


@ON_SQLITE
def test_no_entry_is_older_than_those_before_it(ledger: Ledger, place: Place):
    """Clocks may differ a little; beyond that, however slowly, neither library nor audit agrees."""
    register(ledger, 1)

    def at(later: timedelta) -> None:
        ledger.append(
            workload="digits", version=1, kind="note", body={}, actor=person(), now=NOW + later
        )

    at(timedelta(hours=1))
    at(timedelta(hours=1) - SKEW)
    for earlier in (timedelta(0), timedelta(hours=1) - SKEW - timedelta(seconds=1)):
        with pytest.raises(LedgerError, match="set the clock of the machine that writes"):
            at(earlier)
    assert ledger.verify() == 4

    old = sealed(
        Draft(workload="digits", version=1, kind="note", body={}),
        after=ledger.head(),
        actor=person(),
        now=NOW.replace(year=1999),
    )
    place.insert(old)
    with pytest.raises(Broken, match="entry 5: it is of 1999-01-05") as found:
        ledger.verify()
    assert found.value.problem == "time"


@ON_SQLITE
def test_only_who_registers_or_retires_asks_to_keep(ledger: Ledger):
    """A note asks nothing; what is no day is refused at the door; the later of two times counts."""
    register(ledger, 1, keep_until="2033-01-05")
    register(ledger, 2, keep_until="2033-01-05T00:30:00+01:00")
    note(ledger)
    ledger.append(
        workload="digits", version=1, kind="note", body={"keep_until": "never"}, actor=person(),
        now=NOW,
    )  # fmt: skip

    assert ledger.audit().keep_until == "2033-01-05"
    with pytest.raises(LedgerError, match="keep_until is no time: 'never'"):
        register(ledger, 3, keep_until="never")
    assert ledger.verify() == 5


@ON_SQLITE
def test_a_body_has_one_text(ledger: Ledger):
    """Another writing of the same body, though signed, is not taken."""
    draft = Draft(workload="digits", version=1, kind="note", body={})
    register(ledger, 1)
    forged = {**sealed(draft, after=ledger.head(), actor=person(), now=NOW), "body": '{"a": 1}'}
    forged["hash"] = hash_of(forged)
    forged["signature"] = person().sign(signing_input(forged["hash"]))

    with pytest.raises(Broken, match=r"entry 3: its body is .*not in the canonical form"):
        audit([*ledger.rows(), forged])
