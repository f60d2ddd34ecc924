"""What is committed is what the code writes, and an overlay is the same bytes each time."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.manifests import write
from penstock.rollout.adapters.manifests import FIRST
from penstock.workload import Workload, known, load, load_data
from tests.manifests import rules
from tests.manifests.built import (
    MANIFESTS,
    documents,
    named,
    needs_kubectl,
    objects,
    of_kind,
    overlays,
    render,
    said,
    text_of,
)

GOLDEN = Path(__file__).parent / "golden"
WORKLOADS = MANIFESTS / "workloads"
REWRITE = os.environ.get("PENSTOCK_GOLDEN") == "rewrite"
SERVED = [name for name in known() if isinstance(load_data(name), Workload)]


@pytest.mark.parametrize("name", SERVED)
def test_what_is_committed_is_what_the_code_writes(name: str, tmp_path: Path):
    """From the place that is committed; another host is another folder by the same code."""
    place = (WORKLOADS / name / f"{name}.toml").read_text(encoding="utf-8")

    write(load(name), place, tmp_path / name)
    if REWRITE:
        write(load(name), place, WORKLOADS / name)

    written = {p.name: p.read_text(encoding="utf-8") for p in (tmp_path / name).iterdir()}
    held = {p.name: p.read_text(encoding="utf-8") for p in (WORKLOADS / name).iterdir()}
    assert written == held, f"penstock manifests {name} --place … --out manifests/workloads/{name}"


def test_every_workload_that_is_served_has_its_folder():
    assert sorted(p.name for p in WORKLOADS.iterdir()) == SERVED


def test_the_alerts_are_those_that_are_tested():
    """One file of alerts: promtool tests it, and the operator's object holds the same."""
    if REWRITE:
        rules.RULES.write_text(rules.made(), encoding="utf-8")

    assert rules.RULES.read_text(encoding="utf-8") == rules.made()


@needs_kubectl
@overlays
def test_an_overlay_is_the_same_bytes_each_time(overlay: str):
    folder = MANIFESTS / "overlays" / overlay

    assert render(folder) == text_of(folder)


@needs_kubectl
@overlays
def test_an_overlay_is_what_is_on_record(overlay: str):
    """A change shows in review as what it does to the cluster; kustomize may format as it likes."""
    golden = GOLDEN / f"{overlay}.yaml"
    if REWRITE:
        golden.write_text(text_of(MANIFESTS / "overlays" / overlay), encoding="utf-8")

    held = documents(golden.read_text(encoding="utf-8"))
    found = objects(overlay)
    assert [said(one) for one in found] == [said(one) for one in held]
    for one, other in zip(found, held, strict=True):
        assert one == other, f"{said(one)}: PENSTOCK_GOLDEN=rewrite, and review the difference"


@needs_kubectl
@overlays
def test_a_value_is_said_once(overlay: str):
    """What the controller reads, and where pods write it, is one address; so is what is brought."""
    found = objects(overlay)
    configured = {
        o["metadata"]["namespace"]: o["data"]
        for o in of_kind(found, "ConfigMap")
        if o["metadata"]["name"] == "penstock"
    }
    assert configured["penstock"] == configured["models"]
    values = configured["models"]
    for text in _places(found).values():
        ((place,),) = ([*tomllib.loads(text)["workloads"].values()],)
        assert place["predictions"] == values["predictions"]
    formats = named(found, "ClusterStorageContainer", "penstock")["spec"]["supportedUriFormats"]
    assert formats == [{"prefix": values["packages"]}]


def _places(found: list[dict[str, Any]]) -> dict[str, str]:
    (places,) = (
        o["data"] for o in of_kind(found, "ConfigMap") if "places" in o["metadata"]["name"]
    )
    return places


@needs_kubectl
def test_an_image_is_named_in_one_file(tmp_path: Path):
    """Whoever changes that file changes what runs, everywhere it runs."""
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    file = tmp_path / "manifests" / "overlays" / "gpu" / "values" / "images.env"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("registry.example.com", "mine.example.com"), encoding="utf-8")

    made = render(file.parents[1])

    assert "registry.example.com" not in made
    assert made.count("image: mine.example.com/") == 7  # controller, three watches, three runtimes


@needs_kubectl
def test_a_workload_of_ones_own_is_one_line_of_an_overlay(tmp_path: Path):
    """Its folder is a component: slots, role, place and watch are there, nothing else is other."""
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    folder = tmp_path / "manifests" / "workloads" / "digits"
    place = (folder / "digits.toml").read_text(encoding="utf-8")
    shutil.rmtree(folder)
    write(load("digits"), place.replace("digits.example.com", "numbers.example.org"), folder)

    made = documents(render(tmp_path / "manifests" / "overlays" / "laptop"))

    assert "numbers.example.org" in _places(made)["digits.toml"]
    controller = named(made, "Deployment", "penstock-controller")
    (volume,) = (
        v for v in controller["spec"]["template"]["spec"]["volumes"] if v["name"] == "places"
    )
    (ours,) = (
        v
        for v in named(objects("laptop"), "Deployment", "penstock-controller")["spec"]["template"][
            "spec"
        ]["volumes"]
        if v["name"] == "places"
    )
    assert volume["configMap"]["name"] != ours["configMap"]["name"], "a new place rolls the pods"
    unchanged = {said(o): o for o in objects("laptop")}
    others = [o for o in made if unchanged.get(said(o)) != o]
    assert {said(o).split("-")[0] for o in others} <= {
        "Deployment penstock/penstock",
        "ConfigMap penstock/penstock",
    }


@needs_kubectl
@overlays
def test_an_overlay_can_be_applied_again(overlay: str):
    """It names nothing that the controller writes, so that it takes nothing back."""
    for one in of_kind(objects(overlay), "InferenceService"):
        mine = {"penstock.io/version", "penstock.io/digest", "serving.kserve.io/stop"}
        assert not mine & set(one["metadata"]["annotations"])
        assert "minReplicas" not in one["spec"]["predictor"]
        assert "storageUri" not in one["spec"]["predictor"]["model"]
    lease = named(objects(overlay), "Lease", "penstock-controller")
    assert "spec" not in lease
    assert not of_kind(objects(overlay), "HTTPRoute", "EnvoyFilter")


@pytest.mark.parametrize("name", SERVED)
def test_the_first_tables_expose_nobody_and_start_nothing(name: str):
    """Everybody on slot a, the kill route attached to nothing, no pod without a version."""
    held = documents((WORKLOADS / name / FIRST).read_text(encoding="utf-8"))

    assert "parentRefs" not in named(held, "HTTPRoute", f"{name}-kill")["spec"]
    (rule,) = named(held, "HTTPRoute", name)["spec"]["rules"]
    assert [b["name"] for b in rule["backendRefs"]] == [f"{name}-a-predictor"]
    slots = of_kind(held, "InferenceService")
    assert {o["metadata"]["annotations"]["serving.kserve.io/stop"] for o in slots} == {"true"}
    assert all("spec" not in o for o in slots)
    # There is a slot in it for each slot that the overlays bring.
    ours = of_kind(documents((WORKLOADS / name / "slots.yaml").read_text()), "InferenceService")
    assert {o["metadata"]["name"] for o in slots} == {o["metadata"]["name"] for o in ours}
