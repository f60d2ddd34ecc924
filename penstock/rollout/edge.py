"""Envoy's listeners: what a request may be, what is cut off it, and over what it comes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.rollout.access import LOOPBACK, Access

TOKENS = "envoy.filters.http.rbac"
"""Name of the filter that compares tokens."""

TWICE = 421
"""What the assigner says to a request of two users; what users hear is 400."""

KEPT_CONNECTIONS = 16_384
MAX_HEADERS_KB, MAX_HEADERS = 16, 64
REQUEST_S, HEADERS_S, IDLE_S = 10, 5, 75
"""Longest time for a whole request to come in, for its headers, and between two requests."""

TYPES = "type.googleapis.com/envoy."
_MANAGER = f"{TYPES}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_FORGED = ("x-rollout-", "x-penstock-", "x-envoy-")
"""Beginnings of headers that only the edge may set."""


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
    filters = [_tokens(access.tokens)] if access.tokens else []
    manager = _manager("users", routing, log, body_bytes, filters, forged=_FORGED)
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


def inside(socket: str, routing: Mapping[str, Any], log: Path, body_bytes: int) -> dict[str, Any]:
    """Return the listener of this machine's owner: a socket file that nobody else can open.

    It asks for no token and lets a probe choose its slot.
    """
    manager = _manager("inside", routing, log, body_bytes, [], forged=("x-rollout-", "x-envoy-"))
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


def watched(access: Access, folder: Path) -> dict[str, Any]:
    """Return certificates as secrets that Envoy reads anew when their files are replaced."""

    def secret(file: str) -> dict[str, Any]:
        source = {"path_config_source": {"path": str(folder / file)}}
        return {"name": file, "sds_config": source}

    held: dict[str, Any] = {}
    for file in secrets(access):
        if file.startswith("clients"):
            held["validation_context_sds_secret_config"] = secret(file)
        else:
            held["tls_certificate_sds_secret_configs"] = [secret(file)]
    return held


def secrets(access: Access) -> dict[str, dict[str, Any]]:
    """Return the files that :func:`watched` points at: one a secret, Envoy takes no more.

    A secret of other files has another name, so that Envoy sees the change.
    """
    found: dict[str, dict[str, Any]] = {}
    if access.certificate is not None:
        held = {**_certificate(access), "watched_directory": _folder(access.certificate)}
        name = f"server-{digest([access.certificate, access.key])}.json"
        found[name] = _secret(name, {"tls_certificate": held})
    if access.clients is not None:
        authority = {"filename": access.clients}
        held = {"trusted_ca": authority, "watched_directory": _folder(access.clients)}
        name = f"clients-{digest(access.clients)}.json"
        found[name] = _secret(name, {"validation_context": held})
    return found


def _secret(name: str, held: dict[str, Any]) -> dict[str, Any]:
    kind = f"{TYPES}extensions.transport_sockets.tls.v3.Secret"
    return {"resources": [{"@type": kind, "name": name, **held}]}


def _folder(path: str) -> dict[str, str]:
    return {"path": str(Path(path).parent)}


def digest(document: object) -> str:
    """Return a short name of a document's content."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _certificate(access: Access) -> dict[str, Any]:
    return {
        "certificate_chain": {"filename": access.certificate},
        "private_key": {"filename": access.key},
    }


def _manager(
    name: str,
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
        "stat_prefix": name,
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
        "local_reply_config": _replies(body_bytes),
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


def _tokens(tokens: Mapping[str, str]) -> dict[str, Any]:
    """Compare hashes: the assigner has put the token's hash where the token was.

    Not Envoy's api_key_auth: it is still marked as outside its threat model.
    """
    policies = {
        name: {
            "permissions": [{"any": True}],
            "principals": [
                {"header": {"name": "authorization", "string_match": {"exact": f"Bearer {held}"}}}
            ],
        }
        for name, held in tokens.items()
    }
    rules = {"action": "ALLOW", "policies": policies}
    return {
        "name": TOKENS,
        "typed_config": {"@type": f"{TYPES}extensions.filters.http.rbac.v3.RBAC", "rules": rules},
    }


def _without(forged: tuple[str, ...]) -> dict[str, Any]:
    kind = f"{TYPES}extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    gone = [{"remove_on_match": {"key_matcher": {"prefix": begins}}} for begins in forged]
    return {"name": "forged", "typed_config": {"@type": kind, "mutations": gone}}


def _replies(body_bytes: int) -> dict[str, Any]:
    """Give Envoy's own answers the form of a server's: one sentence, and when to come again."""
    soon = "ask again in a second."
    said = {
        403: (401, "a bearer token is needed: authorization: Bearer TOKEN"),
        400: (400, "this is not a request that HTTP/1.1 allows, or its path has escaped slashes"),
        408: (408, f"the request did not come in whole within {REQUEST_S} s"),
        TWICE: (400, "x-user-id came more than once; name one user"),
        413: (413, f"the body is longer than {body_bytes} bytes"),
        426: (426, "HTTP/1.1 is needed"),
        431: (431, f"more than {MAX_HEADERS} headers, or more than {MAX_HEADERS_KB} KiB of them"),
        504: (503, f"the model did not answer in time; {soon}"),
    }
    mappers = [_reply("EQ", came, status, text) for came, (status, text) in said.items()]
    # Only a token that is missing or unknown is refused with 403 here.
    mappers[0]["headers_to_add"] = _header("www-authenticate", "Bearer")
    full = _reply("GE", 500, 503, f"too many requests are waiting; {soon}")
    both = [{"response_flag_filter": {"flags": ["UO"]}}, full["filter"]]
    mappers += [
        full | {"filter": {"and_filter": {"filters": both}}},
        _reply("GE", 500, 503, f"no server can answer now; {soon}"),
    ]
    return {"body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}, "mappers": mappers}


def _reply(op: str, came: int, status: int, text: str) -> dict[str, Any]:
    """Return how an answer of Envoy's, by its status, is told to a user."""
    value = {"default_value": came, "runtime_key": f"reply.{op}.{came}"}
    made: dict[str, Any] = {
        "filter": {"status_code_filter": {"comparison": {"op": op, "value": value}}},
        "status_code": status,
        "body": {"inline_string": text},
    }
    return made | ({"headers_to_add": _header("retry-after", "1")} if status == 503 else {})


def _header(key: str, value: str) -> list[dict[str, Any]]:
    return [{"header": {"key": key, "value": value}}]


def _access_log(path: Path) -> dict[str, Any]:
    """One line a request; no user's name, no token."""
    lines = {
        "at": "%START_TIME(%s.%3f)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "client": f"%DYNAMIC_METADATA({TOKENS}:enforced_effective_policy_id)%",
        "peer": "%DOWNSTREAM_PEER_SUBJECT%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ)%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
        "bucket": "%REQ(X-ROLLOUT-BUCKET)%",
        "arm": "%REQ(X-ROLLOUT-ARM)%",
        "slot": "%RESP(X-PENSTOCK-SLOT)%",
        "upstream": "%UPSTREAM_HOST%",
        "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "why": "%RESPONSE_CODE_DETAILS%",
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
