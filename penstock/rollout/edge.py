"""The edge: where users come in. Who may ask, over what, and what is cut off a request first."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

LOOPBACK = "127.0.0.1"
API_KEY = "envoy.filters.http.api_key_auth"
CALLER = "x-penstock-client"
"""Header that names whose token it was, for servers and the access log."""

KEPT_CONNECTIONS = 16_384
MAX_HEADERS_KB, MAX_HEADERS = 16, 64
REQUEST_S, HEADERS_S, IDLE_S = 10, 5, 75
"""Longest time for a whole request to come in, for its headers, and between two requests."""

TYPES = "type.googleapis.com/envoy."
_MANAGER = f"{TYPES}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{24,200}=*")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FORGED = ("x-rollout-", "x-penstock-", "x-envoy-")
"""Beginnings of headers that only the edge may set."""


class AccessError(ValueError):
    """What was declared about access cannot be used; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask: whoever reaches loopback, unless tokens or client certificates are declared."""

    tokens: Mapping[str, str] = field(default_factory=dict[str, str])
    """SHA-256 of each caller's bearer token, in hexadecimal; the tokens are kept nowhere."""

    certificate: str | None = None
    key: str | None = None
    clients: str | None = None
    """Certificates of the authorities whose clients may connect; mutual TLS."""

    listen: str = LOOPBACK

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise AccessError("a certificate needs its key: give --tls-cert and --tls-key.")
        if self.clients is not None and self.certificate is None:
            raise AccessError("client certificates need TLS: give --tls-cert and --tls-key too.")
        if self.listen != LOOPBACK and not (self.tls and (self.tokens or self.clients)):
            raise AccessError(
                f"listening at {self.listen} needs --tls-cert and --tls-key, and --token or "
                "--client-ca: others than this machine's users could ask."
            )
        for path in (self.certificate, self.key, self.clients):
            if path is not None and not os.access(path, os.R_OK):
                raise AccessError(f"{path} cannot be read; name a PEM file that can.")
        if self.key is not None:
            private(Path(self.key))

    @property
    def tls(self) -> bool:
        """Whether the edge speaks TLS."""
        return self.certificate is not None

    def save(self, path: Path) -> None:
        """Remember it, for its owner's eyes."""
        write_private(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return what was remembered; anybody on loopback where nothing was.

        Raises:
            AccessError: What is remembered cannot be used any more.
        """
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        if unknown := set(held) - {f.name for f in fields(cls)}:
            raise AccessError(f"{path} holds {sorted(unknown)[0]!r}, which nobody knows.")
        return cls(**held)


def read_tokens(path: Path) -> dict[str, str]:
    """Return the hash of each caller's token in a file of lines ``NAME TOKEN``.

    Raises:
        AccessError: Others can read the file, a line is not one, or a token is short or twice.
    """
    private(path)
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        # The line itself is never shown: it may hold a secret.
        if len(words) != 2 or not _NAME.fullmatch(words[0]) or not _TOKEN.fullmatch(words[1]):
            raise AccessError(
                f"line {number} of {path} is not a name and a token of 24 to 200 letters, digits "
                "or -._~+/; make one: openssl rand -hex 32"
            )
        digest = hashlib.sha256(words[1].encode()).hexdigest()
        if words[0] in found or digest in found.values():
            raise AccessError(f"line {number} of {path} has a name or a token a second time.")
        found[words[0]] = digest
    if not found:
        raise AccessError(f"{path} holds no token; a line is: NAME TOKEN")
    return found


def private(path: Path) -> None:
    """Refuse a secret that others on this machine can read.

    Raises:
        AccessError: They can, or nobody can.
    """
    try:
        mode = path.stat().st_mode
    except OSError as e:
        raise AccessError(f"{path} cannot be read: {e.strerror}.") from e
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise AccessError(f"{path} can be read by others; make it yours alone: chmod 600 {path}")


def write_private(path: Path, document: object) -> None:
    """Write a JSON file that only its owner can read, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(json.dumps(document, indent=1, sort_keys=True))
    part.replace(path)


def address(port: int, host: str = LOOPBACK) -> dict[str, Any]:
    """Return Envoy's word for a port."""
    return {"socket_address": {"address": host, "port_value": port}}


def outside(
    port: int, routing: Mapping[str, Any], log: Path, body_bytes: int, access: Access, tls: Any
) -> dict[str, Any]:
    """Return the listener of users.

    Args:
        routing: Where the traffic table comes from.
        body_bytes: Longest body that is taken.
        tls: Where certificates come from, as :func:`inline` or :func:`watched` say.
    """
    filters = [_api_keys(access.tokens)] if access.tokens else []
    manager = _manager(routing, log, body_bytes, filters, forged=_FORGED)
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": manager}]}
    if access.tls:
        chain["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": f"{TYPES}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": access.clients is not None,
                "common_tls_context": {"alpn_protocols": ["http/1.1"], **tls},
            },
        }
    return {
        "name": "users",
        "address": address(port, access.listen),
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": body_bytes + 65_536,
        "filter_chains": [chain],
    }


def inside(
    socket: str, routing: Mapping[str, Any], log: Path, body_bytes: int
) -> dict[str, Any]:
    """Return the listener of this machine's owner: a socket file that nobody else can open.

    It asks for no token and lets a probe choose its slot.
    """
    manager = _manager(routing, log, body_bytes, [], forged=("x-rollout-", "x-envoy-"))
    return {
        "name": "inside",
        "address": {"pipe": {"path": socket, "mode": 0o600}},
        "per_connection_buffer_limit_bytes": body_bytes + 65_536,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def inline(access: Access) -> dict[str, Any]:
    """Return certificates as files that Envoy reads once; so it can check them beforehand."""
    held: dict[str, Any] = {"tls_certificates": [_certificate(access)]}
    if access.clients is not None:
        held["validation_context"] = {"trusted_ca": {"filename": access.clients}}
    return held


def watched(access: Access, secrets: Path) -> dict[str, Any]:
    """Return certificates as secrets that Envoy reads anew when their files are replaced."""
    source = {"path_config_source": {"path": str(secrets)}}
    held: dict[str, Any] = {
        "tls_certificate_sds_secret_configs": [{"name": _server(access), "sds_config": source}]
    }
    if access.clients is not None:
        authority = {"name": _clients(access), "sds_config": source}
        held["validation_context_sds_secret_config"] = authority
    return held


def _server(access: Access) -> str:
    """Return a secret's name; other files have another, so that a change of files is seen."""
    return f"server-{digest([access.certificate, access.key])}"


def _clients(access: Access) -> str:
    return f"clients-{digest([access.clients])}"


def digest(document: object) -> str:
    """Return a short name of a document's content."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def secrets(access: Access) -> dict[str, Any]:
    """Return the file that :func:`watched` points at."""
    kind = f"{TYPES}extensions.transport_sockets.tls.v3.Secret"
    resources: list[dict[str, Any]] = []
    if access.certificate is not None:
        folder = {"path": str(Path(access.certificate).parent)}
        held = {**_certificate(access), "watched_directory": folder}
        resources.append({"@type": kind, "name": _server(access), "tls_certificate": held})
    if access.clients is not None:
        held = {
            "trusted_ca": {"filename": access.clients},
            "watched_directory": {"path": str(Path(access.clients).parent)},
        }
        resources.append({"@type": kind, "name": _clients(access), "validation_context": held})
    return {"resources": resources}


def _certificate(access: Access) -> dict[str, Any]:
    return {
        "certificate_chain": {"filename": access.certificate},
        "private_key": {"filename": access.key},
    }


def _manager(
    routing: Mapping[str, Any],
    log: Path,
    body_bytes: int,
    filters: list[dict[str, Any]],
    *,
    forged: tuple[str, ...],
) -> dict[str, Any]:
    http = f"{TYPES}extensions.filters.http"
    lua = Path(__file__).with_name("assigner.lua").read_text(encoding="utf-8")
    return {
        "@type": _MANAGER,
        "stat_prefix": "users",
        "codec_type": "HTTP1",
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": MAX_HEADERS_KB,
        "common_http_protocol_options": {
            "idle_timeout": f"{IDLE_S}s",
            "max_headers_count": MAX_HEADERS,
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "request_timeout": f"{REQUEST_S}s",
        "request_headers_timeout": f"{HEADERS_S}s",
        "stream_idle_timeout": f"{REQUEST_S}s",
        "early_header_mutation_extensions": [_without(forged)],
        "access_log": [_access_log(log)],
        "local_reply_config": _replies(),
        **routing,
        "http_filters": [
            {
                "name": "envoy.filters.http.lua",
                "typed_config": {
                    "@type": f"{http}.lua.v3.Lua",
                    "default_source_code": {"inline_string": lua},
                },
            },
            *filters,
            {
                # The whole body first: a caller who sends slowly keeps no server waiting.
                "name": "envoy.filters.http.buffer",
                "typed_config": {
                    "@type": f"{http}.buffer.v3.Buffer",
                    "max_request_bytes": body_bytes,
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{http}.router.v3.Router"},
            },
        ],
    }


def _api_keys(tokens: Mapping[str, str]) -> dict[str, Any]:
    """Compare hashes: the assigner has put the token's hash where the token was."""
    return {
        "name": API_KEY,
        "typed_config": {
            "@type": f"{TYPES}extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
            "credentials": [{"client": name, "key": key} for name, key in tokens.items()],
            "key_sources": [{"header": "authorization"}],
            "forwarding": {"header": CALLER, "hide_credentials": True},
        },
    }


def _without(forged: tuple[str, ...]) -> dict[str, Any]:
    kind = f"{TYPES}extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    gone = [{"remove_on_match": {"key_matcher": {"prefix": begins}}} for begins in forged]
    return {"name": "forged", "typed_config": {"@type": kind, "mutations": gone}}


def _replies() -> dict[str, Any]:
    """Give Envoy's own answers the form of a server's, and say when to come again."""

    def status(op: str, code: int, header: str, value: str) -> dict[str, Any]:
        comparison = {"op": op, "value": {"default_value": code, "runtime_key": f"reply.{header}"}}
        return {
            "filter": {"status_code_filter": {"comparison": comparison}},
            "headers_to_add": [{"header": {"key": header, "value": value}}],
        }

    return {
        "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}},
        "mappers": [
            status("EQ", 401, "www-authenticate", "Bearer"),
            status("GE", 503, "retry-after", "1"),
        ],
    }


def _access_log(path: Path) -> dict[str, Any]:
    """One line a request; no user's name, no token."""
    lines = {
        "at": "%START_TIME(%s.%3f)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "client": f"%REQ({CALLER.upper()})%",
        "peer": "%DOWNSTREAM_PEER_SUBJECT%",
        "bucket": "%REQ(X-ROLLOUT-BUCKET)%",
        "arm": "%REQ(X-ROLLOUT-ARM)%",
        "upstream": "%UPSTREAM_HOST%",
        "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
    }
    return {
        "name": "file",
        "typed_config": {
            "@type": f"{TYPES}extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": lines},
        },
    }
