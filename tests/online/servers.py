"""Servers that tests of online features start and stop."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from tests.packages import free_port, wait_for

NO_REDIS = "needs a Redis server; install one (on Debian: apt-get install redis-server)"


class Redis:
    """A Redis server of the test's own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def freeze(self) -> None:
        """Let it hold its connections and answer nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it answer again."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; what it holds is lost."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def redis_server(port: int | None = None) -> Iterator[Redis]:
    """Run a Redis server on loopback, at a port or at one that is free."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip(NO_REDIS)
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="penstock-redis-") as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        process = subprocess.Popen(
            [*command, "--appendonly", "no", "--dir", folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            client = redis.Redis(port=port)

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except redis.ConnectionError:
                    return False

            wait_for(answers, 10)
            client.close()
            yield Redis(process, port)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(10)
