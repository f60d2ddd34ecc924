"""How an API server is reached: who says where it is and proves who we are. Nothing else.

The one module that imports the Kubernetes client, and only its configuration: kubeconfig files with
their many ways to log in, and a pod's own token, which is read anew when it changes. Requests are
ours: the client's own calls drop a timeout that is no whole number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import load_incluster_config, load_kube_config
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as LateError

from penstock.rollout.ports import TableError

CONNECT_S = 3.0
CHUNK = 4096


class Session:
    """Requests to one API server."""

    def __init__(self, configuration: Any) -> None:
        """Take the client's configuration, as :meth:`in_cluster` and :meth:`kubeconfig` do."""
        # Repeating is the caller's decision: it reads again before it writes again.
        configuration.retries = False
        self._client = ApiClient(configuration)
        self._host = str(configuration.host).rstrip("/")

    @classmethod
    def in_cluster(cls) -> Session:
        """Return the session of a pod, by its service account.

        Raises:
            TableError: This is no pod, or it has no token.
        """
        configuration = Configuration()
        try:
            load_incluster_config(configuration)
        except ConfigException as e:
            raise TableError(f"no API server: {e} Outside a pod, name a kubeconfig.") from e
        return cls(configuration)

    @classmethod
    def kubeconfig(cls, path: str | None = None, *, context: str | None = None) -> Session:
        """Return the session of a kubeconfig; None is the usual file and its current context.

        Raises:
            TableError: It is not there, or does not say how to log in.
        """
        configuration = Configuration()
        try:
            load_kube_config(path, context=context, client_configuration=configuration)
        except (ConfigException, OSError) as e:
            raise TableError(f"no API server: {e}; see kubectl config view.") from e
        return cls(configuration)

    @classmethod
    def at(cls, url: str, *, token: str) -> Session:
        """Return a session with a bearer token, as behind ``kubectl proxy``."""
        configuration = Configuration(host=url)
        configuration.api_key = {"authorization": f"Bearer {token}"}
        return cls(configuration)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Any = None,
        kind: str = "application/json",
        timeout_s: float = 10.0,
    ) -> tuple[int, bytes]:
        """Send one request; return status and body, whatever the status is.

        Args:
            kind: Media type of the body.

        Raises:
            TimeoutError, ConnectionError: No answer in time, or none at all.
        """
        with self._answer(method, path, query, body, kind, timeout_s) as answer:
            return answer.status, answer.data

    def lines(
        self, path: str, *, query: Mapping[str, str], timeout_s: float
    ) -> Iterator[tuple[int, bytes]]:
        """Follow an answer; yield its status with each of its lines, until it ends.

        Args:
            timeout_s: Longest silence.

        Raises:
            TimeoutError, ConnectionError: It is silent for longer, or breaks off.
        """
        with self._answer("GET", path, query, None, "application/json", timeout_s) as answer:
            held = b""
            for chunk in answer.stream(CHUNK):
                *whole, held = (held + chunk).split(b"\n")
                for line in whole:
                    yield answer.status, line
            if held:
                yield answer.status, held

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any,
        kind: str,
        timeout_s: float,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        headers = {"accept": "application/json", "content-type": kind}
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        url = f"{self._host}{path}?{urlencode(query)}"
        try:
            answer: urllib3.BaseHTTPResponse = self._client.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=timeout_s),
                preload_content=False,
            )
            try:
                yield answer
            finally:
                answer.close()
        except HTTPError as e:
            if isinstance(e, LateError) and not isinstance(e, NewConnectionError):
                raise TimeoutError(f"{self._host} did not answer within {timeout_s:g} s") from e
            raise ConnectionError(f"{self._host} is not reached: {e}") from e
