"""Laws of a gate's inputs: what was measured is what would serve, or nothing is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.bundle import Bundle, BundleError
from penstock.chained import check


def bundle(name: str, *, workload: str = "digits", **inputs: str) -> Bundle:
    """Return a bundle of that name that says what it was made from."""
    manifest = {"workload": workload, "fingerprint": f"digits-{name}", "inputs": inputs}
    return Bundle(Path(f"/bundles/{name}"), manifest)


def chain(*, serve: str) -> dict[str, Bundle]:
    """Return the gate's inputs as one run leaves them."""
    int8_of = "digits-serving" if serve == "int8" else "digits-int8"
    onnx_of = "digits-onnx" if serve == "int8" else "digits-serving"
    data, model, engine = "digits-snapshot", "digits-model", "digits-engine"
    serving = {"onnx": "digits-onnx"} if serve == "int8" else {"model": model}
    return {
        "snapshot": bundle("snapshot"),
        "data-verdict": bundle("checked", snapshot=data),
        "model": bundle("model", **{"snapshot": data, "data-verdict": "digits-checked"}),
        "serving": bundle("serving", snapshot=data, **serving),
        "engine": bundle("engine", int8=int8_of),
        "equivalence": bundle(
            "ladder", snapshot=data, model=model, onnx=onnx_of, int8=int8_of, engine=engine
        ),
    }


LINKS = [
    (serve, by, name)
    for serve in ("int8", "onnx")
    for by, made in chain(serve=serve).items()
    for name in made.manifest["inputs"]
]


@pytest.mark.parametrize("serve", ["int8", "onnx"])
def test_the_inputs_of_one_run_belong_together(serve: str):
    """With a champion of the workload beside them, too."""
    inputs = chain(serve=serve)

    check("digits", inputs, serve=serve)
    check("digits", {**inputs, "champion": bundle("package")}, serve=serve)


@pytest.mark.parametrize(("serve", "by", "name"), LINKS)
def test_every_link_that_is_recorded_is_held(serve: str, by: str, name: str):
    """Whatever one bundle was made from, another one of that kind in its place is refused."""
    inputs = chain(serve=serve)
    made = inputs[by]
    told = {**made.manifest, "inputs": {**made.manifest["inputs"], name: "digits-of-another-run"}}
    inputs[by] = Bundle(made.path, told)

    with pytest.raises(BundleError, match=r"not of one chain: .*digits-of-another-run.*; give the"):
        check("digits", inputs, serve=serve)


@pytest.mark.parametrize(("serve", "by", "name"), LINKS)
def test_a_bundle_that_does_not_say_what_it_is_of_is_refused(serve: str, by: str, name: str):
    """No record of what it was made from is no evidence that it belongs here."""
    inputs = chain(serve=serve)
    made = inputs[by]
    said = {k: v for k, v in made.manifest["inputs"].items() if k != name}
    inputs[by] = Bundle(made.path, {**made.manifest, "inputs": said})

    with pytest.raises(BundleError, match="none"):
        check("digits", inputs, serve=serve)


@pytest.mark.parametrize("name", ["snapshot", "engine", "champion"])
def test_another_workloads_bundle_is_refused(name: str):
    """It says whose it is, and whose was wanted."""
    inputs = {**chain(serve="int8"), "champion": bundle("package")}
    inputs[name] = bundle("alien", workload="credit")

    with pytest.raises(BundleError, match=r"'credit'; the gate judges 'digits'"):
        check("digits", inputs, serve="int8")
