"""The kill switch over HTTP: a small process of its own, on loopback.

``python -m penstock.rollout.killserver --home DIR``. The supervisor starts it where a token was
made, and it outlives a supervisor that dies: it writes files, as :mod:`penstock.rollout.kill` does,
and asks nobody. ``POST /kill`` with ``authorization: Bearer TOKEN`` and ``{"reason": …, "to": …}``
throws the switch, ``to`` being optional; ``GET /kill`` tells whether it is thrown, and with a
token by whom and why. Nothing here clears it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from penstock.bundle import write_json
from penstock.rollout import kill
from penstock.rollout.access import LOOPBACK, AccessError
from penstock.rollout.killtokens import Caller, caller_of, port_of, tokens_of
from penstock.rollout.watching import this_process

NOTE = "killserver/process.json"
_LONGEST = 4096
_PATIENCE_S = 5.0
_LOOK_S = 1.0
_HEARD_S = 1.0
_DIGITS = 10

Answer = tuple[int, dict[str, Any]]


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
        """Tell the state; who and why only to whom a token was given."""
        self._try(self._told)

    def do_POST(self) -> None:
        """Throw the switch."""
        self._try(self._thrown)

    def _try(self, do: Callable[[], Answer]) -> None:
        try:
            answer = do() if self.path == "/kill" else (404, _UNKNOWN)
        except AccessError as e:
            answer = 503, {"error": str(e)}
        except ValueError as e:
            answer = 400, {"error": str(e)}
        except TimeoutError:
            answer = 408, {"error": f"the body did not come whole within {_PATIENCE_S:.0f} s"}
        except OSError as e:
            answer = 500, {"error": f"the files of the switch cannot be used: {e}"}
        self._answer(*answer)

    def _caller(self) -> Caller | None:
        return caller_of(self.home, self.headers.get("authorization"))

    def _told(self) -> Answer:
        said = state(self.home)
        shown = self.headers.get("authorization") is not None and self._caller() is not None
        return 200, said if shown else {"thrown": said["thrown"]}

    def _thrown(self) -> Answer:
        caller = self._caller()
        if caller is None:
            return 401, {"error": "a bearer token is needed: authorization: Bearer TOKEN"}
        reason, to = _asked(self.rfile.read(_length(self.headers.get("content-length"))))
        kill.throw_by_token(
            self.home, caller.name, reason=reason, to=to, now=datetime.now(UTC), maker=caller.maker
        )
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


def _length(said: str | None) -> int:
    """Return how long a body is.

    Raises:
        ValueError: It is not said, or the body is empty or too long.
    """
    if said is None or not (said.isascii() and said.isdecimal()):
        raise ValueError(f"content-length says {said!a}; say how many bytes the body has")
    if not 0 < len(said) < _DIGITS or not 0 < int(said) <= _LONGEST:
        raise ValueError(f"a body of 1 to {_LONGEST} bytes is needed, with a reason")
    return int(said)


def _asked(body: bytes) -> tuple[str, str | None]:
    """Return reason and slot of a body.

    Raises:
        ValueError: It is not one.
    """
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"the body is no JSON; it is {_WANTED}") from e
    try:
        reason, to = said["reason"], said.get("to")
    except (KeyError, TypeError, AttributeError):
        reason, to = None, None
    if not isinstance(reason, str) or not (to is None or isinstance(to, str)):
        raise ValueError(f"the body is {_WANTED}")
    return reason, to


def heard(port: int) -> bool:
    """Return whether the switch is heard over HTTP just now."""
    asked = http.client.HTTPConnection(LOOPBACK, port, timeout=_HEARD_S)
    try:
        asked.request("GET", "/kill")
        return "thrown" in json.loads(asked.getresponse().read(_LONGEST))
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return False
    finally:
        asked.close()


_WANTED = '{"reason": "why", "to": "a, b or rules"}, where "to" may be left out'
_UNKNOWN = {"error": "there is only /kill here"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def serve(home: Path) -> None:
    """Answer until the tokens are gone.

    Raises:
        OSError: The port is taken.
        AccessError: The tokens cannot be used.
    """
    port = port_of(home)
    if port is None:
        return
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
