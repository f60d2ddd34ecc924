"""Whether bundles are of one chain: what was measured and judged is what would serve. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from penstock.bundle import Bundle, BundleError

Link = tuple[str, str, str]
"""Who records, under which name of its manifest's ``inputs``, and the input that must be it."""

ALWAYS: tuple[Link, ...] = (
    ("data-verdict", "snapshot", "snapshot"),
    ("model", "snapshot", "snapshot"),
    ("model", "data-verdict", "data-verdict"),
    ("equivalence", "snapshot", "snapshot"),
    ("equivalence", "model", "model"),
    ("equivalence", "engine", "engine"),
    ("serving", "snapshot", "snapshot"),
)

INT8: tuple[Link, ...] = (
    ("equivalence", "int8", "serving"),
    ("engine", "int8", "serving"),
)

ONNX: tuple[Link, ...] = (
    ("equivalence", "onnx", "serving"),
    ("serving", "model", "model"),
)


def check(workload: str, inputs: Mapping[str, Bundle], *, serve: str) -> None:
    """Refuse inputs that do not belong together.

    Args:
        inputs: By the gate's names: ``snapshot``, ``data-verdict``, ``model``, ``serving``,
            ``engine``, ``equivalence`` and, where one serves, ``champion``.
        serve: Which graph serves, ``onnx`` or ``int8``.

    Raises:
        BundleError: One is of another workload, or was made from another bundle than the one given
            beside it.

    Bundles name what they were made from by fingerprint. Two links have no bundle of their own
    here, and go by way of the equivalence ladder, which holds every step against the one before: an
    int8 graph and the ladder must be of one ``onnx``, the engine and the ladder of one ``int8``.
    """
    for name, bundle in inputs.items():
        if (of := bundle.manifest["workload"]) != workload:
            raise BundleError(
                f"{name} at {bundle.path} is of {of!r}; the gate judges {workload!r}: give it "
                f"{workload}'s own."
            )
    for problem in (*_unlinked(inputs, serve=serve), *_ladders(inputs, serve=serve)):
        raise BundleError(
            f"the gate's inputs are not of one chain: {problem}; give the folders of one run, or "
            "run the stages after the odd one again."
        )


def check_judged(gate: Bundle, inputs: Mapping[str, Bundle]) -> None:
    """Refuse bundles that are not the very ones a gate has judged.

    Args:
        inputs: By the gate's names, without those that it does not know.

    Raises:
        BundleError: The gate names another in the place of one, or none.
    """
    judged: Mapping[str, str] = gate.manifest["inputs"]
    wrong = [
        f"{name} is {bundle.fingerprint}, judged was {judged.get(name, 'none')}"
        for name, bundle in inputs.items()
        if judged.get(name) != bundle.fingerprint
    ]
    if wrong:
        raise BundleError(
            f"the gate at {gate.path} judged others: {'; '.join(wrong)}; give the folders of its "
            "run, or run the gate again."
        )


def _unlinked(inputs: Mapping[str, Bundle], *, serve: str) -> Iterator[str]:
    for by, name, given in (*ALWAYS, *(INT8 if serve == "int8" else ONNX)):
        recorded = inputs[by].manifest["inputs"].get(name, "none")
        if recorded != (wanted := inputs[given].fingerprint):
            yield f"{by} was made from {name} {recorded}, and {given} given is {wanted}"


def _ladders(inputs: Mapping[str, Bundle], *, serve: str) -> Iterator[str]:
    """Yield what the ladder and the bundle on the other side made of different things."""
    ladder = inputs["equivalence"].manifest["inputs"]
    by, name = ("serving", "onnx") if serve == "int8" else ("engine", "int8")
    recorded, climbed = inputs[by].manifest["inputs"].get(name, "none"), ladder.get(name, "none")
    if recorded != climbed:
        yield f"{by} was made from {name} {recorded}, and equivalence is of {name} {climbed}"
