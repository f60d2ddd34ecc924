"""A Kubeflow server: asked again where that can help, and each answer in our own words.

The generated client is used rather than ``kfp.Client``. Its constructor asks for the server's
health five times, 5 s apart, printing a traceback each, and calls a refused token a timeout; it
reads ``~/.config/kfp/context.json`` and lets ``KF_PIPELINES_UI_ENDPOINT`` win over what was typed;
its ``wait_for_run_completion`` knows no CANCELED, raises at no FAILED and dies of one 5xx.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import kfp_server_api as api
import urllib3

from pipelines.submission import connection
from pipelines.submission.ended import Conflict, Ended, Outcome, Trouble
from pipelines.submission.tokens import Tokens

T = TypeVar("T")
Tell = Callable[[Mapping[str, Any]], None]

CONNECT_S, ANSWER_S = 10.0, 60.0
LONGEST_PAUSE_S = 30.0
PAGE = 100
_LATER = (408, 425, 429)
_KEPT = 300
"""Characters of a server's answer that are shown."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often and how long after each other a server is asked."""

    attempts: int = 5
    pause_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep

    def pauses(self) -> Iterator[float | None]:
        """Yield what to wait after each failed attempt; None after the last."""
        for attempt in range(self.attempts - 1):
            yield min(self.pause_s * 2**attempt, LONGEST_PAUSE_S)
        yield None


class Refused(Exception):
    """The server understood and said no."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the status and what the server said."""
        super().__init__(message)
        self.status, self.message = status, message


class _NotJson(Exception):
    """Something before the server answered in its place."""


class _Client(api.ApiClient):
    """The generated client; an answer that is no JSON object never becomes an empty one."""

    def request(self, *given: Any, **options: Any) -> Any:
        response = super().request(*given, **options)
        if options.get("_preload_content", True):
            kind = response.getheader("content-type") or ""
            if "json" not in kind or not response.data.lstrip().startswith(b"{"):
                raise _NotJson(kind)
        return response


class Service:
    """One server. What it answers comes back as a value, or as one of our errors."""

    def __init__(
        self,
        host: str,
        tokens: Tokens,
        *,
        tell: Tell,
        ca_cert: Path | None = None,
        insecure: bool = False,
        patience: Patience | None = None,
    ) -> None:
        """Connect to nobody yet.

        Raises:
            Ended: The address is none that may be asked in this way.
        """
        self.host = connection.checked(host, token=bool(tokens.now()), insecure=insecure)
        self.patience, self._tell = patience or Patience(), tell
        made = connection.configuration(self.host, tokens, ca_cert, insecure=insecure)
        client = _Client(made)
        self.client = client
        self.experiments = api.ExperimentServiceApi(client)
        self.health = api.HealthzServiceApi(client)
        self.pipelines = api.PipelineServiceApi(client)
        self.schedules = api.RecurringRunServiceApi(client)
        self.runs = api.RunServiceApi(client)
        self.uploads = api.PipelineUploadServiceApi(client)

    def ask(self, what: str, call: Callable[..., T], *given: Any, **options: Any) -> T:
        """Return the answer to a question that may be asked twice.

        Args:
            what: For people: ``list the runs``.

        Raises:
            Ended: Not allowed, refused, or unreachable however often it was asked.
        """
        for pause in self.patience.pauses():
            try:
                return self.once(call, *given, **options)
            except Trouble as e:
                self.troubled(what, e, pause)
            except Refused as e:
                raise self.ended(what, e) from e
            except Conflict as e:
                raise Ended(Outcome.REFUSED, f"{self.host} would not {what}: {e}") from e
        raise AssertionError

    def every(self, what: str, call: Callable[..., Any], field: str, **options: Any) -> list[Any]:
        """Return all of a list, page by page."""
        found: list[Any] = []
        token = ""
        while True:
            asked = {**options, "page_size": PAGE, "page_token": token}
            page = self.ask(what, call, **asked)
            found += getattr(page, field) or []
            if not (token := page.next_page_token or ""):
                return found

    def settled(
        self,
        what: str,
        look: Callable[[], T | None],
        make: Callable[..., T],
        *given: Any,
        **options: Any,
    ) -> tuple[T, bool]:
        """Return what there is, or make it; and whether it was made.

        It is looked for before each time it is asked for: the answer to the last asking may have
        been lost on its way, and somebody else may have been faster.

        Args:
            what: For people: ``make the run``.
            look: Finds it on the server.
            make: Is called with the rest.

        Raises:
            Ended: It could be neither found nor made.
        """
        for pause in self.patience.pauses():
            if (found := look()) is not None:
                return found, False
            try:
                return self.once(make, *given, **options), True
            except Refused as e:
                raise self.ended(what, e) from e
            except (Conflict, Trouble) as e:
                if pause is None and (found := look()) is not None:
                    return found, False
                self.troubled(what, e, pause)
        raise AssertionError

    def once(self, call: Callable[..., T], *given: Any, **options: Any) -> T:
        """Return the answer to one question.

        Raises:
            Trouble: No answer, or one that says that it cannot now.
            Refused: The server said no.
            Conflict: The server has such a thing already.
            Ended: Not allowed.
        """
        # A float is silently no timeout to the generated client; a pair is one.
        options.setdefault("_request_timeout", (CONNECT_S, ANSWER_S))
        try:
            return call(*given, **options)
        except api.ApiException as e:
            raise self._answered(e) from e
        except _NotJson as e:
            raise self._login(f"with {str(e) or 'no type'}, and no object of JSON") from e
        except urllib3.exceptions.HTTPError as e:
            raise self._unheard(e) from e
        except UnicodeDecodeError as e:
            raise Trouble("it answered with bytes that are no text") from e
        except (TypeError, ValueError, AttributeError) as e:
            said = f"{self.host} answers what its API does not say: {type(e).__name__}: {e}"
            raise Ended(Outcome.REFUSED, said[:_KEPT]) from e

    def troubled(self, what: str, trouble: Exception, pause: float | None) -> None:
        """Say that something went wrong, and wait.

        Raises:
            Ended: It was the last attempt.
        """
        if pause is None:
            if isinstance(trouble, Conflict):
                reason = f"{self.host} says that it is there and does not show it: {trouble}"
                raise Ended(Outcome.REFUSED, reason) from trouble
            reason = (
                f"{self.host} did not {what} in {self.patience.attempts} attempts: {trouble}; "
                "look at its address, at the network, and whether it runs."
            )
            raise Ended(Outcome.UNREACHABLE, reason) from trouble
        self._tell({"event": "trouble", "what": what, "text": str(trouble), "again_s": pause})
        self.patience.sleep(pause)

    def ended(self, what: str, refused: Refused) -> Ended:
        """Return the end that a refusal is."""
        said = f"{self.host} would not {what} ({refused.status}): {refused.message}"
        return Ended(Outcome.REFUSED, said)

    def _answered(self, e: api.ApiException) -> Exception:
        status, said = int(e.status or 0), _message(e)
        if status in (401, 403) or (status == 400 and _unauthorized(said)):
            reason = f"{self.host} does not allow it ({status}): {said}; look at the token."
            return Ended(Outcome.NOT_ALLOWED, reason)
        if 300 <= status < 400:
            return self._login(f"by leading to {_led(e)}")
        if status == 409:
            return Conflict(said)
        if status >= 500 or status in _LATER:
            return Trouble(f"it answered {status}: {said}")
        return Refused(status, said)

    def _login(self, how: str) -> Ended:
        return Ended(
            Outcome.NOT_ALLOWED,
            f"{self.host} answers {how}: a login page stands before it, or it is no Kubeflow; "
            "give a token (--token-file), or the address of its API.",
        )

    def _unheard(self, e: Exception) -> Exception:
        reason = getattr(e, "reason", None) or e
        said = f"{type(reason).__name__}: {' '.join(str(reason).split())}"[:_KEPT]
        if isinstance(reason, urllib3.exceptions.SSLError):
            # Asking again gives the same certificate.
            wanted = "name its authority with --ca-cert, or ask at an address it is made for."
            return Ended(Outcome.UNREACHABLE, f"{self.host}: {said}; {wanted}")
        return Trouble(said)


def _message(e: api.ApiException) -> str:
    """Return what the server said of its error, in one line."""
    body = e.body if isinstance(e.body, str) else ""
    try:
        document = json.loads(body)
        if isinstance(document, dict):
            body = str(document.get("message") or document.get("error_message") or body)
    except ValueError:
        # Whatever stands before the server answers in HTML.
        body = "" if body.lstrip().startswith("<") else body
    return " ".join((body or str(e.reason)).split())[:_KEPT]


def _unauthorized(said: str) -> bool:
    # Uploads answer a missing permission with 400.
    return any(word in said.lower() for word in ("authoriz", "authentic", "permission"))


def _led(e: api.ApiException) -> str:
    where = urlsplit((e.headers or {}).get("Location", ""))
    return f"{where.scheme}://{where.netloc}" if where.netloc else "another page"
