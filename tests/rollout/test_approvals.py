"""Laws of approvals: who may give one, what it binds to, and what makes it void."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.ledger import Ledger, NotEnrolled
from penstock.ledger.standing import Standing, standings
from penstock.rollout import approvals
from penstock.rollout.approvals import binding, grant, refuse, request_of, why_not
from penstock.rollout.documents import DOCUMENT, attach, lacking
from penstock.rollout.independence import dependent
from penstock.rollout.plan import Plan
from penstock.rollout.state import APPROVAL, Act, State
from penstock.stage import Refused
from tests.people import person
from tests.rollout.markets import DOCUMENTS, ROLES, Story, a_policy, standing, waiting


@dataclasses.dataclass
class Scene:
    """A release that waits and an approval of it, as values that a test may change."""

    story: Story
    release: str
    roles: dict[str, Standing]
    plan: Plan
    now: datetime

    @property
    def state(self) -> State:
        """Where the release stands."""
        return self.story.state(self.release)

    def answer(self) -> Any:
        """Return what binds."""
        told = self.story.entries
        return binding(told, self.state, self.plan, roles=self.roles, now=self.now)

    def why(self) -> str:
        """Return what is said of approvals that are void."""
        told = self.story.entries
        return " ".join(why_not(told, self.state, self.plan, roles=self.roles, now=self.now))


def approved(*, by: str = "ann", **over: Any) -> Scene:
    """Return a scene in which somebody approved; ``over`` changes what the approval binds to."""
    story = Story()
    release = waiting(story)
    for name in DOCUMENTS:
        story.add(DOCUMENT, 3, {"name": name, "sha256": f"of {name}", "file": "f"}, by="olga")
    plan = story.plan("eu")
    request = request_of(story.state(release), plan, story.entries)
    binds = {**request.to_dict(), **over}
    expires = (story.now + plan.policy.approval_expiry).isoformat()
    body = {"release": release, "granted": True, "binds": binds, "expires": expires, "reason": "y"}
    story.add(APPROVAL, 3, body, by=by)
    return Scene(story, release, dict(ROLES), plan, story.now + timedelta(minutes=1))


def test_an_approval_of_what_is_there_binds():
    """Nothing changed: the newest approval by an independent approver is the answer."""
    scene = approved()

    answer = scene.answer()

    assert (answer.granted, answer.actor, answer.reason) == (True, "ann", "y")
    assert answer.sequence == scene.story.entries[-1].sequence
    assert scene.why() == ""


CHANGES: Mapping[str, Callable[[Scene], object]] = {
    "new evidence": lambda s: s.story.do(s.release, Act.AWAIT, 1, fingerprint="e2"),
    "another step": lambda s: (
        s.story.do(s.release, Act.ENTER, 1), s.story.do(s.release, Act.AWAIT, 2)
    ),
    "a changed policy": lambda s: setattr(s, "plan", dataclasses.replace(
        s.plan, policy=a_policy(min_users=101))),
    "a changed soak": lambda s: setattr(s, "plan", dataclasses.replace(
        s.plan, cool_down=timedelta(days=99))),
    "a document replaced": lambda s: s.story.add(
        DOCUMENT, 3, {"name": "dpia", "sha256": "another", "file": "f"}, by="olga"),
    "the expiry": lambda s: setattr(s, "now", s.now + s.plan.policy.approval_expiry),
    "a revoked approver": lambda s: s.roles.pop("ann"),
    "a revocation, though enrolled again": lambda s: s.roles.update(
        ann=standing("ann", "approver", since=len(s.story.entries))),
    "another key": lambda s: s.roles.update(
        ann=Standing(roles=frozenset({"approver"}), key_id="of another key")),
    "the role taken away": lambda s: s.roles.update(ann=standing("ann", "validator")),
    "the approver became owner": lambda s: s.roles.update(
        ann=standing("ann", "approver", "owner")),
    "the approver signs for the features": lambda s: s.story.add("contract", None, {}, by="ann"),
    "the approver is who it belongs to": lambda s: s.story.add(
        "contract", None, {"document": {"holder": "ann"}}, by="olga"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_any_single_change_voids(change: str):
    """Whatever of what was bound, or of who bound it, is another now: nobody has said yes to it."""
    scene = approved()

    CHANGES[change](scene)

    assert scene.answer() is None


FIELDS = [f.name for f in dataclasses.fields(approvals.Request)]
VALUES = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.integers(),
    st.lists(st.text(max_size=4), max_size=2),
    st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
)


@settings(deadline=None)
@given(name=st.sampled_from(FIELDS), value=VALUES)
def test_what_is_bound_is_compared_whole(name: str, value: object):
    """An approval whose bound request differs in any one field, however, does not count."""
    was = approved().story.entries[-1].body["binds"]

    scene = approved(**{name: value})

    # 3 == 3.0 and the like say the same.
    assert (scene.answer() is not None) == (was[name] == value)


@settings(deadline=None)
@given(name=st.text(min_size=1, max_size=12).filter(lambda n: n not in FIELDS), value=VALUES)
def test_what_nobody_knows_binds_nothing(name: str, value: object):
    """A field that a request does not have is no way round one that it has."""
    scene = approved(**{name: value})

    assert (scene.answer() is None) == (value is not None)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_left_out_is_not_agreed_to(field: str):
    """What an approval does not say, it does not bind."""
    scene = approved()
    del scene.story.entries[-1].body["binds"][field]

    assert scene.answer() is None


@settings(deadline=None)
@given(minutes=st.integers(0, 60 * 24 * 30), own=st.integers(0, 60 * 24 * 30))
def test_an_approval_holds_as_long_as_the_policy_says_and_no_longer_than_it_says_itself(
    minutes: int, own: int
):
    """The sooner of both ends it; what says no time at all holds for none."""
    scene = approved()
    given_at = datetime.fromisoformat(scene.story.entries[-1].at)
    scene.story.entries[-1].body["expires"] = (given_at + timedelta(minutes=own)).isoformat()
    scene.now = given_at + timedelta(minutes=minutes)

    holds = timedelta(minutes=minutes) < min(
        timedelta(minutes=own), scene.plan.policy.approval_expiry
    )

    assert (scene.answer() is not None) == holds
    del scene.story.entries[-1].body["expires"]
    assert scene.answer() is None


@pytest.mark.parametrize("name", ["robot", "otto", "olga", "carl", "nobody"])
def test_only_an_independent_approver_counts(name: str):
    """Not whoever trained it, opened the release, owns the workload or merely watches the law."""
    assert approved(by=name).answer() is None


@pytest.mark.parametrize("name", ["robot", "otto"])
def test_the_role_does_not_make_a_maker_independent(name: str):
    """Who trained the version or opened the release may not approve it, role or not."""
    scene = approved(by=name)
    scene.roles[name] = standing(name, "approver")

    assert scene.answer() is None
    assert ("trained" if name == "robot" else "opened") in scene.why()


def test_who_wanted_a_release_that_waited_its_turn_may_not_approve_it():
    """The controller opens it in the end; that makes nobody independent."""
    story = Story()
    wish = story.add("release queued", 3, {"market": "eu", "trigger": "manual"}, by="ann")
    release = waiting(story)
    opened = next(e for e in story.entries if e.body.get("release") == release)

    def why() -> str:
        return dependent("ann", release=release, version=3, entries=story.entries, roles=ROLES)

    assert why() == ""
    assert isinstance(opened.body, dict)
    opened.body["queued"] = wish.sequence
    assert why() == "ann opened the release"


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_refusal_comes_before_any_approval(order: str):
    """Whichever was first, and whatever changed since: a no stays a no for its step."""
    scene = approved()
    request = request_of(scene.state, scene.plan, scene.story.entries)
    body = {"release": scene.release, "granted": False, "binds": request.to_dict(), "reason": "no"}
    scene.story.add(APPROVAL, 3, body, by="abe")
    if order == "before":
        scene.story.entries[-2:] = scene.story.entries[:-3:-1]
    scene.plan = dataclasses.replace(scene.plan, cool_down=timedelta(days=99))

    answer = scene.answer()

    assert (answer.granted, answer.actor) == (False, "abe")


@pytest.mark.parametrize("name", ["olga", "carl", "nobody"])
def test_a_refusal_without_the_role_is_not_heard(name: str):
    """Owner and compliance have commands of their own to end a release."""
    scene = approved()
    request = request_of(scene.state, scene.plan, scene.story.entries)
    body = {"release": scene.release, "granted": False, "binds": request.to_dict(), "reason": "no"}
    scene.story.add(APPROVAL, 3, body, by=name)

    assert scene.answer().granted


def test_who_waits_for_nothing_has_no_answer():
    """Behind the gate an approval says nothing any more."""
    scene = approved()
    scene.story.do(scene.release, Act.ENTER, 1)

    assert scene.answer() is None
    assert scene.why() == ""
    with pytest.raises(Refused, match="waits for no approval"):
        request_of(scene.state, scene.plan, scene.story.entries)


@pytest.fixture
def told(tmp_path: Path) -> Any:
    """A real ledger with everybody enrolled, documents attached, and a release that waits."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    boss, story = person("boss"), Story(ledger)
    for name, held in ROLES.items():
        key = person(name).public_key
        ledger.enrol(name=name, public_key=key, roles=held.roles, actor=boss, now=story.now)
    release = waiting(story)
    for name in DOCUMENTS:
        file = tmp_path / f"{name}.pdf"
        file.write_text(f"the {name}")
        attach(tmp_path, ledger, "credit", 3, name, file, actor=person("carl"), now=story.now)
    yield ledger, story, story.state(release)
    ledger.close()


def test_an_approval_at_the_door_binds_for_the_controller(told: Any):
    """What grant writes is what binding reads, through the ledger and its audit."""
    ledger, story, state = told
    plan, named = story.plan("eu"), {"actor": person("ann"), "now": story.now}
    roles = standings(ledger)

    entry = grant(ledger, state, plan, reason="calibrated", **named)

    entries = ledger.entries("credit")
    answer = binding(entries, state, plan, roles=roles, now=story.now)
    assert (answer.sequence, answer.granted) == (entry.sequence, True)
    assert set(entry.body["binds"]["documents"]) == set(DOCUMENTS)
    refuse(ledger, state, plan, reason="on second thoughts", **named)
    entries = ledger.entries("credit")
    assert not binding(entries, state, plan, roles=roles, now=story.now).granted
    ledger.verify()


@pytest.mark.parametrize(
    ("name", "said"),
    [("olga", "role approver"), ("robot", "role approver"), ("otto", "role approver")],
)
def test_who_may_not_approve_is_told_at_the_door(told: Any, name: str, said: str):
    """The sentence says why, and nothing is written."""
    ledger, story, state = told
    before = ledger.head()

    with pytest.raises(Refused, match=said):
        grant(ledger, state, story.plan("eu"), reason="y", actor=person(name), now=story.now)
    with pytest.raises(NotEnrolled, match="'approval' entry; it takes the role approver"):
        refuse(ledger, state, story.plan("eu"), reason="n", actor=person(name), now=story.now)
    with pytest.raises(ValueError, match="say in a sentence why"):
        grant(ledger, state, story.plan("eu"), reason=" ", actor=person("ann"), now=story.now)
    assert ledger.head() == before


def test_nobody_approves_while_a_document_lacks(told: Any, tmp_path: Path):
    """An approval binds to every document, so all must lie there, unaltered."""
    ledger, story, state = told
    copy = next(path for path in (tmp_path / "documents").iterdir())
    copy.chmod(0o644)
    copy.write_text("altered")

    with pytest.raises(Refused, match="altered since it was attached"):
        grant(ledger, state, story.plan("eu"), reason="y", actor=person("ann"), now=story.now)


def test_people_write_what_is_theirs_and_nothing_else(told: Any):
    """Who is only an approver, or only compliance, has the entries of that role alone."""
    ledger, story, _ = told
    may = {"ann": {"approval", "command"},
           "carl": {"command", "document", "kill", "kill cleared", "returned"}}  # fmt: skip
    kinds = ["approval", "command", "document", "kill", "kill cleared", "drill", "intent",
             "in force", "release opened", "registered", "contract", "retired", "aliases",
             "returned", "verdict", "paged"]  # fmt: skip

    for name, own in may.items():
        taken: set[str] = set()
        for kind in kinds:
            try:
                story.add(kind, 9, {"release": "credit/9/eu/1"}, by=name)
                taken.add(kind)
            except NotEnrolled:
                pass
        assert taken == own
    ledger.verify()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=2),
    max_leaves=4,
)  # fmt: skip
NAMES = ["granted", "binds", "expires", "reason", "name", "sha256", "file", "outcome", "document"]


@settings(deadline=None)
@given(
    kind=st.sampled_from([APPROVAL, DOCUMENT, "contract"]),
    body=st.dictionaries(st.sampled_from(NAMES), JSON),
)
def test_whatever_people_write_grants_nothing_and_stops_nobody(kind: str, body: dict[str, Any]):
    """The controller goes on reading: an entry that makes no sense is passed over or lacks."""
    scene = approved()
    release = scene.release
    scene.story.entries.pop()
    scene.story.add(kind, 3, {**body, "release": release}, by="abe")

    answer = scene.answer()

    assert answer is None or not answer.granted
    assert isinstance(scene.why(), str)
    assert len(lacking(scene.story.entries, 3, DOCUMENTS)) == len(DOCUMENTS)
