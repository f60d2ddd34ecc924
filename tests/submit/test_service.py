"""Laws of a server's answers: each fault has its own end, and what may be asked again is."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipelines.submission import connection, service
from pipelines.submission.ended import Ended, Outcome
from pipelines.submission.service import Patience, Service
from pipelines.submission.tokens import Tokens
from tests.submit.conftest import service_of
from tests.submit.kubeflow import Kubeflow
from tests.submit.web import Fault, Server, serving

HTML = {"content-type": "text/html; charset=utf-8"}


def health(asked: Service) -> Any:
    """Ask the cheapest question there is."""
    return asked.ask("say how it is", asked.health.healthz_service_get_healthz)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429])
def test_a_server_that_cannot_now_is_asked_again(server: Server, told: list[Any], status: int):
    """With longer and longer pauses, each of which is told."""
    server.faults = [Fault("healthz", "status", times=3, status=status)]

    assert health(service_of(server, told)).multi_user is False
    assert [event["again_s"] for event in told] == [1.0, 2.0, 4.0]
    assert server.count("healthz") == 4


def test_a_connection_that_breaks_is_made_again(server: Server, told: list[Any]):
    server.faults = [Fault("healthz", "reset", times=2)]

    assert health(service_of(server, told)).multi_user is False
    assert len(told) == 2


def test_it_is_given_up_after_so_many_attempts(server: Server, told: list[Any]):
    """Bounded: five questions, not one more."""
    server.faults = [Fault("healthz", "status", times=99, status=503)]

    with pytest.raises(Ended, match="in 5 attempts: it answered 503: trouble") as ended:
        health(service_of(server, told))

    assert ended.value.outcome is Outcome.UNREACHABLE
    assert server.count("healthz") == 5


def test_an_answer_that_does_not_come_is_not_waited_for(
    server: Server, told: list[Any], monkeypatch: pytest.MonkeyPatch
):
    """The client takes a float for no timeout at all: then this would wait for the server."""
    monkeypatch.setattr(service, "ANSWER_S", 0.05)
    server.faults = [Fault("healthz", "slow", times=1)]

    assert health(service_of(server, told)).multi_user is False
    assert "ReadTimeout" in told[0]["text"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("healthz", "status", status=401),
        Fault("healthz", "status", status=403, text="RBAC: access denied", headers=HTML),
        Fault("healthz", "status", status=302, text="", headers={"location": "https://dex/login"}),
        Fault("healthz", "status", status=200, text="<html>Sign in</html>", headers=HTML),
        Fault("healthz", "status", status=200, text='["please", "log", "in"]'),
        Fault("healthz", "status", status=400, text='{"message": "Authorization Failure"}'),
    ],
    ids=["401", "403", "leads to a login page", "is one", "another's JSON", "400 of an upload"],
)
def test_who_is_not_let_in_is_told_so_at_once(server: Server, told: list[Any], fault: Fault):
    """A login page is no empty answer; asking again helps nobody."""
    server.faults = [fault]

    with pytest.raises(Ended) as ended:
        health(service_of(server, told))

    assert ended.value.outcome is Outcome.NOT_ALLOWED
    assert "token" in ended.value.reason
    assert (len(server.asked), told) == (1, [])


def test_a_token_does_not_follow_a_lead(server: Server, told: list[Any], kubeflow: Kubeflow):
    """Another address that a server leads to never sees the token, nor any request."""
    with serving(kubeflow) as other:
        lead = {"location": f"{other.url}/apis/v2beta1/healthz"}
        server.faults = [Fault("healthz", "status", status=307, text="", headers=lead)]
        tokens = Tokens(None, {"PENSTOCK_KFP_TOKEN": "secret-token"})

        with pytest.raises(Ended, match="leading to http://127"):
            health(service_of(server, told, tokens=tokens))

        assert other.asked == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("healthz", "status", status=400, text='{"message": "no"}'), r"\(400\): no"),
        (Fault("healthz", "status", status=404, text="Not Found"), r"\(404\): Not Found"),
        (Fault("healthz", "status", status=404, text="<html>x", headers=HTML), "Not Found"),
    ],
)
def test_a_refusal_is_passed_on_in_the_servers_words(
    server: Server, told: list[Any], fault: Fault, said: str
):
    server.faults = [fault]
    with pytest.raises(Ended, match=said) as ended:
        health(service_of(server, told))

    assert ended.value.outcome is Outcome.REFUSED
    assert "<html" not in ended.value.reason


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://no-such-host.invalid"], ids=["refused", "no such name"]
)
def test_nobody_there_is_unreachable(told: list[Any], url: str):
    nobody = Server(url, Kubeflow())

    with pytest.raises(Ended) as ended:
        health(service_of(nobody, told))

    assert ended.value.outcome is Outcome.UNREACHABLE
    assert len(told) == 4


def test_the_token_is_read_anew_for_every_request(server: Server, told: list[Any], tmp_path: Path):
    """The kubelet replaces a pod's token while a run is followed."""
    file = tmp_path / "token"
    file.write_text("the-first-token")
    asked = service_of(server, told, tokens=Tokens(file, {}))
    health(asked)
    file.write_text("the-second-token")
    health(asked)

    assert server.tokens == ["Bearer the-first-token", "Bearer the-second-token"]


def test_without_a_token_none_is_sent(service: Service, server: Server):
    health(service)

    assert server.tokens == [""]


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("kubeflow.example.com", "http://… or https://… was wanted"),
        ("https://", "was wanted"),
        ("ftp://x", "was wanted"),
        ("https://me:hunter2@kubeflow.example.com", "give the address alone"),
        ("https://kubeflow.example.com/?token=hunter2", "give the address alone"),
        ("http://kubeflow.example.com", "unencrypted"),
        ("http://ml-pipeline.kubeflow", "unencrypted"),
    ],
)
def test_an_address_that_would_not_do_is_refused(host: str, said: str):
    """Before anybody is asked; a password in it is not repeated."""
    with pytest.raises(Ended, match=said) as ended:
        connection.checked(host, token=True, insecure=False)

    assert ended.value.outcome is Outcome.WRONG_CALL
    assert "hunter2" not in ended.value.reason


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("https://kubeflow.example.com/pipeline/", False),
        ("http://ml-pipeline.kubeflow.svc:8888", False),
        ("http://ml-pipeline.kubeflow.svc.cluster.local:8888", False),
        ("http://kubeflow.example.com", True),
    ],
)
def test_an_address_that_will_do_loses_its_last_slash(host: str, insecure: bool):
    assert connection.checked(host, token=True, insecure=insecure) == host.rstrip("/")


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("https://kubeflow.example.com", "http://proxy:3128"), ("https://inside.example.com", None)],
)
def test_a_proxy_is_used_where_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, host: str, wanted: str | None
):
    """The generated client knows none by itself."""
    monkeypatch.setattr(connection, "getproxies", getproxies)
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example.com")

    made = connection.configuration(host, Tokens(None, {}), None, insecure=False)
    assert made.proxy == wanted


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority of our own, one that signed nothing, and a certificate for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "other", "server")}
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    for name, key in keys.items():
        issuer = "ca" if name == "server" else name
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(dt.datetime.now(dt.UTC) - dt.timedelta(days=1))
            .not_valid_after(dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name != "server", path_length=None), True)
            .add_extension(address, critical=False)
            .sign(keys[issuer], hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key = keys["server"].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.key").write_bytes(key)
    return folder


@pytest.fixture
def secured(certificates: Path, kubeflow: Kubeflow):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    with serving(kubeflow, tls=context) as running:
        yield running


def test_a_certificate_of_an_authority_that_is_named_is_believed(
    secured: Server, told: list[Any], certificates: Path
):
    assert health(service_of(secured, told, ca_cert=certificates / "ca.pem")).multi_user is False


@pytest.mark.parametrize("ca", [None, "other.pem"], ids=["none named", "another one"])
def test_another_certificate_is_not_believed(
    secured: Server, told: list[Any], certificates: Path, ca: str | None
):
    """And not asked for again: it stays the same."""
    named = None if ca is None else certificates / ca

    with pytest.raises(Ended, match="--ca-cert") as ended:
        health(service_of(secured, told, ca_cert=named))

    assert ended.value.outcome is Outcome.UNREACHABLE
    assert (secured.asked, told) == ([], [])


def test_any_certificate_is_believed_by_who_says_so(secured: Server, told: list[Any]):
    with pytest.warns(Warning, match="Unverified HTTPS request"):
        assert health(service_of(secured, told, insecure=True)).multi_user is False


def test_pauses_grow_to_a_bound():
    pauses = list(Patience(attempts=9).pauses())

    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, None]
