"""Laws of a file of places: what is said is read, and what is not known is refused by its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rollout.adapters.gateway import Gateway
from penstock.rollout.adapters.istio import Istio
from penstock.rollout.adapters.places import PlacesError, read

LEAST = {
    "namespace": '"models"',
    "host": '"digits.example.com"',
    "gateway": '"edge"',
    "gateway_namespace": '"gateways"',
    "edges": '["dns:http://edge.gateways.svc:80"]',
    "predictions": '"s3://bucket/predictions"',
}


def written(folder: Path, name: str = "places.toml", workload: str = "digits", **more: Any) -> Path:
    """Write a file of one place; a key that is None is left out."""
    said = {**LEAST, **more}
    lines = [f"{key} = {value}" for key, value in said.items() if value is not None]
    path = folder / name
    path.write_text("\n".join([f"[workloads.{workload}]", *lines]) + "\n")
    return path


def test_the_least_that_is_said_is_enough(tmp_path: Path):
    """The rest has defaults that a cluster can live with."""
    where = read(written(tmp_path))["digits"]

    assert (where.place.name, where.place.model, where.place.namespace) == (
        "digits",
        "digits",
        "models",
    )
    assert where.place.service("a") == "digits-a-predictor"
    assert (where.replicas, where.outcomes, where.copied_s) == (2, None, 120.0)
    made = where.made()
    assert isinstance(made, Gateway)
    assert [part.ref.kind for part in made.parts] == ["HTTPRoute", "EnvoyFilter", "HTTPRoute"]


def test_everything_can_be_said(tmp_path: Path):
    """Istio's tables, a transformer before the predictor, another gateway's assigner."""
    path = written(
        tmp_path,
        dialect='"istio"',
        gateway_labels='{ istio = "ingressgateway" }',
        outcomes='"s3://bucket/outcomes"',
        suffix='"-transformer"',
        replicas="4",
        copied_s="30",
    )
    where = read(path)["digits"]
    assert isinstance(where.made(), Istio)
    assert (where.replicas, where.copied_s, where.outcomes) == (4, 30.0, "s3://bucket/outcomes")
    assert where.place.service("b") == "digits-b-transformer"
    alone = read(written(tmp_path, assigner='"none"'))["digits"].made()
    assert [part.ref.kind for part in alone.parts] == ["HTTPRoute", "HTTPRoute"]


def test_a_folder_is_all_of_its_files(tmp_path: Path):
    """Each workload brings its own; one that two of them name is refused."""
    written(tmp_path, "a.toml", "digits")
    written(tmp_path, "b.toml", "credit")
    (tmp_path / "README.md").write_text("not a place")
    assert list(read(tmp_path)) == ["digits", "credit"]
    written(tmp_path, "c.toml", "digits")
    with pytest.raises(PlacesError, match=r"c\.toml: workload digits has a place in another file"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"host": None}, "workloads.digits.host is not there"),
        ({"hosts": '"x"'}, "says 'hosts'; known are namespace"),
        ({"host": '"NOT A HOST"'}, "Place.host is 'NOT A HOST'"),
        ({"replicas": '"2"'}, "replicas is '2'; int was wanted"),
        ({"replicas": "true"}, "replicas is True"),
        ({"replicas": "0"}, "replicas is 0; it must be above 0"),
        ({"copied_s": "inf"}, "copied_s is inf; it must be above 0"),
        ({"copied_s": "nan"}, "copied_s is nan; it must be above 0"),
        ({"edges": "[]"}, "edges is empty"),
        ({"edges": "[1]"}, r"edges is \[1\]; URLs were wanted"),
        ({"dialect": '"knative"'}, "serve the two slots in Standard mode"),
        ({"dialect": '"istio"'}, "gateway_labels is empty"),
        ({"gateway_labels": "{ a = 1 }"}, "gateway_labels.a is 1; text was wanted"),
        ({"suffix": '"-explainer"'}, "one of -predictor, -transformer"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(tmp_path: Path, more: dict[str, str], said: str):
    """File, workload and key are in the sentence."""
    with pytest.raises(PlacesError, match=said) as refused:
        read(written(tmp_path, **more))
    assert "places.toml: workloads.digits" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no place"),
        ("workloads = 3", "workloads is 3"),
        ("[workloads]\ndigits = 3", "workloads.digits is 3"),
        ("[workload.digits]", "says 'workload'; known are workloads"),
        ("not toml", "is no TOML"),
    ],
)
def test_what_is_no_file_of_places_is_refused(tmp_path: Path, text: str, said: str):
    """In one sentence, whatever it is."""
    path = tmp_path / "places.toml"
    path.write_text(text)
    with pytest.raises(PlacesError, match=said):
        read(path)


@given(text=st.text(st.characters(codec="utf-8"), max_size=200))
def test_no_text_is_anything_but_places_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, text: str
):
    """Nothing else comes out of it."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(PlacesError, match=re.escape(str(path))):
        read(path)
