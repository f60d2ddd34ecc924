"""Laws of the Knative adapter over the API server: everybody or nobody, and a person counts."""

from __future__ import annotations

import pytest

from penstock.release import EVERYWHERE
from penstock.rollout.adapters.cluster import ClusterPlane
from penstock.rollout.adapters.knative import Knative, Revisions
from penstock.rollout.adapters.kubernetes import Session
from penstock.rollout.adapters.server import Server
from penstock.rollout.ports import TableError
from tests.rollout.adapters.fakeserver import TOKEN, FakeServer
from tests.rollout.adapters.stage import PLACE, Programming, first, table

CANARY = table(sequence=2, challenger="b", buckets=6, mirror="b")
BACK = table(sequence=3)


def test_knative_switches_everybody_and_heeds_a_person() -> None:
    """All to one revision, all to the other; pinned traffic is refused, never overwritten."""
    dialect = Knative(PLACE, Revisions(a="digits-00001", b="digits-00002"))
    with FakeServer() as fake:
        programming = Programming(fake, delay_s=0.0)
        (made,) = dialect.manifests(first())
        fake.create(made)
        plane = ClusterPlane(Server(Session.at(fake.url, token=TOKEN)), dialect)

        over = table(sequence=1, challenger="b", buckets=64)
        plane.apply(over)
        plane.wait_applied(over, timeout_s=10.0)
        fake.kubectl(dialect.throw({EVERYWHERE: over}))

        assert plane.killed() == "WHY"
        with pytest.raises(TableError, match="held by a person: WHY"):
            plane.apply(table(sequence=2, challenger="b", buckets=64, trickle=None))
        traffic = fake.store.read(dialect.main.path)["spec"]["traffic"]
        assert [t["percent"] for t in traffic] == [100, 0]
        fake.kubectl(dialect.clear())
        plane.apply(table(sequence=2))
        programming.end()
