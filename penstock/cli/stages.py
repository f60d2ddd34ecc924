"""A verb for every stage, made from the stage's own ``run``, to repeat by hand what failed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

STAGES = (
    "features",
    "datachecks",
    "train",
    "export",
    "quantize",
    "engine",
    "equivalence",
    "gate",
    "register",
)
"""Stages that take folders and leave a folder; releasing is ``penstock run``."""


def add_to(app: typer.Typer) -> None:
    """Add the verbs, each with the stage's first sentence as its help."""
    for stage in STAGES:
        app.command(stage, rich_help_panel="Stages, one by one")(_verb(stage))


def _verb(stage: str) -> Callable[..., None]:
    # The signatures are read from the step modules, which import no tool before they have work.
    step = importlib.import_module(f"penstock.{stage}.step")
    signature = inspect.signature(step.run, eval_str=True)
    wanted = [p for p in signature.parameters.values() if p.name != "now"]

    def verb(**given: Any) -> None:
        if given["out"].exists():
            raise ValueError(f"{given['out']} exists; name a folder that does not.")
        said = step.run(**given, now=datetime.now(UTC))
        if said is not None:
            typer.echo(said)

    options = [p.replace(default=_option(p), annotation=_type(p)) for p in wanted]
    verb.__signature__ = inspect.Signature(options)  # pyright: ignore[reportFunctionMemberAccess]
    verb.__doc__ = (importlib.import_module(f"penstock.{stage}").__doc__ or "").strip()
    return verb


def _type(parameter: inspect.Parameter) -> type:
    return {Path: Path, int: int}.get(parameter.annotation, str)


def _option(parameter: inspect.Parameter) -> Any:
    name = f"--{parameter.name.replace('_', '-')}"
    optional = {
        "seed": 0,
        "champion": "",
        "reference": "",
        "rehearsal": "",
        "actor": "command line",
    }
    default = optional.get(parameter.name, ...)
    return typer.Option(default, name)
