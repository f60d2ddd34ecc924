"""The kill switch over HTTP: a small process of its own, on loopback.

``python -m penstock.rollout.killserver --home DIR``. The supervisor starts it where a token was
made, and it outlives a supervisor that dies: it writes files, as :mod:`penstock.rollout.kill` does,
and asks nobody. ``POST /kill`` with ``authorization: Bearer TOKEN`` and ``{"reason": …, "to": …}``
throws the switch, ``to`` being optional; ``GET /kill`` tells whether it is thrown. Nothing here
clears it.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import secrets
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from penstock.bundle import write_json
from penstock.rollout import kill
from penstock.rollout.access import LOOPBACK, AccessError, private, write_private
from penstock.rollout.watching import this_process

TOKENS = "kill-tokens.json"
NOTE = "killserver/process.json"
_LONGEST = 4096
_PATIENCE_S = 5.0
_LOOK_S = 1.0


def tokens_of(home: Path) -> Path:
    """Return the file with the hash of each caller's token, and the port."""
    return home / "serving" / TOKENS


def new_token(home: Path, name: str) -> tuple[str, int]:
    """Return a new token of a caller and the port where it is taken; its hash alone is kept."""
    path = tokens_of(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    new: dict[str, Any] = {"port": _free_port(), "tokens": {}}
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else new
    token, port = secrets.token_hex(32), int(held["port"])
    held["tokens"][name] = hashlib.sha256(token.encode()).hexdigest()
    write_private(path, held)
    return token, port


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.bind((LOOPBACK, 0))
        return trial.getsockname()[1]


def caller_of(home: Path, authorization: str | None) -> str | None:
    """Return whose token was shown, None where it is nobody's.

    Raises:
        AccessError: Others than the owner can read the hashes, so they prove nothing.
    """
    path = tokens_of(home)
    private(path)
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["tokens"]
    scheme, _, token = (authorization or "").partition(" ")
    shown = hashlib.sha256(token.strip().encode("latin-1")).hexdigest()
    found = [name for name, held in known.items() if hmac.compare_digest(shown, held)]
    return found[0] if found and scheme.lower() == "bearer" else None


def state(home: Path) -> dict[str, Any]:
    """Return whether the switch is thrown, and what is known of it."""
    request = kill.killed(home)
    if request is None:
        return {"thrown": False}
    said = {"to": request.to, "by": request.by, "reason": request.reason, "at": request.at}
    return {"thrown": True, **said}


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    home: Path
    timeout = _PATIENCE_S

    def do_GET(self) -> None:
        """Tell the state."""
        self._answer(*((200, state(self.home)) if self.path == "/kill" else (404, _UNKNOWN)))

    def do_POST(self) -> None:
        """Throw the switch."""
        if self.path != "/kill":
            self._answer(404, _UNKNOWN)
            return
        try:
            self._answer(*self._thrown())
        except AccessError as e:
            self._answer(503, {"error": str(e)})
        except (ValueError, TypeError) as e:
            self._answer(400, {"error": str(e)})
        except OSError as e:
            self._answer(500, {"error": f"the files of the switch cannot be written: {e}"})

    def _thrown(self) -> tuple[int, dict[str, Any]]:
        name = caller_of(self.home, self.headers.get("authorization"))
        if name is None:
            return 401, {"error": "a bearer token is needed: authorization: Bearer TOKEN"}
        length = int(self.headers.get("content-length") or 0)
        if not 0 < length <= _LONGEST:
            return 400, {"error": f"a body of 1 to {_LONGEST} bytes is needed, with a reason"}
        reason, to = _asked(self.rfile.read(length))
        kill.throw_by_token(self.home, name, reason=reason, to=to, now=datetime.now(UTC))
        return 200, state(self.home)

    def _answer(self, status: int, said: dict[str, Any]) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Note each request without what it held."""
        print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {format % args}", file=sys.stderr)


def _asked(body: bytes) -> tuple[str, str | None]:
    """Return reason and slot of a body.

    Raises:
        ValueError: It is not one.
    """
    said: Any = json.loads(body)
    try:
        reason, to = said["reason"], said.get("to")
    except (KeyError, TypeError, AttributeError):
        reason, to = None, None
    if not isinstance(reason, str) or not (to is None or isinstance(to, str)):
        raise ValueError('the body is {"reason": "why", "to": "a, b or rules"}')
    return reason, to


_UNKNOWN = {"error": "there is only /kill here"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def serve(home: Path) -> None:
    """Answer until the tokens are gone.

    Raises:
        OSError: The port is taken.
    """
    port = json.loads(tokens_of(home).read_text(encoding="utf-8"))["port"]
    handler = type("OfHome", (Handler,), {"home": home})
    server = _Server((LOOPBACK, port), handler)
    threading.Thread(target=_leave_with_tokens, args=(server, tokens_of(home)), daemon=True).start()
    server.serve_forever()
    server.server_close()


def _leave_with_tokens(server: ThreadingHTTPServer, tokens: Path) -> None:
    while tokens.exists():
        time.sleep(_LOOK_S)
    server.shutdown()


def main(argv: list[str] | None = None) -> int:
    """Serve a home; 1 when it cannot, with the reason on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    home: Path = parser.parse_args(argv).home
    os.umask(0o077)
    note = home / "serving" / NOTE
    note.parent.mkdir(parents=True, exist_ok=True)
    write_json(note, this_process())
    try:
        serve(home)
    except (OSError, ValueError, KeyError) as e:
        print(f"the kill switch is not heard over HTTP: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
