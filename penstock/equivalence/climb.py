"""Climb the ladder: run every step, hold it against the one before, find where it goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.bundle import Bundle
from penstock.equivalence import engines, inputs, locate, running
from penstock.equivalence.holdout import Holdout
from penstock.equivalence.ladder import Masks, Step, step
from penstock.verdict import Verdict
from penstock.workload import Rung

if TYPE_CHECKING:
    from penstock.runtimes import Runtime
    from penstock.runtimes.modules import Network

CPU = "int8-cpu"

STEPS = (("torch", "onnx"), ("onnx", "simplified"), ("simplified", CPU), ("simplified", "int8"))
"""What is run here; the engines ran where their hardware is."""

ROUNDED = ("int8", CPU)


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Everything that was found."""

    steps: tuple[Step, ...]
    engines: engines.Engines

    floor_db: dict[str, float]
    """How near the int8 graph comes to itself on inputs that barely differ, by slice."""

    outputs: running.Outputs
    golden: engines.Golden

    located: dict[str, locate.Located]
    """For each step that ran here."""

    @property
    def verdict(self) -> Verdict:
        """All checks of all steps, and of the engines that should have been one."""
        steps = (*self.steps, *self.engines.steps)
        return Verdict((*(c for one in steps for c in one.checks), *self.engines.checks))


def climb(
    holdout: Holdout,
    network: Network,
    graphs: Mapping[str, Path],
    int8: Bundle,
    engine: Bundle,
) -> Ladder:
    """Return the ladder torch → ONNX → simplified → int8 → engines of a holdout.

    The int8 graph for CPUs is a step beside the other one, of the simplified graph as well: no
    engine is made from it, it is what serves.

    Args:
        network: The trained one, in evaluation mode; it is made float64, the yardstick.
        graphs: Files of ``onnx``, ``simplified``, ``int8`` and ``int8-cpu``.
        int8: Bundle with ``model.int8.onnx`` and ``golden.npz``.
        engine: Bundle with what engines gave on the golden rows.

    Raises:
        BundleError: The engines were made from another int8 graph.
        ValueError: A slice has a name that the ladder uses itself.
    """
    engines.require_made_from(engine, int8)
    declared = holdout.declared
    rules = declared.equivalence
    rungs = {
        "onnx": rules.onnx, "simplified": rules.simplified, "int8": rules.int8, CPU: rules.int8,
    }  # fmt: skip
    runtimes = _runtimes(network, graphs)
    outputs = running.run(holdout, runtimes, least_beyond=rules.min_slice_support)
    slices = _slices(holdout, outputs)
    steps = tuple(
        step(
            after,
            before,
            outputs.logits,
            holdout.labels(),
            slices,
            rungs[after],
            declared,
            outputs.beyond,
            exact=after not in ROUNDED,
        )
        for before, after in STEPS
    )
    golden = engines.golden(int8, outputs.centre, least_rare=rules.min_slice_support)
    jittered_nk = running.in_batches(runtimes["int8"], inputs.jittered(golden.inputs_n))
    floor_db = engines.floor_db(golden, jittered_nk)
    rung = rules.engine or engines.derived(floor_db, golden, rules.int8)
    located = {
        one.name: _located(one, holdout, outputs, slices, network, graphs, rungs[one.name])
        for one in steps
    }
    return Ladder(
        steps=steps,
        engines=engines.judged(engine, golden, rung, declared),
        floor_db=floor_db,
        outputs=outputs,
        golden=golden,
        located=located,
    )


def _runtimes(network: Network, graphs: Mapping[str, Path]) -> dict[str, Runtime]:
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - seconds to import
    from penstock.runtimes.torch import TorchModel  # noqa: PLC0415

    return {
        "torch": TorchModel(network, double=True),
        # Optimizations would make of a rounded graph something else than its nodes say. Engines are
        # held against that; the CPU's graph is judged as it serves.
        **{name: OnnxModel(path, reference=name == "int8") for name, path in graphs.items()},
    }


def _slices(holdout: Holdout, outputs: running.Outputs) -> Masks:
    slices = holdout.slices()
    if taken := slices.keys() & {inputs.RARE, *outputs.beyond}:
        raise ValueError(
            f"the workload calls slices {sorted(taken)}, as the ladder does its own; give them "
            "other names."
        )
    least = holdout.declared.equivalence.min_slice_support
    return {**slices, inputs.RARE: inputs.rare(outputs.distance_n, least=least)}


def _located(
    found: Step,
    holdout: Holdout,
    outputs: running.Outputs,
    slices: Masks,
    network: Network,
    graphs: Mapping[str, Path],
    rung: Rung,
) -> locate.Located:
    looked_at = locate.inputs_of(found, outputs, slices, holdout)
    if found.against in graphs:
        return locate.in_graphs(found, graphs, looked_at, rung, fused=found.name == CPU)
    return locate.in_network(found, network, graphs[found.name], looked_at, rung)
