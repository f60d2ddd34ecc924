"""Laws of the cluster's data plane: fenced, never by force, in force only by the cluster's word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from penstock.release import EVERYWHERE
from penstock.rollout.adapters.annotated import TABLES, table_of
from penstock.rollout.ports import Foreign, Stale, TableError
from penstock.rollout.table import RULES, TrafficTable, bucket_of
from tests.rollout.adapters.stage import PLACE, Stage, stage, table, wait

CANARY = table(sequence=2, challenger="b", buckets=6, mirror="b")
BACK = table(sequence=3)


@pytest.fixture(params=["gateway", "istio"])
def staged(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Return a stage of each kind."""
    with stage(request.param) as made:
        yield made


@pytest.fixture
def gateway() -> Iterator[Stage]:
    """Return a stage of Gateway API with two edges."""
    with stage("gateway", edges=2) as made:
        yield made


def in_force(made: Stage, table: TrafficTable) -> None:
    """Wait for a table that is there already."""
    made.plane.wait_applied(table, timeout_s=10.0)


def test_a_table_is_written_put_in_force_and_answers(staged: Stage):
    """Written, observed, and true for users at the edge; again with the same changes nothing."""
    in_force(staged, table())

    staged.put(CANARY)
    version = staged.fake.store.read(staged.main)["metadata"]["resourceVersion"]
    staged.plane.apply(CANARY)

    assert staged.plane.written(EVERYWHERE) == CANARY == staged.plane.observe(EVERYWHERE)
    assert staged.plane.verify(CANARY) == ""
    assert staged.fake.store.read(staged.main)["metadata"]["resourceVersion"] == version
    for n in range(50):
        found = staged.asked(f"user-{n}")
        assert found is not None
        slot = CANARY.slot_for(bucket_of("s", f"user-{n}"))
        assert found.service == PLACE.service(slot)


def test_every_write_is_strict_fenced_and_never_forced(staged: Stage):
    """Each patch names its manager, asks for strict validation, and forces nothing."""
    staged.put(CANARY)
    staged.put(BACK)

    patches = [q for method, _, q in staged.fake.requests if method == "PATCH"]

    assert patches
    for query in patches:
        assert query["fieldManager"] == "penstock-release"
        assert query["fieldValidation"] == "Strict"
        assert query.get("force", "false") == "false"


def test_an_older_table_is_stale(staged: Stage):
    """One of a lower sequence, or of the same one with other content, is refused unwritten."""
    staged.put(CANARY)

    for late in (table(sequence=1), replace(CANARY, buckets=7), table(sequence=2)):
        with pytest.raises(Stale, match="decide again"):
            staged.plane.apply(late)

    assert staged.plane.written(EVERYWHERE) == CANARY


def test_a_written_table_is_not_in_force_before_the_cluster_says_so(gateway: Stage):
    """Neither observed nor waited for in vain: the reason is the condition that lacks."""
    in_force(gateway, table())
    gateway.programming.held.set()

    gateway.plane.apply(CANARY)

    assert gateway.plane.written(EVERYWHERE) == CANARY
    with pytest.raises(TableError, match="Accepted is said of generation 1, not 2"):
        gateway.plane.observe(EVERYWHERE)
    with pytest.raises(TableError, match="not in force within 0 s"):
        gateway.plane.wait_applied(CANARY, timeout_s=0.0)


def test_a_route_that_is_not_accepted_is_not_in_force(gateway: Stage):
    """A backend that is not there shows as ResolvedRefs, and is told."""
    in_force(gateway, table())
    status = gateway.fake.store.read(gateway.main)["status"]
    said = status["parents"][0]["conditions"][1]
    said |= {"status": "False", "reason": "BackendNotFound", "message": "no service digits-b"}

    gateway.fake.say(gateway.main, status)

    with pytest.raises(TableError, match="ResolvedRefs is False: BackendNotFound: no service"):
        gateway.plane.observe(EVERYWHERE)


def test_a_table_that_does_not_fit_is_refused_before_anything_is_written(gateway: Stage):
    """No object has changed, and the text says what to do."""
    for n, market in enumerate(("eu", "us")):
        gateway.plane.apply(
            table(market=market, sequence=n + 1, challenger="b", buckets=60, salt=market)
        )
    before = {p: o["metadata"]["resourceVersion"] for p, o in gateway.fake.store.objects.items()}

    with pytest.raises(TableError, match=r"183 matches.*fewer markets be split"):
        gateway.plane.apply(table(sequence=1, challenger="b", buckets=60))

    after = {p: o["metadata"]["resourceVersion"] for p, o in gateway.fake.store.objects.items()}
    paths = (gateway.main, gateway.dialect.kill.path, gateway.dialect.assigner.path)
    assert {p: before[p] for p in paths} == {p: after[p] for p in paths}


@pytest.mark.parametrize("operation", ["apply", "edit"])
def test_a_foreign_change_is_found_and_a_restore_takes_it_back(gateway: Stage, operation: str):
    """Told with the field and who wrote it; a step forward over it is refused, a restore is not."""
    gateway.put(CANARY)
    foreign = gateway.fake.store.read(gateway.main)["spec"]["rules"]
    foreign[0]["matches"] = foreign[0]["matches"][:3]
    gateway.fake.edit(gateway.main, {"spec": {"rules": foreign}}, manager="kubectl-edit")

    with pytest.raises(Foreign, match=r"rules\[0\].matches has 3 entries, not 6.*kubectl-edit"):
        gateway.plane.observe(EVERYWHERE)
    assert "kubectl-edit" in gateway.plane.verify(CANARY)
    if operation == "edit":
        with pytest.raises(Stale, match=r'conflict with "kubectl-edit".*restored first'):
            gateway.plane.apply(replace(CANARY, sequence=3, buckets=16))
        assert gateway.plane.written(EVERYWHERE) == CANARY

    restored = replace(CANARY, sequence=3)
    gateway.put(restored)
    gateway.put(replace(CANARY, sequence=4, buckets=16))

    assert gateway.plane.observe(EVERYWHERE).buckets == 16


def test_a_way_back_goes_over_a_foreign_change(gateway: Stage):
    """Users return to the champion whoever has changed the route meanwhile."""
    gateway.put(CANARY)
    rules = gateway.fake.store.read(gateway.main)["spec"]["rules"][:1]
    rules[0]["matches"] = [{"path": {"type": "PathPrefix", "value": "/"}}]
    gateway.fake.edit(gateway.main, {"spec": {"rules": rules}})

    gateway.put(BACK)

    assert gateway.plane.verify(BACK) == ""


def test_the_kill_switch_is_one_command_and_nobody_here_undoes_it(staged: Stage):
    """From then on everybody is at the fallback, whatever tables come, until a person clears it."""
    staged.put(replace(CANARY, fallback=RULES))
    assert staged.plane.killed() == ""

    staged.fake.kubectl(staged.dialect.throw())
    wait(lambda: went(staged) == {PLACE.service(RULES)})

    assert "WHY" in staged.plane.killed()
    assert "kill switch" in staged.plane.verify(replace(CANARY, fallback=RULES))
    for later in (table(sequence=3, fallback="a"), table(sequence=4, challenger="b", buckets=64)):
        staged.plane.apply(later)
    staged.programming.end()
    if staged.dialect.main.kind == "HTTPRoute":
        assert went(staged) == {PLACE.service(RULES)}
    assert all(answer.startswith("digits-") for answer in went(staged))
    assert "WHY" in staged.plane.killed()

    staged.fake.kubectl(staged.dialect.clear())
    assert staged.plane.killed() == ""
    last = table(sequence=5, challenger="b", buckets=64)
    staged.put(last)
    assert went(staged) == {PLACE.service("b")}


def went(made: Stage) -> set[str]:
    """Return who answers many users, of markets too."""
    found = [made.asked(f"u-{n}", market) for n in range(40) for market in (None, "eu")]
    assert None not in found
    return {f.service for f in found if f is not None}


@pytest.mark.parametrize("lost", range(1, 7))
def test_an_answer_that_is_lost_after_any_write_is_finished_by_the_same_table(
    staged: Stage, lost: int
):
    """One lost answer is looked up; after more, the same table again makes it whole."""
    in_force(staged, table())
    told = table(sequence=1, challenger="b", buckets=5, salt="new", fallback=RULES)
    staged.fake.breaks = lost
    plane = staged.controller()
    if lost == 1:
        plane.apply(told)
    else:
        with pytest.raises(TableError, match="ask again"):
            plane.apply(told)
    staged.fake.breaks = 0

    staged.put(told)

    assert staged.plane.verify(told) == ""


def test_a_step_is_one_write(staged: Stage):
    """Where salt and fallback stay, only the routes are written: whole, or not at all."""
    staged.put(replace(CANARY, sequence=1, buckets=1))
    begun = len(staged.fake.requests)

    staged.put(CANARY)

    written = [p for m, p, _ in staged.fake.requests[begun:] if m == "PATCH"]
    assert written == [staged.main]


def test_a_salt_never_splits_users_by_new_buckets_over_old_routes(gateway: Stage):
    """While users are split the salt stays; it changes where nobody or everybody is exposed."""
    gateway.put(CANARY)

    with pytest.raises(TableError, match="another salt while users are split"):
        gateway.plane.apply(replace(CANARY, sequence=3, salt="other"))

    gateway.put(table(sequence=3, salt="other"))
    gateway.put(replace(CANARY, sequence=4, salt="other"))


@pytest.mark.parametrize(
    ("then", "order"),
    [
        (table(sequence=3, salt="other"), ["digits", "digits-kill", "digits-assigner"]),
        (replace(CANARY, sequence=3, fallback=RULES, buckets=7), ["digits"]),
    ],
)
def test_users_leave_before_their_buckets_change(
    gateway: Stage, then: TrafficTable, order: list[str]
):
    """The route comes first where users were split, and last where they will be."""
    gateway.put(CANARY)
    begun = len(gateway.fake.requests)

    gateway.plane.apply(then)

    written = [p.rsplit("/", 1)[1] for m, p, _ in gateway.fake.requests[begun:] if m == "PATCH"]
    assert written[0] == order[0]


def test_an_edge_that_was_forgotten_is_found(gateway: Stage):
    """One replica that serves another table, another version or nothing makes verify fail."""
    gateway.put(CANARY)
    assert gateway.plane.verify(CANARY) == ""

    gateway.edges[1].versions[PLACE.service("a")] = ["1", "0"]
    assert "slot a answers as versions 0, 1" in gateway.plane.verify(CANARY)

    gateway.edges[1].versions[PLACE.service("a")] = ["1"]
    gateway.edges[1].assigns = False
    assert gateway.edges[1].url in gateway.plane.verify(CANARY)

    gateway.edges[1].end()
    assert "does not answer" in gateway.plane.verify(CANARY)
    gateway.edges.pop()
    gateway.programming.edges = gateway.edges


def test_a_slot_is_ready_when_its_service_says_so_of_what_was_asked(staged: Stage):
    """Silence, another generation, or a missing service is not ready."""
    path = "/apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices/digits-b"
    wait(lambda: staged.plane.ready("b"))

    staged.programming.held.set()
    staged.fake.edit(path, {"spec": {"predictor": {"minReplicas": 2}}})

    assert not staged.plane.ready("b")
    assert not staged.plane.ready(RULES)


def test_what_keeps_no_table_is_refused(gateway: Stage):
    """An annotation that is gone or broken is no table of ours, and never guessed."""
    gateway.fake.edit(gateway.main, {"metadata": {"annotations": {TABLES: "{}"}}})
    with pytest.raises(TableError, match="must be there"):
        gateway.plane.written(EVERYWHERE)

    gateway.fake.edit(gateway.main, {"metadata": {"annotations": {TABLES: "no"}}})
    with pytest.raises(TableError, match="no table"):
        gateway.plane.observe(EVERYWHERE)

    gateway.fake.edit(gateway.main, {"metadata": {"annotations": {TABLES: None}}})
    with pytest.raises(TableError, match="keeps no table"):
        gateway.plane.apply(CANARY)


def test_a_market_without_a_table_goes_by_everybodys_with_nobody_exposed():
    """Its first own table exposes whom it says, not whom everybody's did."""
    held = {EVERYWHERE: table(sequence=7, challenger="b", buckets=20, fallback="a")}

    found = table_of(held, "eu")

    assert (found.sequence, found.market, found.buckets, found.champion) == (0, "eu", 0, "a")
