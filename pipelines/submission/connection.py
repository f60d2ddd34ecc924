"""How a server is reached: its address, its certificate, the token on each request."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import kfp_server_api as api
import urllib3

from pipelines.submission.ended import Ended, Outcome
from pipelines.submission.tokens import Tokens


def checked(host: str, *, token: bool, insecure: bool) -> str:
    """Return a server's address without what is not part of it.

    Raises:
        Ended: It is no address of a server, holds a password, or would show a token to everybody
            on the way.
    """
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        reason = f"host {parts.hostname or host!r} came, http://… or https://… was wanted."
        raise Ended(Outcome.WRONG_CALL, reason)
    if parts.username or parts.password or parts.query or parts.fragment:
        reason = "the host holds a user, a query or a fragment; give the address alone."
        raise Ended(Outcome.WRONG_CALL, reason)
    if token and parts.scheme == "http" and not insecure and not _inside(parts.hostname):
        raise Ended(
            Outcome.WRONG_CALL,
            f"a token would go to {parts.hostname} unencrypted; use https://, inside a cluster "
            "the service's full name (ml-pipeline.kubeflow.svc), or say --insecure.",
        )
    return host.rstrip("/")


def page(ui: str) -> None:
    """Refuse an address of pages that would put a password into logs.

    Raises:
        Ended: It does, or is no address.
    """
    parts = urlsplit(ui)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        reason = (
            "the pages' address came with a user, or is none; http://… or https://… was wanted."
        )
        raise Ended(Outcome.WRONG_CALL, reason)


def _inside(name: str) -> bool:
    """Return whether a name is this machine's, or a service's inside its cluster."""
    return name in ("localhost", "127.0.0.1", "::1") or name.endswith((".svc", ".cluster.local"))


def configuration(
    host: str, tokens: Tokens, ca_cert: Path | None, *, insecure: bool
) -> api.Configuration:
    """Return how the generated client reaches a server."""
    made = api.Configuration(host=host)
    # urllib3 would repeat requests on its own, and follow a login page's lead with our token.
    made.retries = urllib3.Retry(total=0, raise_on_redirect=False)
    made.verify_ssl = not insecure
    made.ssl_ca_cert = None if ca_cert is None else str(ca_cert)
    name, scheme = urlsplit(host).hostname or "", urlsplit(host).scheme
    if not proxy_bypass(name):
        made.proxy = getproxies().get(scheme)
    if tokens.now():
        made.api_key, made.api_key_prefix = {"authorization": ""}, {"authorization": "Bearer"}
        made.refresh_api_key_hook = lambda c: c.api_key.update(authorization=tokens.now())
    return made
