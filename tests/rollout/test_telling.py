"""Laws of what is told of a release: nothing but its entries and the newest look, no guesses."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock.rollout import asks, telling
from penstock.rollout.drill import DRILL
from penstock.rollout.folding import fold
from penstock.rollout.history import explain, history
from penstock.rollout.kill import KILL
from penstock.rollout.past import PAGED, past_of
from penstock.rollout.plan import plan_of
from penstock.rollout.state import INTENT, Act
from tests.rollout.tales import RELEASE, Tale, a_policy, looks_of, rolled_back


def told(tale: Tale, live: dict[str, Any] | None = None, *, after_s: float = 0) -> dict[str, Any]:
    """Return the status of a tale's release, some seconds after its last entry."""
    state = fold(tale.entries, tale.release)
    now = tale.now + timedelta(seconds=after_s)
    return telling.status(tale.entries, state, now=now, live=live)


def test_a_release_under_way_says_where_it_stands_and_what_comes(tmp_path: Path):
    """Share, steps, soak, deadline and the next decision follow from the ledger alone."""
    tale = Tale.begun(tmp_path)
    tale.climb(1)

    found = told(tale, after_s=600)

    assert found["step"] == "canary 10 %"
    assert [s["is"] for s in found["steps"]] == ["done", "now", *["to come"] * 3]
    assert found["share_percent"] == 100 * 6 / 64
    assert found["time"]["soak_left_s"] == 3000
    assert found["time"]["deadline_left_s"] == 6 * 3600 - 600
    assert found["next"]["decision"] == "enter progressive 50 %"
    assert found["next"]["waits_for"] == "soak"
    assert found["next"]["at"] == found["time"]["soak_until"]
    assert found["must_act"] == []


def test_before_the_first_step_it_waits_for_a_server(tmp_path: Path):
    """No step, no share, no evidence; and every part of the document is there nevertheless."""
    tale = Tale.begun(tmp_path)

    found = told(tale)

    assert (found["step"], found["share_percent"], found["evidence"]) == (None, 0.0, [])
    assert found["next"]["waits_for"] == "server"
    assert found["next"]["decision"] == "enter shadow"
    assert set(found) == set(told(Tale.begun(_folder(tmp_path))))


def _folder(tmp_path: Path) -> Path:
    made = tmp_path / "other"
    made.mkdir()
    return made


def test_the_newest_look_gives_the_evidence_and_what_is_waited_for(tmp_path: Path):
    """Rows with their intervals, users against those needed, and until when it waits."""
    tale = Tale.begun(tmp_path)
    tale.climb(1)
    live = looks_of(tale, "canary 10 %", 9.375, count=7)[-1]

    found = told(tale, live)

    assert found["users"] == {"challenger": 280, "champion": 2520, "needed": 400, "of": "clicks"}
    assert found["evidence"] == live["rows"]
    assert found["next"]["waits_for"] == "users"
    assert found["next"]["at"] == live["until"]
    assert found["standby_ready"] is True
    assert not found["stale"]
    assert told(tale, live, after_s=60)["stale"]


def test_a_look_at_another_step_is_no_evidence_of_this_one(tmp_path: Path):
    """What was seen in shadow says nothing of the canary; then the last decision's is shown."""
    tale = Tale.begun(tmp_path)
    tale.decide(Act.ENTER, 0)
    live = looks_of(tale, "shadow", 0.0, count=3)[-1]
    tale.decide(Act.ENTER, 1)

    found = told(tale, live)

    assert found["evidence_step"] == "shadow"
    assert found["standby_ready"] is None
    assert found["users"]["challenger"] == 101


def test_what_was_seen_before_a_decision_asks_nobody_to_act_after_it(tmp_path: Path):
    """A look that waited for users does not say what a release that waits for approval needs."""
    tale = Tale.begun(tmp_path)
    tale.climb(1)
    live = looks_of(tale, "canary 10 %", 9.375, count=3)[-1]
    tale.decide(Act.AWAIT, 2, table=None)

    found = told(tale, live)

    assert found["next"]["waits_for"] == "approval"
    assert found["must_act"] == [
        {
            "cause": "approval",
            "who": "approver",
            "why": "progressive 50 % waits for an approval",
            "command": f"penstock release approve {RELEASE} --reason WHY",
        }
    ]


def test_an_ended_release_says_how_and_asks_for_nothing(tmp_path: Path):
    """Two strikes with their reasons; no next decision, no time left, nobody on it."""
    tale, looks = rolled_back(tmp_path)

    found = told(tale, looks[-1])

    assert found["phase"] == "ROLLED_BACK"
    assert (found["next"], found["time"], found["must_act"]) == (None, None, [])
    assert [s["left"] for s in found["strikes"]] == ["canary 10 %"] * 2
    assert found["share_percent"] == 0
    assert found["ended_at"] == tale.entries[-1].at


def test_everything_told_is_json(tmp_path: Path):
    """Programs read the same document, without a number that JSON does not have."""
    tale, looks = rolled_back(tmp_path)

    text = json.dumps(telling.timeline(tale.entries, RELEASE, looks, now=tale.now), allow_nan=False)

    assert json.loads(text)["status"]["format"] == telling.FORMAT
    assert [
        r["release"] for r in map(json.loads, [json.dumps(telling.listed(tale.entries, RELEASE))])
    ] == [RELEASE]


def test_history_tells_each_decision_once_with_the_time_it_took(tmp_path: Path):
    """An intent and its read-back are one event; a command and a page are events of their own."""
    tale = Tale.begun(tmp_path)
    tale.climb(1)
    tale.command("pause", reason="lunch <now>")
    tale.append(PAGED, {"release": RELEASE, "n": 2, "cause": "standby", "why": "slot a is down"})
    tale.decide(Act.PAUSE, why="tester asked to pause")
    tale.append(DRILL, {"passed": True, "why": "", "milliseconds": {"back": 40, "return": 50}})
    tale.append(KILL, {"by": "ann", "to": "rules", "reason": "harm"})

    found = history(tale.entries, RELEASE)

    assert [e["event"] for e in found] == [
        "opened", "step entered", "step entered", "command", "paged", "paused", "drill",
        "kill switch",
    ]  # fmt: skip
    assert [e["milliseconds"] for e in found if e.get("n")] == [41.5] * 3
    assert [e["share_percent"] for e in found if e.get("n")] == [0, 9.375, 9.375]
    assert found[5]["left"] == "canary 10 %"
    assert len({e["hash"] for e in found}) == len(found)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"how": "key", "verified": True}, "thrown by ann: harm"),
        ({"how": "key", "verified": False}, "thrown by ann (signature wrong): harm"),
        ({"how": "token", "verified": False}, "thrown by token of ann: harm"),
        ({"how": "token", "maker": "ben"}, "thrown by token of ann, which ben made: harm"),
        ({"how": "file", "verified": False}, "thrown by hand, by ann: harm"),
    ],
)
def test_a_kill_is_told_as_far_as_it_is_proven(tmp_path: Path, body: dict[str, Any], said: str):
    """A wrong signature, a token and a hand are no person's own key, and are not told so."""
    tale = Tale.begun(tmp_path)
    tale.append(KILL, {"by": "ann", "to": "rules", "reason": "harm", **body})

    assert said in history(tale.entries, RELEASE)[-1]["text"]


def test_another_release_is_not_told(tmp_path: Path):
    """Neither its entries nor the kills and drills after it was opened."""
    tale, _ = rolled_back(tmp_path)
    later = Tale(tale.ledger, release="digits/3/all/1", now=tale.now)
    later.open()
    later.append(KILL, {"by": "ann", "to": "rules", "reason": "harm"})

    assert "kill switch" not in [e["event"] for e in history(later.entries, RELEASE)]
    assert [e["event"] for e in history(later.entries, later.release)] == ["opened", "kill switch"]


def test_an_intent_that_another_took_the_place_of_moved_nothing(tmp_path: Path):
    """What was never read back is not where the next decision came from."""
    tale = Tale.begun(tmp_path)
    tale.climb(0)
    tale.n += 1
    body = tale.entries[-2].body
    tale.append(INTENT, {**body, "n": tale.n, "step": 1, "table": tale.table(Act.ENTER, 1)})
    tale.decide(Act.ROLL_BACK, why="harm")

    assert explain(tale.entries, RELEASE)["left"] == "shadow"
    assert explain(tale.entries, RELEASE, 2)["in_force_at"] is None


@pytest.mark.parametrize(
    ("at", "n"), [(None, 5), (3, 3), ("canary 10 %", 5), ("shadow", 4)], ids=str
)
def test_a_decision_is_found_by_number_or_by_the_step_it_left(
    tmp_path: Path, at: int | str | None, n: int
):
    """Of a step the last decision that was made there."""
    tale, _ = rolled_back(tmp_path)

    assert explain(tale.entries, RELEASE, at)["n"] == n


def test_a_decision_is_found_by_time(tmp_path: Path):
    """The last one that was made before it."""
    tale, _ = rolled_back(tmp_path)
    second = explain(tale.entries, RELEASE, 2)
    third = explain(tale.entries, RELEASE, 3)

    just_before = tale.entries[third["sequence"] - 1].at
    moment = telling.datetime.fromisoformat(just_before) - timedelta(seconds=1)

    assert explain(tale.entries, RELEASE, moment)["n"] == second["n"]


def test_a_decision_is_told_with_its_numbers(tmp_path: Path):
    """Why, verdict, rows, tables before and after, what it heeded, milliseconds, hash."""
    tale = Tale.begun(tmp_path)
    tale.climb(1)
    asked = tale.command("roll back", reason="complaints")
    intent = tale.decide(Act.ROLL_BACK, why="tester asked to roll back", answers=asked.sequence)

    found = explain(tale.entries, RELEASE)

    assert found["why"] == "tester asked to roll back"
    assert found["answers"]["body"]["reason"] == "complaints"
    assert (found["share_before_percent"], found["share_percent"]) == (9.375, 0)
    assert found["table_before"]["challenger"] == "b"
    assert found["table_after"]["challenger"] is None
    assert found["hash"] == intent.hash
    assert [r["name"] for r in found["rows"]] == ["clicks", "failing users", "slow users"]


@pytest.mark.parametrize(
    ("release", "at", "said"),
    [
        ("digits/9/all/1", None, "in the ledger: digits/2/all/1"),
        (RELEASE, 99, "1 enter (before the first step), 2 enter (at shadow)"),
    ],
    ids=["release", "decision"],
)
def test_what_does_not_exist_is_refused_with_what_there_is(
    tmp_path: Path, release: str, at: int | None, said: str
):
    """The text names the releases, or the decisions, that could be meant."""
    tale, _ = rolled_back(tmp_path)

    with pytest.raises(LookupError) as refused:
        explain(tale.entries, release, at)

    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        ({"standby_ready": False}, "standby"),
        ({"drilled": "none for 40 days", "waits_for": "drill"}, "drill"),
        ({"documents": ["dpia"], "waits_for": "documents"}, "documents"),
        ({"killed": "ann: harm"}, "kill"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_people_are_called_once_for_each_cause(tmp_path: Path, seen: dict[str, Any], cause: str):
    """The entry that calls them keeps them from being called again before the next decision."""
    tale = Tale.begun(tmp_path)
    tale.climb(1)
    live = {**looks_of(tale, "canary 10 %", 9.375, count=1)[0], **seen}

    body = _page(tale, live)

    assert body is not None
    assert body["cause"] == cause
    assert body["command"].startswith("penstock ")
    tale.append(PAGED, body)
    assert _page(tale, live) is None


def _page(tale: Tale, live: dict[str, Any], *, after: timedelta = timedelta(0)) -> Any:
    past, state = past_of(tale.entries, RELEASE), fold(tale.entries, RELEASE)
    return asks.page_due(past, state, live, tale.now + after)


def test_evidence_that_is_an_error_calls_people_before_it_is_too_late(tmp_path: Path):
    """Not at once, as every step begins with nothing measured; a while before all go back."""
    tale = Tale.begun(tmp_path)
    tale.climb(1)
    live = {**looks_of(tale, "canary 10 %", 9.375, count=1)[0], "outcome": "error"}
    live["evidence_at"] = None

    assert _page(tale, live, after=timedelta(minutes=50)) is None
    late = _page(tale, live, after=timedelta(minutes=70))
    assert late["cause"] == "evidence"
    assert late["command"] == "penstock logs b"


def test_a_missing_document_and_a_drill_call_nobody_before_they_hold_anything_up(tmp_path: Path):
    """While a step soaks they are shown to whoever looks."""
    tale = Tale.begun(tmp_path)
    tale.climb(1)
    live = {**looks_of(tale, "canary 10 %", 9.375, count=1)[0], "drilled": "none for 40 days"}

    assert _page(tale, live) is None
    assert [a["cause"] for a in told(tale, live)["must_act"]] == ["drill"]
    live["drilled"] = (
        "that of eu failed: slow; rehearse again: penstock release drill x --market eu"
    )
    (ask,) = told(tale, live)["must_act"]
    assert ask["why"] == "that of eu failed: slow"
    assert ask["command"] == "penstock release drill x --market eu"


def test_an_approval_that_expired_calls_people(tmp_path: Path):
    """An approval that holds does not; one that is over does, and says whose it was."""
    tale = Tale.begun(tmp_path, plan=plan_of(a_policy(approve_triggers=("manual",))))
    tale.climb(0)
    tale.decide(Act.AWAIT, 1, table=None)
    tale.approve(expires=tale.now + timedelta(days=1))

    live = {"waits_for": "approval", "outcome": "pass"}

    assert _page(tale, live) is None
    late = _page(tale, live, after=timedelta(days=2))
    assert late["cause"] == "approval expired"
    assert "tester" in late["why"]


def test_a_paused_release_says_who_may_resume_it(tmp_path: Path):
    """With the command that can be typed as it is."""
    tale = Tale.begun(tmp_path)
    tale.climb(1)
    tale.decide(Act.PAUSE, why="tester asked to pause: lunch")

    found = told(tale)

    assert found["within"] == "CANARY"
    assert found["next"]["at"] is None
    assert [a["command"] for a in found["must_act"]] == [
        f"penstock release resume {RELEASE} --reason WHY"
    ]
