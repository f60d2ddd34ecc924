"""``penstock manifests``: what a cluster is given for one workload, as files to review."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.bundle import replace_folder, write_text
from penstock.cli.servers import Workload
from penstock.release import Fallback
from penstock.rollout.adapters.manifests import FIRST, files, place_text
from penstock.rollout.adapters.places import read
from penstock.workload import Workload as Declared
from penstock.workload import load

EDGES = "dns:http://edge-replicas.gateways.svc:80"
"""Every replica of Gateway ``edge``, by the Service that the base brings."""

PREDICTIONS = "s3://penstock/predictions"


def manifests(
    workload: Workload,
    out: Annotated[Path, typer.Option(help="A folder; a new one, or one that this wrote.")],
    host: Annotated[str, typer.Option(help="Under which users ask: digits.example.com.")] = "",
    place: Annotated[
        Path | None, typer.Option(help="A file of places, where more is to be said than here.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Of the slots and routes.")] = "models",
    gateway: Annotated[str, typer.Option(help="Name of the Gateway.")] = "edge",
    gateway_namespace: Annotated[str, typer.Option(help="And where it is.")] = "gateways",
    edge: Annotated[
        list[str] | None,
        typer.Option(help="URL of a replica of the gateway; dns:URL is all that a name means."),
    ] = None,
    predictions: Annotated[
        str, typer.Option(help="Where serving pods copy the prediction log to.")
    ] = PREDICTIONS,
    replicas: Annotated[int, typer.Option(help="Pods of each slot.")] = 2,
) -> None:
    """Write a workload's manifests: slots, the controller's role, its place, the watch's schedule.

    Example: penstock manifests digits --host digits.example.com --out digits

    The folder is a kustomize component: name it under components: in your overlay, as
    manifests/overlays/laptop does. first.yaml in it is applied once, by itself.
    """
    declared = load(workload)
    if bool(host) == bool(place):
        raise typer.BadParameter("give one of both.", param_hint="--host or --place")
    said = {
        "namespace": namespace,
        "host": host,
        "gateway": gateway,
        "gateway_namespace": gateway_namespace,
        "edges": edge or [EDGES],
        "predictions": predictions,
        "replicas": replicas,
        "timeout_ms": declared.endpoint.timeout_ms,
    }
    text = place.read_text(encoding="utf-8") if place else place_text(workload, said)
    write(declared, text, out)
    typer.echo(f"wrote {out}")
    typer.echo("  add     it under components: in your overlay, and apply that")
    typer.echo(f"  then    once, {out / FIRST}, as its first lines say")


def write(declared: Declared, said: str, out: Path) -> None:
    """Write the folder of a workload, whole, in place of the one that was there.

    Args:
        said: Text of a file of places, with the workload's and no other.

    Raises:
        PlacesError: It says what is not known, or not allowed.
        ValueError: It has not this one place, or the folder holds what was not written here.
    """
    part = out.with_name(f".part-{out.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write_text(part / f"{declared.name}.toml", said)
        found = read(part)
        if [*found] != [declared.name]:
            raise ValueError(
                f"the places are those of {', '.join(found)}; {declared.name}'s alone was wanted."
            )
        rules = declared.rollout.kill_to is Fallback.RULES
        made = files(found[declared.name], said, rules=rules)
        _refuse_strange(out, made)
        for name, text in made.items():
            write_text(part / name, text)
        replace_folder(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refuse_strange(out: Path, made: dict[str, Any]) -> None:
    strange = sorted(p.name for p in out.iterdir() if p.name not in made) if out.exists() else []
    if strange:
        raise ValueError(f"{out} holds {strange[0]}, which is not written here; name another one.")
