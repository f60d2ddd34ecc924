"""The whole digits pipeline inside its images, each step in its own: the models are the laptop's.

Real images, real steps, a real server; what stands in is only the run time that starts containers
(pipelines/confined.py). ``make test-images`` runs these, which takes minutes and gigabytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest

from components import images
from components.images import layers
from penstock.cli.home import Home
from pipelines.confined import Confined, started
from pipelines.images import USER, container
from pipelines.steps import STEPS
from tests.images.test_layers import LOCKED, SPLIT, layers_of

MISSING = [p for p in ("buildah", "debootstrap", "unshare", "ip") if shutil.which(p) is None]
pytestmark = [
    pytest.mark.images,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a container's file system is mounted: be root"),
]

STAGES = (
    "features", "datachecks", "train", "export", "quantize", "engine", "equivalence", "gate",
    "register",
)  # fmt: skip
GRAPHS = (
    "export/onnx/model.onnx", "quantize/int8/model.simplified.onnx",
    "quantize/int8/model.int8.onnx", "quantize/int8/model.int8-cpu.onnx",
)  # fmt: skip
MADE_FROM = ("penstock.model", "penstock.snapshot")
"""Names in a graph of what it was made from; they hold the Python and all libraries there were."""

PROBE = """
import json, os, pathlib, shutil, socket
def refused(path):
    try:
        pathlib.Path(path, "new").write_text("x")
    except OSError as e:
        return e.strerror
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError as e:
    network = e.strerror
tools = "gcc cc ld as make apt apt-get dpkg pip uv perl bash su git".split()
places = "/ /app /venv /etc /usr /var/lib/penstock /tmp /dev/shm".split()
status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
print(json.dumps({
    "user": [os.getuid(), os.getgid(), os.getgroups()],
    "written": {p: refused(p) for p in places},
    "network": network,
    "tools": [t for t in tools if shutil.which(t)],
    "capabilities": {n: int(status[n], 16) for n in ("CapInh", "CapPrm", "CapEff", "CapAmb")},
    "privileges": int(status["NoNewPrivs"]),
    "processes": sum(n.isdigit() for n in os.listdir("/proc")),
}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder for images' records and runs, which goes with its hundred megabytes."""
    made = tmp_path_factory.mktemp("images")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def built(folder: Path) -> dict[str, Any]:
    """Build the images, with layers of an earlier build where nothing in them changed."""
    subprocess.run([images.ROOT / "scripts/images.sh", "--out", folder / "built"], check=True)
    return json.loads((folder / "built" / "images.json").read_text())["images"]


def events(command: list[str], environment: dict[str, str]) -> list[dict[str, Any]]:
    """Run a pipeline's process and return what it told."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def inside(folder: Path, built: dict[str, Any]) -> tuple[Path, list[dict[str, Any]]]:
    """Run the pipeline in its images; return where its artifacts are and what it told."""
    root = folder / "inside"
    command = ["pipelines.images", "digits", "--root", str(root), "--home", str(folder / "home")]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_IMAGE")}
    told = events([*command, "--images", str(folder / "built" / "images.json")], clean)
    assert told[-1]["ok"], [e for e in told if e.get("ok") is False]
    return next(root.glob("train-*")), told


@pytest.fixture(scope="module")
def outside(folder: Path) -> Path:
    """Run the same pipeline without images, with a home of its own; return where it left files."""
    home, root = Home(folder / "outside-home"), folder / "outside"
    home.path.mkdir()
    told = events(["pipelines.local", "digits", "--root", str(root)], home.environment(run_id="o"))
    assert told[-1]["ok"], [e for e in told if e.get("ok") is False]
    return next(root.glob("train-*"))


def test_every_step_ran_in_the_image_of_its_group(
    built: dict[str, Any], inside: tuple[Path, list[dict[str, Any]]]
):
    artifacts, told = inside
    finished = [e["task"] for e in told if e["event"] == "finished"]
    compiled = (artifacts.parent / "pipeline.yaml").read_text()

    assert tuple(finished) == STAGES
    for stage in STAGES:
        assert f"image: {built[STEPS[stage].group]['image']}" in compiled


def test_nothing_was_reused(inside: tuple[Path, list[dict[str, Any]]]):
    """Equal bytes prove nothing where one run copied the other's."""
    _, told = inside
    assert not any(e["said"]["reused"] for e in told if e["event"] == "finished")


@pytest.mark.parametrize(
    "kept", ["train/model/model.safetensors", "features/snapshot/train.parquet"]
)
def test_the_weights_are_those_of_the_laptop(
    kept: str, inside: tuple[Path, list[dict[str, Any]]], outside: Path
):
    assert (inside[0] / kept).read_bytes() == (outside / kept).read_bytes()


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_graphs_are_those_of_the_laptop(
    graph: str, inside: tuple[Path, list[dict[str, Any]]], outside: Path
):
    """Byte for byte, but for the names of what they were made from."""
    digests = set[str]()
    for artifacts in (inside[0], outside):
        model = onnx.load(artifacts / graph)
        kept = [p for p in model.metadata_props if p.key not in MADE_FROM]
        assert len(kept) < len(model.metadata_props)
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        digests.add(hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest())
    assert len(digests) == 1


def test_a_version_s_lineage_names_the_image_that_registered_it(
    built: dict[str, Any], inside: tuple[Path, list[dict[str, Any]]]
):
    said = json.loads((inside[0] / "register/package/lineage.json").read_text())
    assert said["image"] == built["control"]["image"]


def run(image: str, *command: str, network: bool = False) -> str:
    """Run a command in an image, confined, and return what it printed."""
    with container(image) as (root, environment):
        confined = Confined(
            root=root,
            command=command,
            environment=environment,
            user=USER,
            folders={},
            network=network,
        )
        process = started(confined, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()
        return out.decode()


@pytest.mark.parametrize("group", images.GROUPS)
def test_a_container_may_do_next_to_nothing(group: str, built: dict[str, Any]):
    said = json.loads(run(built[group]["image"], "python3", "-c", PROBE))

    assert said["user"] == [USER, USER, []]
    may_write = {path for path, refused in said["written"].items() if refused is None}
    assert may_write == {"/tmp", "/dev/shm"}
    assert set(said["written"].values()) == {None, "Read-only file system"}
    assert said["network"] == "Network is unreachable"
    assert said["tools"] == []
    assert set(said["capabilities"].values()) == {0}
    assert said["privileges"] == 1
    assert said["processes"] == 1


@pytest.mark.parametrize("group", images.GROUPS)
def test_an_image_holds_nobody_else_s_right_to_anything(group: str, built: dict[str, Any]):
    """No file that runs as another user, none that its user may change but its own folder."""
    with container(built[group]["image"]) as (root, _):
        for path in Path(root).rglob("*"):
            found = path.lstat()
            name = "/" + path.relative_to(root).as_posix()
            assert not (path.is_file() and found.st_mode & 0o6000), name
            if found.st_uid == USER or (found.st_mode & 0o002 and not path.is_symlink()):
                assert name in {"/tmp", "/var/tmp", "/run/lock", "/var/lib/penstock"}, name


@pytest.mark.parametrize("group", images.GROUPS)
def test_where_packages_came_from_is_not_in_an_image(group: str, built: dict[str, Any]):
    """An address may hold a password; history, configuration and files are free of it."""
    with container(built[group]["image"]) as (root, environment):
        inspected = subprocess.run(
            ["buildah", "inspect", "--type", "image", built[group]["image"]],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert not [name for name in environment if name.startswith(("UV_", "PIP_", "SSL_"))]
        assert "index-url" not in inspected
        for gone in ("run/uv", "run/cache", "run/uv.toml", "run/certificates", "root/.config"):
            assert not (Path(root) / gone).exists()


@pytest.mark.parametrize("group", images.GROUPS)
def test_a_bill_of_materials_lists_the_lock(group: str, folder: Path, built: dict[str, Any]):
    said = json.loads((folder / "built" / f"{group}.cdx.json").read_text())
    listed = {c["name"]: c for c in said["components"] if c["purl"].startswith("pkg:pypi/")}
    wanted = {name for layer in layers_of(group) for name in SPLIT[layer]}
    assert set(listed) == {name.replace(".", "-").replace("_", "-") for name in wanted}
    for name in set(LOCKED[group]) - layers.LEFT_OUT:
        assert LOCKED[group][name].startswith(f"{name}=={listed[name]['version']}")
    assert any(c["purl"].startswith("pkg:deb/debian/libc6@") for c in said["components"])


def test_the_same_inputs_give_the_same_digest(folder: Path, built: dict[str, Any]):
    again = folder / "again"
    command = [images.ROOT / "scripts/images.sh", "--fresh", "--out", again, "data", "serve"]
    subprocess.run(command, check=True)
    made = json.loads((again / "images.json").read_text())["images"]
    for group in ("data", "serve"):
        assert made[group]["layers"] == built[group]["layers"]
        # Of a manifest's digest there are two where layers came back from a registry, compressed.
        assert made[group]["id"] == built[group]["id"]


@pytest.mark.parametrize("target", images.GROUPS)
def test_who_submits_from_a_cluster_names_the_images_as_we_do(target: str, built: dict[str, Any]):
    code = (
        f"from components import images; import pipelines.submit; print(images.local({target!r}))"
    )
    said = run(built["control"]["image"], "python3", "-c", code)
    assert built[target]["tag"] == f"localhost/{said.strip()}"


def test_the_control_image_carries_the_command_line(built: dict[str, Any]):
    said = run(built["control"]["image"], "penstock", "--help")
    assert "release" in said


def test_the_serving_image_serves_the_package_that_the_pipeline_registered(
    built: dict[str, Any], inside: tuple[Path, list[dict[str, Any]]], tmp_path: Path
):
    package, log = inside[0] / "register" / "package", tmp_path / "log"
    log.mkdir()
    os.chown(log, USER, USER)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    asked = ["--model-name=digits", "--version=1", "--slot=a", "--bundle=/mnt/models"]
    with container(built["serve"]["image"]) as (root, environment):
        confined = Confined(
            root=root,
            command=["python", "-m", "serving.predictor", *asked, f"--port={port}", f"--log={log}"],
            environment=environment,
            user=USER,
            folders={str(package): "/mnt/models", str(log): str(log)},
            network=True,
        )
        process = started(confined, stderr=subprocess.PIPE)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                _wait_until_ready(client, process)
                golden = json.loads((package / "golden.json").read_text())["requests"]
                sent = {"instances": [request["instance"] for request in golden]}
                answered = client.post("/v1/models/digits:predict", json=sent)
        finally:
            # unshare keeps gentler signals to itself; what it began ends with it.
            process.kill()
            process.communicate(timeout=30)
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pytest.fail("the server outlived who started it")
    answered.raise_for_status()
    best = [max(range(10), key=request["logits"].__getitem__) for request in golden]
    assert [row["label"] for row in answered.json()["predictions"]] == best


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        try:
            if client.get("/v2/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail("the server was not ready within two minutes")
