"""Laws of the API server's client: what each answer means, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from penstock.release import EVERYWHERE
from penstock.rollout.adapters.kubernetes import Session
from penstock.rollout.adapters.server import Expired, Held, Missing, Moved, Ref, Server
from penstock.rollout.ports import Stale, TableError
from tests.rollout.adapters import published
from tests.rollout.adapters.fakeserver import TOKEN, FakeServer, serving
from tests.rollout.adapters.stage import PLACE, first, stage, table

REF = PLACE.ref("gateway.networking.k8s.io", "v1", "HTTPRoute", "plain")
MANIFEST = {
    "apiVersion": REF.api,
    "kind": REF.kind,
    "metadata": {"name": REF.name, "namespace": REF.namespace},
    "spec": {"hostnames": ["a.example.com"]},
}


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """Return a server with one object of a person's."""
    with serving() as made:
        made.create(MANIFEST, manager="person")
        yield made


def client(fake: FakeServer, *, timeout_s: float = 5.0, token: str = TOKEN) -> Server:
    """Return a client."""
    return Server(Session.at(fake.url, token=token), timeout_s=timeout_s)


def version(fake: FakeServer) -> str:
    """Return the object's version."""
    return fake.store.read(REF.path)["metadata"]["resourceVersion"]


def test_what_was_written_since_it_was_read_is_not_written_over(fake: FakeServer):
    """A version is a precondition: who read before somebody else wrote is told so."""
    old = version(fake)
    fake.edit(REF.path, {"metadata": {"labels": {"by": "person"}}}, manager="person")

    with pytest.raises(Moved, match="modified"):
        client(fake).apply(REF, {"metadata": {"annotations": {"a": "1"}}}, version=old)

    assert issubclass(Moved, Stale)
    assert "annotations" not in fake.store.read(REF.path)["metadata"]


def test_what_another_manager_holds_is_not_taken(fake: FakeServer):
    """Another value is a conflict that names manager and field; the same value is shared."""
    other = {"spec": {"hostnames": ["b.example.com"]}}
    with pytest.raises(Held, match=r'conflict with "person": \.spec\.hostnames'):
        client(fake).apply(REF, other, version=version(fake))

    client(fake).apply(REF, {"spec": {"hostnames": ["a.example.com"]}}, version=version(fake))
    with pytest.raises(Held):
        client(fake).apply(REF, other, version=version(fake))


def test_fields_are_taken_over_only_by_writing_who_holds_them(fake: FakeServer):
    """Disowned, the field keeps its value, and what else the other one holds stays theirs."""
    fake.edit(REF.path, {"metadata": {"labels": {"mine": "yes"}}}, manager="person")
    server = client(fake)
    read = server.get(REF)

    freed = server.disown(REF, read, ["hostnames"])

    assert freed["spec"] == read["spec"]
    server.apply(
        REF,
        {"spec": {"hostnames": ["b.example.com"]}},
        version=freed["metadata"]["resourceVersion"],
    )
    found = server.get(REF)
    assert found["spec"]["hostnames"] == ["b.example.com"]
    assert found["metadata"]["labels"] == {"mine": "yes"}
    with pytest.raises(Moved):
        server.disown(REF, read, ["hostnames"])


def test_a_field_that_nobody_knows_is_refused(fake: FakeServer):
    """Strictly: 400 with its name, and 422 for a value of another form; nothing is written."""
    published.need()
    fake.edit(REF.path, {"spec": {"hostnames": ["b.example.com"]}}, manager="penstock-release")
    server = client(fake)
    server.disown(REF, server.get(REF), ["hostnames"])
    before = version(fake)

    with pytest.raises(TableError, match=r"refuses.*strict decoding.*weight"):
        client(fake).apply(REF, {"spec": {"weight": 1}}, version=before)
    with pytest.raises(TableError, match=r"refuses.*hostnames"):
        client(fake).apply(REF, {"spec": {"hostnames": ["Not A Host"]}}, version=before)

    assert version(fake) == before


def test_a_role_that_lacks_something_is_told(fake: FakeServer):
    """403 and 401 say what was denied and where the role is described."""
    fake.denied = {"PATCH"}
    with pytest.raises(TableError, match=r"denies PATCH.*role"):
        client(fake).apply(REF, {}, version=version(fake))
    with pytest.raises(TableError, match=r"denies GET.*Unauthorized"):
        client(fake, token="wrong").get(REF)


def test_silence_and_absence_are_told_apart_from_an_answer(fake: FakeServer):
    """A server that is silent, not there, or no API server is an error with a sentence."""
    fake.silent.set()
    with pytest.raises(TableError, match=r"did not answer within 0\.1 s; ask again"):
        client(fake, timeout_s=0.1).get(REF)
    fake.silent.clear()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(TableError, match="is not reached"):
            Server(Session.at(url, token=TOKEN)).get(REF)

    other = PLACE.ref("gateway.networking.k8s.io", "v1", "HTTPRoute", "other")
    with pytest.raises(Missing, match="is not there; create it"):
        client(fake).get(other)


@pytest.mark.parametrize(("status", "text"), [(200, b"<html>"), (503, b"{}"), (429, b"{}")])
def test_what_is_no_api_server_or_overloaded_is_an_error(status: int, text: bytes):
    """A page of a proxy, or a server that asks to come again."""

    class Page(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text)

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            server = Server(Session.at(f"http://127.0.0.1:{http.server_port}", token=TOKEN))
            with pytest.raises(TableError, match=r"no API server|ask again"):
                server.get(REF)
        finally:
            http.shutdown()
            thread.join()


def test_a_forgotten_version_cannot_be_watched_from(fake: FakeServer):
    """410 is an error of its own: the object must be read again."""
    old = version(fake)
    fake.edit(REF.path, {"metadata": {"labels": {"n": "1"}}})
    fake.store.compact()

    with pytest.raises(Expired, match="too old"):
        next(client(fake).watch(REF, since=old, seconds=1.0))


def test_a_watch_has_bookmarks_and_ends_by_itself(fake: FakeServer):
    """Changes of others move the bookmark, and are not told as changes of this object."""
    fake.create({**MANIFEST, "metadata": {**MANIFEST["metadata"], "name": "next"}})
    other = REF.path.replace("plain", "next")
    since = version(fake)
    fake.edit(other, {"metadata": {"labels": {"n": "1"}}})

    seen = list(client(fake).watch(REF, since=since, seconds=1.0))

    assert {change.kind for change in seen} == {"BOOKMARK"}
    assert int(seen[-1].object["metadata"]["resourceVersion"]) > int(since)


def test_a_kubeconfig_is_read_as_kubectl_reads_it(fake: FakeServer, tmp_path: Path):
    """Server and token of the chosen context; without one that is there, a sentence."""
    path = tmp_path / "config"
    named = {"name": "here"}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [named | {"cluster": {"server": fake.url}}],
                "users": [named | {"user": {"token": TOKEN}}],
                "contexts": [named | {"context": {"cluster": "here", "user": "here"}}],
                "current-context": "here",
            }
        )
    )

    assert Server(Session.kubeconfig(str(path))).get(REF)["kind"] == "HTTPRoute"
    with pytest.raises(TableError, match="kubectl config view"):
        Session.kubeconfig(str(path), context="elsewhere")
    with pytest.raises(TableError, match="name a kubeconfig"):
        Session.in_cluster()


def test_a_first_apply_by_kubectl_under_our_name_is_no_conflict():
    """What a person creates as docs/how-to/release-on-a-cluster.md says is ours from then on."""
    with stage("gateway") as made:
        found = made.fake.store.read(made.main)
        managers = {e["manager"] for e in found["metadata"]["managedFields"]}

        made.put(table(sequence=1, challenger="b", buckets=6))

        assert managers == {"penstock-release"}
        assert json.loads(found["metadata"]["annotations"]["penstock.io/tables"]) == {
            EVERYWHERE: first()[EVERYWHERE].to_dict()
        }


def test_refs_name_paths_as_the_api_does():
    """Group, version, namespace, plural and name, in this order."""
    ref = Ref(group="g.io", version="v2", plural="things", kind="Thing", name="n", namespace="ns")

    assert ref.path == "/apis/g.io/v2/namespaces/ns/things/n"
    assert str(ref) == "Thing ns/n"
