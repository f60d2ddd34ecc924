"""Every kind of store there is, each with an empty place to publish to."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer
from pyarrow import fs

from penstock.storage.store import Store
from tests.storage.servers import SECRET, WRITER, emulator, swift

_numbers = itertools.count(1)

MOTO_KEY, MOTO_SECRET = "planted-moto-key", "planted-moto-secret"


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Address of moto's S3 on loopback, which checks no signature."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def swift_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of OpenStack Swift's S3 on loopback, which checks every signature."""
    with swift(tmp_path_factory.mktemp("swift")) as url:
        yield url


@pytest.fixture(scope="session")
def gcs_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an emulator of Google's store on loopback."""
    with emulator(tmp_path_factory.mktemp("gcs")) as url:
        yield url


def s3_named(patch: pytest.MonkeyPatch, url: str, key: str, secret: str) -> None:
    """Let the environment name an S3 and who asks it."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        patch.delenv(name)
    patch.setenv("AWS_ENDPOINT_URL", url)
    patch.setenv("AWS_ACCESS_KEY_ID", key)
    patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    patch.setenv("AWS_REGION", "us-east-1")


def bucket(url: str) -> str:
    """Make the tests' bucket in the S3 that the environment names."""
    host = url.removeprefix("http://")
    client = fs.S3FileSystem(endpoint_override=host, scheme="http", allow_bucket_creation=True)
    client.create_dir("packages")
    return "packages"


@pytest.fixture
def moto(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty place in moto's S3, which the environment names."""
    s3_named(monkeypatch, moto_url, MOTO_KEY, MOTO_SECRET)
    return f"s3://{bucket(moto_url)}/{next(_numbers)}"


@pytest.fixture
def in_swift(swift_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty place in Swift's S3, which the environment names."""
    s3_named(monkeypatch, swift_url, WRITER, SECRET)
    return f"s3://{bucket(swift_url)}/{next(_numbers)}"


@pytest.fixture
def gcs(gcs_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty place in the emulator of Google's store."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_url)
    return f"gs://packages/{next(_numbers)}"


@pytest.fixture(params=["folder", "memory", "moto", "swift", "gcs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty place in a store of each kind."""
    if request.param == "folder":
        return Store.at(tmp_path / "published")
    if request.param == "memory":
        return Store(fs=MemoryFileSystem(), root=f"/packages/{next(_numbers)}")
    fixture = {"swift": "in_swift"}.get(request.param, request.param)
    return Store.at(request.getfixturevalue(fixture))
