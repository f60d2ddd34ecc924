"""``penstock triton``: a package as a model repository that NVIDIA Triton serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock import bundle
from penstock.register import triton as repository
from penstock.register.tritonconfig import Platform, buckets

PLATFORMS = {"onnxruntime": Platform.ONNX, "tensorrt": Platform.PLAN}


def triton(
    package: Annotated[Path, typer.Argument(help="Folder of a package.")],
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

    Example: penstock triton runs/digits/package --out triton/digits

    Triton gets the graph's input: the workload's transform runs before it.
    """
    if backend is not None and backend not in PLATFORMS:
        raise typer.BadParameter(f"there is {' and '.join(PLATFORMS)}.", param_hint="--backend")
    written = repository.write(
        bundle.read(package, kind="package"),
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
