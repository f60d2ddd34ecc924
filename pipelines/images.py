"""Run a compiled pipeline on this machine with every step in its own image, as a cluster would.

``python -m pipelines.images WORKLOAD --root FOLDER`` after ``make images``; needs root and buildah.
kfp.local's DockerRunner carries the steps, and buildah stands in for the Docker engine: each step
gets a fresh container, confined as a pod's (see :mod:`pipelines.confined`). Events are those of
:mod:`pipelines.local`, one JSON document a line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
from kfp.local import DockerRunner, docker_task_handler

from penstock.cli.home import Home
from pipelines.compiling import compile_to
from pipelines.confined import Confined, started
from pipelines.local import Event, execute, require_kfp

USER = 65532
OURS = ("FEAST_", "MLFLOW_", "PENSTOCK_", "PYTHONHASHSEED")
"""How the variables begin that a step reads; the rest of this machine's environment is not its."""


@contextmanager
def container(image: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the root folder of a new container and its environment; remove it afterwards.

    Raises:
        RuntimeError: There is no such image here, or buildah refused.
    """
    name = _buildah("from", "--pull-never", image)
    try:
        said = json.loads(_buildah("inspect", "--type", "container", name))
        declared = said["OCIv1"]["config"].get("Env", [])
        yield _buildah("mount", name), dict(line.split("=", 1) for line in declared)
    finally:
        _buildah("rm", name)


def _buildah(*words: str) -> str:
    done = subprocess.run(["buildah", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"buildah {words[0]} {words[-1]}: {done.stderr.strip()}")
    return done.stdout.strip()


def run_container(
    _client: object,
    image: str,
    command: Sequence[str],
    volumes: Mapping[str, Mapping[str, str]],
    **given: Any,
) -> int:
    """Run a step as kfp asks the Docker engine to: print what it says, return how it ended."""
    with container(image) as (root, declared):
        environment = {**declared, **(given.get("environment") or {}), "PENSTOCK_IMAGE": image}
        confined = Confined(
            root=root,
            command=command,
            environment=environment,
            user=USER,
            folders={here: there["bind"] for here, there in volumes.items()},
        )
        with started(confined, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    print(line.decode(errors="replace"), end="")
                return process.wait()
            finally:
                process.kill()


def runner(environment: Mapping[str, str], folders: Sequence[Path]) -> Any:
    """Return kfp's Docker runner, on buildah.

    Args:
        environment: What every step reads besides what its image declares.
        folders: What every step may write to besides its artifacts; each is at the same path there.
    """
    shared = {str(f): {"bind": str(f), "mode": "rw"} for f in folders}

    def run(client: object, image: str, command: Sequence[str], volumes: Any, **given: Any) -> int:
        told = {**environment, **(given.get("environment") or {})}
        return run_container(client, image, command, {**volumes, **shared}, environment=told)

    engine = SimpleNamespace(info=dict, close=lambda: None)
    docker.from_env = lambda *_, **__: engine
    docker_task_handler.run_docker_container = run
    return DockerRunner()


def given_to_steps(home: Home, run_id: str) -> dict[str, str]:
    """Return what a step's environment holds of this machine's, and give its user the home."""
    told = home.environment(run_id=run_id)
    for path in (home.path, *home.path.rglob("*")):
        os.chown(path, USER, USER)
    return {name: value for name, value in told.items() if name.startswith(OURS)}


def name_images(listed: Path) -> None:
    """Name the images that ``make images`` wrote down, for the compiler; a name of yours wins.

    Raises:
        SystemExit: Nobody has built images here.
    """
    if not listed.exists():
        raise SystemExit(f"there is no {listed}; build the images first: make images")
    for target, made in json.loads(listed.read_text(encoding="utf-8"))["images"].items():
        os.environ.setdefault(f"PENSTOCK_IMAGE_{target.upper().replace('-', '_')}", made["image"])


def run(workload: str, arguments: Mapping[str, Any], *, root: Path, home: Home, emit: Any) -> bool:
    """Compile a workload's training pipeline, run it in images, return whether all steps succeeded.

    Args:
        root: Folder of this run; steps write below it.
    """
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o777)
    # kfp makes each step's folder on this side, and a user of another number writes into it.
    os.umask(0)
    compiled = root / "pipeline.yaml"
    emit({"event": "compiled", "digest": compile_to(compiled, workload=workload)})
    environment = given_to_steps(home, root.name)
    in_images = runner(environment, [home.path])
    return execute(compiled, arguments, root=root, emit=emit, runner=in_images)


def main(argv: list[str] | None = None) -> int:
    """Compile and run; print events; return 0 when every step succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--root", type=Path, required=True, help="folder of this run")
    parser.add_argument("--home", type=Path, required=True, help="registry, ledger and keys")
    parser.add_argument("--images", type=Path, default=Path("build/images/images.json"))
    parser.add_argument("--arguments", type=json.loads, default={}, help="pipeline arguments, JSON")
    given = parser.parse_args(argv)
    out = sys.stdout

    def emit(event: Event) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    if os.geteuid():
        raise SystemExit("a container's file system is mounted here: be root")
    require_kfp()
    name_images(given.images)
    home = Home(given.home.resolve())
    home.path.mkdir(parents=True, exist_ok=True)
    ok = run(given.workload, given.arguments, root=given.root.resolve(), home=home, emit=emit)
    emit({"event": "ended", "ok": ok})
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
