"""The check of a compiled pipeline before it is submitted: all of its problems at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

from pipelines import rules
from pipelines.ir import Compiled, Problem, compiled
from pipelines.rules import MAX_PARAMETER_BYTES

__all__ = ["MAX_PARAMETER_BYTES", "Problem", "check", "check_arguments", "parameters", "pods"]

_KINDS: Mapping[str, tuple[type, ...]] = {
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


def check(text: str, *, pinned: bool) -> list[Problem]:
    """Return everything in a compiled file that a cluster would refuse, or take otherwise.

    Args:
        pinned: Every image must have a digest, as on a cluster it should.

    What cannot be read hides what is behind it: mend that first and check again.
    """
    ir, problems = compiled(text)
    if problems:
        return problems
    asked = (*rules.RULES, rules.pinned) if pinned else rules.RULES
    return [problem for rule in asked for problem in rule(ir)]


def parameters(text: str) -> dict[str, str]:
    """Return the type of each parameter of a run: ``STRING``, ``NUMBER_INTEGER``.

    Raises:
        ValueError: The file cannot be read.
    """
    defined = _readable(text).spec.root.input_definitions.parameters
    return {
        name: ParameterType.ParameterTypeEnum.Name(given.parameter_type)
        for name, given in sorted(defined.items())
    }


def check_arguments(text: str, arguments: Mapping[str, Any]) -> list[Problem]:
    """Return what the server would refuse of a run's arguments.

    Raises:
        ValueError: The file cannot be read.
    """
    return [*_arguments(text, arguments)]


def _arguments(text: str, arguments: Mapping[str, Any]) -> Iterator[Problem]:
    defined, known = _readable(text).spec.root.input_definitions.parameters, parameters(text)
    for name in sorted(arguments.keys() - known.keys()):
        there = ", ".join(known) or "none"
        yield Problem(f"parameter {name}", f"there is {there}", "leave it out")
    for name, kind in known.items():
        where, given = f"parameter {name}", defined[name]
        if name not in arguments:
            if not given.is_optional and not given.HasField("default_value"):
                yield Problem(where, "it is not given and has no default", "give it")
            continue
        value = arguments[name]
        right = isinstance(value, _KINDS.get(kind, ()))
        if not right or (isinstance(value, bool) and kind != "BOOLEAN"):
            yield Problem(where, f"{value!r} came, {kind} was wanted", "give one")
        elif "{{" in str(value):
            yield Problem(where, f"{value!r} holds {{{{, which is filled in", "leave that out")
    yield from _sent(arguments)


def _sent(arguments: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        size = len(json.dumps(dict(arguments), allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as e:
        yield Problem("parameters", f"they are no JSON: {e}", "give plain values")
        return
    if size > MAX_PARAMETER_BYTES:
        what = f"{size:,} bytes, at most {MAX_PARAMETER_BYTES:,} are taken"
        yield Problem("parameters", what, "pass the address of a file in place of what it holds")


def pods(text: str) -> int:
    """Return how many pods one run starts at most, what loops repeat counted once.

    Each step is a driver and the step itself, each group a driver; so is the whole.

    Raises:
        ValueError: The file cannot be read, or its groups hold each other.
    """
    ir = _readable(text)
    if problems := [*rules.components(ir)]:
        raise ValueError(str(problems[0]))
    return 1 + _pods(ir, ir.spec.root)


def _pods(ir: Compiled, component: Any) -> int:
    count = 0
    for task in component.dag.tasks.values():
        called = ir.spec.components[task.component_ref.name]
        if called.WhichOneof("implementation") == "dag":
            count += 1 + _pods(ir, called)
        else:
            count += 1 if ir.importer(called) else 2
    return count


def _readable(text: str) -> Compiled:
    ir, problems = compiled(text)
    if problems:
        raise ValueError(str(problems[0]))
    return ir
