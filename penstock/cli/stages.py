"""A verb for every stage, made from the stage's own ``run``, to repeat by hand what failed."""

from __future__ import annotations

import importlib
import inspect
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import typer

from penstock.stage import parse

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


class Readable(io.TextIOBase):
    """Passes text on; what a stage says for the runner becomes a line for people."""

    def __init__(self, out: TextIO) -> None:
        """Write to ``out``."""
        self._out, self._rest = out, ""

    def write(self, text: str) -> int:
        """Take a piece of output, which may end in the middle of a line."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            told = parse(line)
            reused = "reused, " if told and told.reused else ""
            plain = f"{told.stage}: {told.outcome}: {reused}{told.line}" if told else line
            self._out.write(plain + "\n")
        return len(text)

    def flush(self) -> None:
        """Pass on what there is, a line that has no end included."""
        self._out.write(self._rest)
        self._rest = ""
        self._out.flush()


PANEL = "Stages, one by one"


def add_to(app: typer.Typer, **groups: typer.Typer) -> None:
    """Add the verbs, each with the stage's first sentence as its help.

    Args:
        groups: Of a stage that has verbs of its own, those; without one of them the stage runs.
    """
    for stage in STAGES:
        if stage not in groups:
            app.command(stage, rich_help_panel=PANEL)(_verb(stage))
            continue
        verb = _verb(stage, below=True)
        groups[stage].callback(invoke_without_command=True, help=verb.__doc__)(verb)
        app.add_typer(groups[stage], name=stage, rich_help_panel=PANEL)


def _verb(stage: str, *, below: bool = False) -> Callable[..., None]:
    """Return a stage's verb.

    Args:
        below: It has verbs of its own, for which its options are not asked.
    """
    # The signatures are read from the step modules, which import no tool before they have work.
    step = importlib.import_module(f"penstock.{stage}.step")
    signature = inspect.signature(step.run, eval_str=True)
    wanted = [p for p in signature.parameters.values() if p.name != "now"]

    def verb(**given: Any) -> None:
        if below:
            if given.pop("ctx").invoked_subcommand is not None:
                return
            if missing := [f"--{n.replace('_', '-')}" for n, v in given.items() if v is None]:
                raise ValueError(f"{stage} wants {', '.join(missing)} too; see {stage} --help.")
        for written in (given["out"], given.get("infra_verdict")):
            if written is not None and written.exists():
                raise ValueError(f"{written} exists; name a folder that does not.")
        readable = Readable(sys.stdout)
        with redirect_stdout(readable):  # pyright: ignore[reportArgumentType]
            said = step.run(**given, now=datetime.now(UTC))
        readable.flush()
        if said is not None:
            typer.echo(said)

    options = [p.replace(default=_option(p, below=below), annotation=_type(p)) for p in wanted]
    if below:
        kind = inspect.Parameter.KEYWORD_ONLY
        options.insert(0, inspect.Parameter("ctx", kind, annotation=typer.Context))
    verb.__signature__ = inspect.Signature(options)  # pyright: ignore[reportFunctionMemberAccess]
    verb.__doc__ = (importlib.import_module(f"penstock.{stage}").__doc__ or "").strip()
    return verb


def _type(parameter: inspect.Parameter) -> type:
    return {Path: Path, int: int}.get(parameter.annotation, str)


def _option(parameter: inspect.Parameter, *, below: bool) -> Any:
    name = f"--{parameter.name.replace('_', '-')}"
    optional = {
        "seed": 0,
        "champion": "",
        "reference": "",
        "rehearsal": "",
        "trigger": "manual",
    }
    default = optional.get(parameter.name, None if below else ...)
    return typer.Option(default, name)
