"""Real stores on loopback: OpenStack Swift, which speaks S3, and an emulator of Google's store.

Both come from pip; where one is not installed, what needs it is skipped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.packages import free_port, listens, wait_for

WRITER, SECRET = "store:writer", "planted-swift-secret"
READER, READERS_SECRET = "store:reader", "planted-readers-secret"
"""Users of Swift: the reader may do nothing until it is told so."""

KINDS = ("account", "container", "object")

RINGS = """
import sys
from swift.common.ring import RingBuilder
for kind, port in zip(sys.argv[2::2], sys.argv[3::2]):
    ring = RingBuilder(4, 1, 0)
    place = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "disk"}
    ring.add_dev(place | {"weight": 1, "id": 0, "replication_ip": "127.0.0.1",
                          "replication_port": int(port), "meta": ""})
    ring.rebalance()
    ring.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""
"""Where Swift keeps what: on the one disk that there is."""

DEFAULTS = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}
devices = {folder}/node
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
workers = 0
user = {user}
log_level = ERROR
"""
SERVER = "[pipeline:main]\npipeline = {kind}-server\n[app:{kind}-server]\nuse = egg:swift#{kind}\n"
FILTERS = ("catch_errors", "gatekeeper", "listing_formats", "bulk", "slo", "dlo")
PROXY = f"""[pipeline:main]
pipeline = catch_errors gatekeeper listing_formats bulk s3api tempauth slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_{WRITER.replace(":", "_")} = {SECRET} .admin
user_{READER.replace(":", "_")} = {READERS_SECRET}
""" + "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in FILTERS)

EMULATOR = """
import sys
from http.server import ThreadingHTTPServer
from gcp_storage_emulator import server
# With one thread for all, two downloads at a time would wait for each other.
server.server.HTTPServer = ThreadingHTTPServer
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="packages").run()
"""


@contextmanager
def swift(folder: Path) -> Iterator[str]:
    """Run a whole Swift on loopback; yield the address of its S3 side."""
    pytest.importorskip("swift", reason="needs OpenStack Swift: pip install swift")
    programs = Path(sys.executable).parent
    ports = {kind: free_port() for kind in (*KINDS, "proxy")}
    (folder / "node" / "disk").mkdir(parents=True)
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = s\nswift_hash_path_prefix = p\n"
        "[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    named = [str(word) for kind in KINDS for word in (kind, ports[kind])]
    subprocess.run([sys.executable, "-c", RINGS, folder, *named], check=True, timeout=60)
    commands = list[list[str]]()
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    for kind, port in ports.items():
        settings = DEFAULTS.format(port=port, folder=folder, user=user)
        settings += PROXY if kind == "proxy" else SERVER.format(kind=kind)
        (folder / f"{kind}.conf").write_text(settings)
        commands.append([str(programs / f"swift-{kind}-server"), str(folder / f"{kind}.conf")])
    with _running(commands, folder, list(ports.values())):
        yield f"http://127.0.0.1:{ports['proxy']}"


@contextmanager
def emulator(folder: Path) -> Iterator[str]:
    """Run the emulator of Google's store on loopback, with a bucket ``packages``."""
    name, port = "gcp_storage_emulator", free_port()
    pytest.importorskip(name, reason="needs gcp-storage-emulator: pip install it")
    with _running([[sys.executable, "-c", EMULATOR, str(port)]], folder, [port]):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _running(commands: list[list[str]], folder: Path, ports: list[int]) -> Iterator[None]:
    """Run servers until this ends, each in a group of its own with what it starts."""
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        begun = [
            subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            for command in commands
        ]
    try:
        wait_for(lambda: all(map(listens, ports)) or any(p.poll() is not None for p in begun), 60)
        dead = [p.args for p in begun if p.poll() is not None]
        assert not dead, (folder / "log").read_text(encoding="utf-8")[-2000:]
        yield
    finally:
        for process in begun:
            os.killpg(process.pid, signal.SIGTERM)
        for process in begun:
            process.wait(20)
