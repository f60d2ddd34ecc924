"""Laws of the edge on a real Envoy: who is let in, what is cut off, what is refused."""

from __future__ import annotations

import asyncio
import datetime as dt
import http.client
import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from penstock.rollout import admin, envoy
from penstock.rollout.access import Access, AccessError, read_tokens
from penstock.rollout.edge import HEADERS_S, MAX_HEADERS, MAX_HEADERS_KB
from penstock.rollout.envoy import EnvoyError
from penstock.rollout.plane import Plane
from penstock.rollout.supervisor import COMMAND_VARIABLE
from penstock.rollout.table import TrafficTable
from tests.packages import free_port, running, wait_for
from tests.rollout.test_plane import INFER, STANDIN, table

READY = "/v2/models/digits/ready"
SECRETS = {"shop": "s" * 32, "bank": "b" * 31 + "="}


@dataclass(frozen=True)
class Authority:
    """Makes certificates of its own; ``made`` is the folder they lie in."""

    made: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def begin(cls, made: Path) -> Authority:
        """Return a new authority, its certificate in ``ca.pem``."""
        key = ec.generate_private_key(ec.SECP256R1())
        made.mkdir()
        signed = _signed(key, "authority", key, "authority", ca=True)
        (made / "ca.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return cls(made, key, signed)

    @property
    def path(self) -> str:
        """Where its certificate lies."""
        return str(self.made / "ca.pem")

    def issue(self, name: str) -> tuple[str, str]:
        """Return the files of a certificate and its key; files of this name are replaced."""
        key = ec.generate_private_key(ec.SECP256R1())
        signed = _signed(key, name, self.key, "authority", ca=False)
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        for end, text in (
            ("key", secret),
            ("pem", signed.public_bytes(serialization.Encoding.PEM)),
        ):
            part = self.made / "part"
            part.write_bytes(text)
            part.chmod(0o600)
            part.replace(self.made / f"{name}.{end}")
        return str(self.made / f"{name}.pem"), str(self.made / f"{name}.key")


def _signed(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    by: ec.EllipticCurvePrivateKey,
    issuer: str,
    *,
    ca: bool,
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(by, hashes.SHA256())
    )


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One plane whose slot a answers; each test lets in whom it needs."""
    patch = pytest.MonkeyPatch()
    patch.setenv(COMMAND_VARIABLE, STANDIN)
    home = tmp_path_factory.mktemp("edge")
    made = Plane.up(home, model="digits", port=free_port())
    made.set_slot("a", package=home, digest="sha256:1", version="1")
    made.wait_ready("a", version="1", timeout_s=20)
    wait_for(lambda: made.probe("a", READY)[0] == 200, 5)
    yield made
    made.down()
    patch.undo()


@pytest.fixture
def open_to_all(plane: Plane) -> Plane:
    """The plane as it is without any declaration."""
    return admit(plane, Access())


def admit(plane: Plane, access: Access) -> Plane:
    """Change who may ask, and wait until it is so."""
    return Plane.up(plane.home, model="digits", port=plane.status()["port"], access=access)


def token_file(folder: Path, text: str | None = None) -> Path:
    """Write a token file as a person would."""
    path = folder / "tokens"
    lines = [f"{name} {token}" for name, token in SECRETS.items()]
    path.write_text("# who may ask\n\n" + "\n".join(lines) if text is None else text)
    path.chmod(0o600)
    return path


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"authorization": f"Bearer {token}"}


def test_only_a_known_token_is_answered(plane: Plane, tmp_path: Path):
    """Each token works and names its caller; without one, or with nearly one, it is 401."""
    admit(plane, Access(tokens=read_tokens(token_file(tmp_path))))
    digest = next(iter(read_tokens(tmp_path / "tokens").values()))
    with httpx.Client(base_url=plane.url) as client:
        for name, token in SECRETS.items():
            answer = client.post(INFER, headers=bearer(token))
            assert answer.status_code == 200, name
            assert "authorization" not in answer.json()
        wrong = [{}, bearer("s" * 31), bearer("s" * 33), bearer(digest)]
        wrong += [{"authorization": "Basic " + "s" * 32}, {"authorization": "s" * 32}]
        for headers in wrong:
            answer = client.post(INFER, headers=headers)
            assert (answer.status_code, list(answer.json())) == (401, ["error"]), headers
            assert "a bearer token is needed" in answer.json()["error"]
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "x-penstock-arm" not in answer.headers
        twice = httpx.Headers([("authorization", f"Bearer {t}") for t in ("s" * 32, "x" * 32)])
        assert client.post(INFER, headers=twice).status_code == 401


def test_a_load_balancer_and_the_owner_need_no_token(plane: Plane, tmp_path: Path):
    """Health is open, the model's own routes are not; the socket inside is its owner's alone."""
    admit(plane, Access(tokens=read_tokens(token_file(tmp_path))))
    with httpx.Client(base_url=plane.url) as client:
        for path, status in (("/v2/health/live", 200), ("/v2/health/ready", 200), (READY, 401)):
            assert client.get(path).status_code == status, path
        assert client.get("/v2/health/../models/digits/ready").status_code == 401
        assert client.get("/v2/health/ready%2f..%2f..%2fmodels").status_code == 400

    assert plane.probe("a", INFER, b"{}")[0] == 200
    assert plane.inside.stat().st_mode & 0o077 == 0


def test_no_token_lies_anywhere(plane: Plane, tmp_path: Path):
    """No file of the home, no process's command line and no dump of Envoy's holds a token."""
    admit(plane, Access(tokens=read_tokens(token_file(tmp_path))))
    with httpx.Client(base_url=plane.url) as client:
        client.post(INFER, headers=bearer(SECRETS["shop"]))
        client.post(INFER, headers=bearer("wrong" * 8))
    seen = plane.status()
    admin.ask(seen["admin"], "POST", "/reopen_logs")
    held = [p.read_bytes() for p in plane.home.rglob("*") if p.is_file()]
    held += [Path(f"/proc/{seen[who]}/cmdline").read_bytes() for who in ("envoy",)]
    held.append(Path(f"/proc/{seen['supervisor']['pid']}/cmdline").read_bytes())
    held.append(admin.ask(seen["admin"], "GET", "/config_dump"))

    for secret in (*SECRETS.values(), "wrong" * 8):
        assert not any(secret.encode() in text for text in held)
    private = [plane.home / "serving" / name for name in ("access.json", envoy.LISTENERS)]
    assert [p.stat().st_mode & 0o777 for p in private] == [0o600] * 2


def test_a_token_that_was_taken_away_is_refused_at_once(plane: Plane, tmp_path: Path):
    """On a new connection; the others stay as they are, and no request is lost meanwhile."""
    held = read_tokens(token_file(tmp_path))
    admit(plane, Access(tokens=held))
    admit(plane, Access(tokens={"bank": held["bank"]}))

    for name, status in (("shop", 401), ("bank", 200)):
        answer = httpx.post(plane.url + INFER, headers=bearer(SECRETS[name]))
        assert answer.status_code == status


def test_who_may_ask_is_remembered_by_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After stopping and starting without a word about it, the same tokens are asked for."""
    monkeypatch.setenv(COMMAND_VARIABLE, STANDIN)
    access = Access(tokens=read_tokens(token_file(tmp_path)))
    port = free_port()
    Plane.up(tmp_path, model="digits", port=port, access=access).down()

    plane = Plane.up(tmp_path, model="digits", port=port)
    try:
        assert httpx.post(plane.url + INFER).status_code == 401
        assert plane.status()["tokens"] == ["bank", "shop"]
    finally:
        plane.down()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no token"),
        ("shop short", "line 1 of .* is not a name and a token of 24"),
        ("# a\nonlyatoken" + "x" * 30, "line 2"),
        ("shop " + "s" * 32 + "\nbank " + "s" * 32, "line 2 of .* a second time"),
        ("shop " + "s" * 32 + "\nshop " + "b" * 32, "line 2 of .* a second time"),
    ],
)
def test_a_token_file_that_is_none_is_refused_without_showing_it(
    tmp_path: Path, text: str, said: str
):
    """The line is named, never shown."""
    with pytest.raises(AccessError, match=said) as refused:
        read_tokens(token_file(tmp_path, text))

    assert "short" not in str(refused.value)
    assert "ssss" not in str(refused.value)


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path):
    """Tokens and keys alike; the text says how to mend it."""
    path = token_file(tmp_path)
    authority = Authority.begin(tmp_path / "ca")
    certificate, key = authority.issue("server")
    for shown in (path, Path(key)):
        shown.chmod(0o640)
    with pytest.raises(AccessError, match="chmod 600"):
        read_tokens(path)
    with pytest.raises(AccessError, match="chmod 600"):
        Access(certificate=certificate, key=key)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"certificate": "c"}, "--tls-cert and --tls-key"),
        ({"clients": "c"}, "need TLS"),
        ({"listen": "0.0.0.0"}, "listening at 0.0.0.0 needs"),
        ({"listen": "0.0.0.0", "tokens": {"a": "b"}}, "needs --tls-cert"),
        ({"certificate": "/nowhere", "key": "/nowhere"}, "/nowhere cannot be read"),
    ],
)
def test_half_a_declaration_is_refused(fields: dict[str, str], said: str):
    """Nothing that looks closed is open."""
    with pytest.raises(AccessError, match=said):
        Access(**fields)  # pyright: ignore[reportArgumentType]


def test_tls_and_client_certificates(plane: Plane, tmp_path: Path):
    """With TLS nothing is answered in the clear; with a client authority only to its clients."""
    authority, other = (Authority.begin(tmp_path / name) for name in ("ours", "theirs"))
    certificate, key = authority.issue("server")
    access = Access(certificate=certificate, key=key)
    admit(plane, access)
    trust = ssl.create_default_context(cafile=authority.path)

    assert plane.url.startswith("https://")
    assert httpx.post(plane.url + INFER, verify=trust).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.post(plane.url + INFER, verify=ssl.create_default_context(cafile=other.path))
    with pytest.raises(httpx.HTTPError):
        httpx.post(plane.url.replace("https", "http") + INFER)

    admit(plane, Access(certificate=certificate, key=key, clients=authority.path))
    assert plane.probe("a", INFER, b"{}")[0] == 200
    for issuer, welcome in ((None, False), (other, False), (authority, True)):
        asks = ssl.create_default_context(cafile=authority.path)
        if issuer is not None:
            asks.load_cert_chain(*issuer.issue("client"))
        if welcome:
            assert httpx.post(plane.url + INFER, verify=asks).status_code == 200
        else:
            with pytest.raises(httpx.HTTPError):
                httpx.post(plane.url + INFER, verify=asks)


def test_a_renewed_certificate_is_used_without_a_restart(plane: Plane, tmp_path: Path):
    """Files replaced by rename are read anew; Envoy's process stays."""
    authority = Authority.begin(tmp_path / "ca")
    certificate, key = authority.issue("server")
    admit(plane, Access(certificate=certificate, key=key))
    before, process = _served(plane), plane.status()["envoy"]

    authority.issue("server")

    wait_for(lambda: _served(plane) != before, 10)
    assert _served(plane) == ssl.PEM_cert_to_DER_cert(Path(certificate).read_text())
    assert plane.status()["envoy"] == process


def _served(plane: Plane) -> bytes:
    address = ("127.0.0.1", plane.status()["port"])
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(address))


def test_a_key_that_is_another_certificates_is_refused_in_plain_words(tmp_path: Path):
    """Both files are named, and nothing of the library's that found it; so is what is no key."""
    authority = Authority.begin(tmp_path / "ca")
    certificate, _ = authority.issue("server")
    _, key = authority.issue("other")

    with pytest.raises(AccessError, match=r"other\.key does not belong to .*server\.pem"):
        Access(certificate=certificate, key=key)
    Path(key).write_text("no key")
    with pytest.raises(AccessError, match=r"must be a certificate and its key"):
        Access(certificate=certificate, key=key)


def test_what_envoy_refuses_changes_nothing(plane: Plane, tmp_path: Path):
    """Authorities that are none are found before anything is touched."""
    authority = Authority.begin(tmp_path / "ca")
    certificate, key = authority.issue("server")
    none = tmp_path / "none.pem"
    none.write_text("no certificate")
    admit(plane, Access())
    held = (plane.home / "serving" / "access.json").read_text()

    with pytest.raises(EnvoyError, match="Envoy refuses its configuration"):
        admit(plane, Access(certificate=certificate, key=key, clients=str(none)))

    assert (plane.home / "serving" / "access.json").read_text() == held
    assert httpx.post(plane.url + INFER).status_code == 200
    assert not list((plane.home / "serving").glob("check-*"))


def test_what_only_the_edge_may_say_is_cut_off(open_to_all: Plane):
    """No caller names its slot, its arm, its client, Envoy's own limits, or itself a shadow."""
    forged = {
        "x-penstock-probe-slot": "b",
        "X-Penstock-Client": "bank",
        "x-rollout-shadow": "1",
        "x-rollout-anything": "1",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-max-retries": "9",
        "x_rollout_bucket": "1",
        "host": "digits-shadow",
        "cookie": "session=1",
    }

    seen = httpx.post(open_to_all.url + INFER, headers=forged)

    assert (seen.status_code, seen.headers["x-penstock-slot"]) == (200, "a")
    assert {name.lower() for name in forged} & set(seen.json()) == {"host"}
    assert seen.json()["x-rollout-arm"] == seen.headers["x-penstock-arm"] == "champion"
    assert not seen.json()["host"].endswith("-shadow")


def test_a_request_of_two_users_is_refused(open_to_all: Plane):
    """The edge and a server's log could take it for two different users."""
    twice = httpx.Headers([("x-user-id", "one"), ("x-user-id", "other")])

    answer = httpx.post(open_to_all.url + INFER, headers=twice)

    assert answer.status_code == 400
    assert answer.json() == {"error": "x-user-id came more than once; name one user"}


def test_each_request_says_what_it_was_and_who_answered(open_to_all: Plane):
    """Method, path without its question, sizes and slot; of a refusal, why and no slot."""
    log = open_to_all.home / "serving" / "access.jsonl"
    with httpx.Client(base_url=open_to_all.url) as client:
        client.post(INFER + "?secret=1", content=b"12345", headers={"x-request-id": "told"})
        client.post(INFER, content=b"x" * (1 << 21), headers={"x-request-id": "refused"})

    def lines() -> dict[str, dict[str, object]]:
        read = (json.loads(line) for line in log.read_text().splitlines())
        return {line["request_id"]: line for line in read}

    wait_for(lambda: {"told", "refused"} <= set(lines()), 15)
    told, refused = lines()["told"], lines()["refused"]
    assert (told["method"], told["path"], told["bytes_in"]) == ("POST", INFER, 5)
    assert (told["slot"], told["status"], told["why"]) == ("a", 200, "via_upstream")
    assert (refused["slot"], refused["arm"], refused["status"]) == (None, None, 413)


def test_a_request_without_an_id_gets_one(open_to_all: Plane):
    """The server and the caller are told the same; an id that came is kept."""
    with httpx.Client(base_url=open_to_all.url) as client:
        made, again = client.post(INFER), client.post(INFER)
        kept = client.post(INFER, headers={"x-request-id": "mine"})

    for answer in (made, again, kept):
        assert answer.headers["x-request-id"] == answer.json()["x-request-id"]
    assert made.headers["x-request-id"] != again.headers["x-request-id"]
    assert kept.headers["x-request-id"] == "mine"


def test_too_much_is_refused_in_the_servers_own_form(open_to_all: Plane):
    """A body, headers in number and in size: refused at the edge, as one sentence of JSON."""
    most = b"x" * (1 << 20)
    with httpx.Client(base_url=open_to_all.url) as client:
        assert client.post(INFER, content=most).status_code == 200
        for content in (most + b"x", iter([most, b"x"])):
            answer = client.post(INFER, content=content)
            assert (answer.status_code, answer.json()) == (
                413,
                {"error": "the body is longer than 1048576 bytes"},
            )
        many = {f"h-{n}": "x" for n in range(MAX_HEADERS)}
        for headers in (many, {"h": "x" * 1024 * MAX_HEADERS_KB}):
            answer = client.post(INFER, headers=headers)
            assert answer.status_code == 431
            assert "more than 64 headers" in answer.json()["error"]


def test_a_caller_who_stops_halfway_is_let_go(open_to_all: Plane):
    """Headers that do not come to an end are answered by 408; no server ever hears of it."""
    seen = open_to_all.log_folder("a") / "seen.jsonl"
    lines = len(seen.read_text().splitlines())
    connection = http.client.HTTPConnection("127.0.0.1", open_to_all.status()["port"])
    connection.putrequest("POST", INFER)
    connection.putheader("x-user-id", "slow")
    connection.send(b"POST")
    connection.sock.settimeout(2 * HEADERS_S)

    answer = connection.sock.recv(1000)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not come in whole within" in answer
    connection.close()
    assert len(seen.read_text().splitlines()) == lines


@pytest.fixture
def served(open_to_all: Plane) -> Iterator[Callable[[str, str], None]]:
    """Let a slot serve a version; afterwards slot a is as it was and slot b empty."""

    def serve(slot: str, version: str) -> None:
        open_to_all.set_slot(slot, package=open_to_all.home, digest="sha256:1", version=version)
        open_to_all.wait_ready(slot, version=version, timeout_s=20)
        wait_for(lambda: open_to_all.probe(slot, READY)[0] == 200, 5)

    yield serve
    table(open_to_all, 0)
    serve("a", "1")
    open_to_all.stop_slot("b")


def test_a_burst_waits_its_turn(open_to_all: Plane, served: Callable[[str, str], None]):
    """Of 150 requests at once a server hears no more than it takes; nobody is refused."""
    served("a", "narrow")

    async def burst() -> list[int]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

            async def one() -> int:
                async with client.post(open_to_all.url + INFER) as answer:
                    return answer.status

            return await asyncio.gather(*(one() for _ in range(150)))

    assert set(asyncio.run(burst())) == {200}


def test_what_a_challenger_refuses_the_champion_may_take(
    open_to_all: Plane, served: Callable[[str, str], None]
):
    """A refusal that is the challenger's own reaches no user; the challenger heard the request."""
    served("b", "refusing")
    table(open_to_all, 64)

    seen = open_to_all.log_folder("b") / "seen.jsonl"

    def heard() -> bool:
        answer = httpx.post(open_to_all.url + INFER, headers={"x-request-id": "both"})
        assert (answer.status_code, answer.headers["x-penstock-slot"]) == (200, "a")
        return seen.exists() and "both" in seen.read_text()

    # Envoy asks a slot that has just come up at its own time.
    wait_for(heard, 5)


def test_the_access_log_is_kept_in_pieces_and_names_no_user(open_to_all: Plane):
    """A renamed log goes on where it was until Envoy opens it anew; every request has one line."""
    log = open_to_all.home / "serving" / "access.jsonl"
    older = log.with_name("access.jsonl.1")
    with httpx.Client(base_url=open_to_all.url) as client:
        for n in range(60):
            if n == 20:
                log.replace(older)
            if n == 40:
                admin.ask(open_to_all.status()["admin"], "POST", "/reopen_logs")
            headers = {"x-request-id": f"line-{n}", "x-user-id": "somebody"}
            assert client.post(INFER, headers=headers).status_code == 200

    def ids() -> list[str]:
        text = (older.read_text() + log.read_text()) if log.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        return [line["request_id"] for line in lines if "line-" in (line["request_id"] or "")]

    wait_for(lambda: len(ids()) == 60, 15)
    assert ids() == [f"line-{n}" for n in range(60)]
    assert "somebody" not in older.read_text() + log.read_text()


def test_an_envoy_that_dies_or_hangs_is_replaced(plane: Plane):
    """Who may ask and who answers are as before; both times are counted."""
    held = plane.observe()
    for number, how in enumerate(("-KILL", "-STOP"), 1):
        pid = plane.status()["envoy"]
        subprocess.run(["kill", how, str(pid)], check=True)
        wait_for(lambda pid=pid: plane.status()["envoy"] not in (None, pid), 15)
        wait_for(lambda: _table(plane) == held, 10)
        wait_for(lambda: _probed(plane), 10)
        assert plane.status()["edge_restarts"] == number
        assert not running(pid)


def _table(plane: Plane) -> TrafficTable | None:
    try:
        return plane.observe()
    except EnvoyError:
        return None


def _probed(plane: Plane) -> bool:
    try:
        return plane.probe("a", READY)[0] == 200
    except OSError:
        return False
