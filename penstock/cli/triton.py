"""``penstock triton``: a package as a model repository that NVIDIA Triton serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock import bundle, registered
from penstock.bundle import Bundle, BundleError
from penstock.cli.home import HomeError, home
from penstock.cli.lineage import version_of
from penstock.cli.screen import terminal
from penstock.cli.transfers import bar
from penstock.ledger import REGISTERED, NoLedger
from penstock.register import triton as repository
from penstock.register.tritonconfig import Platform, buckets
from penstock.workload import known

PLATFORMS = {"onnxruntime": Platform.ONNX, "tensorrt": Platform.PLAN}


def triton(
    package: Annotated[
        str, typer.Argument(help="A workload, as digits or digits@2, or a package's folder.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    backend: Annotated[
        str | None, typer.Option(help="onnxruntime or tensorrt; a plan where there is one.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model; the workload's.")] = None,
    gpu: Annotated[bool, typer.Option(help="Run the graph with ONNX Runtime on a GPU.")] = False,
    signature_checked: Annotated[
        bool, typer.Option("--signature-checked", help="You verified the package's signature.")
    ] = False,
    image: Annotated[str, typer.Option(help="Triton's image, with its digest.")] = repository.IMAGE,
) -> None:
    """Write a model repository that Triton loads, warms with real rows, and serves strictly.

    Example: penstock triton digits --out triton/digits

    A workload is its champion here, digits@2 its version 2; ./digits is a folder of that name.
    Triton gets the graph's input: the workload's transform runs before it.
    """
    if backend is not None and backend not in PLATFORMS:
        raise typer.BadParameter(f"there is {' and '.join(PLATFORMS)}.", param_hint="--backend")
    written = repository.write(
        _package(package),
        out,
        platform=PLATFORMS[backend] if backend else None,
        name=name,
        image=image,
        gpu=gpu,
        signature_checked=signature_checked,
    )
    model = written.model
    typer.echo(f"{model.name} for {model.platform.value} in {written.folder}")
    typer.echo(f"  input   {model.given.name} {list(model.given.dims)}, after the transform")
    typer.echo(f"  warm-up {', '.join(map(str, buckets(model.rows)))} rows, of golden requests")
    if written.tensorrt:
        typer.echo(f"  image   must hold TensorRT {written.tensorrt}, which built the plan")
    typer.echo(f"  start   {written.folder / 'start.sh'}, or runtime.yaml in a cluster")


def _package(given: str) -> Bundle:
    """Return the package of a workload's version, or the one in a folder.

    Raises:
        HomeError: No version of the workload was registered here.
        LookupError: Not that version, or it serves no more.
        BundleError: There is no such folder, or its package is not whole.
    """
    workload, _, version = given.partition("@")
    if workload in known():
        return _registered(workload, version or "champion")
    if not Path(given).is_dir():
        raise BundleError(
            f"{given!r} is neither a folder nor a workload; name a package's folder, or one of "
            f"{', '.join(known())}, with @ and a version where the champion is not meant."
        )
    return bundle.read(Path(given), kind="package")


def _registered(workload: str, version: str) -> Bundle:
    try:
        ledger = home().ledger(looking=True)
    except NoLedger:
        entries = []
    else:
        try:
            entries = ledger.entries(workload)
        finally:
            ledger.close()
    if not any(entry.kind == REGISTERED for entry in entries):
        raise HomeError(
            f"no version of {workload} is registered here; type: penstock run {workload}"
        )
    with bar(terminal()) as heard:
        return registered.package_to_serve(entries, version_of(entries, version), heard=heard)
