"""``penstock manifests`` writes a folder or refuses with a sentence; nothing of others is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from penstock.cli.manifests import manifests
from penstock.rollout.adapters.manifests import FIRST, KUSTOMIZATION, text
from penstock.rollout.adapters.places import PlacesError, read
from tests.manifests.built import MANIFESTS, documents, named
from tests.manifests.test_commands import parsed

app = typer.Typer()
app.command()(manifests)


def run(*arguments: str) -> Result:
    """Run the verb."""
    return CliRunner().invoke(app, arguments)


def test_a_host_is_enough(tmp_path: Path):
    """What is committed is what this writes for the host that it has."""
    done = run("digits", "--host", "digits.example.com", "--out", str(tmp_path / "digits"))

    assert done.exit_code == 0, done.output
    committed = MANIFESTS / "workloads" / "digits"
    assert {p.name: p.read_text() for p in (tmp_path / "digits").iterdir()} == {
        p.name: p.read_text() for p in committed.iterdir()
    }


def test_what_is_said_is_in_the_place(tmp_path: Path):
    out = tmp_path / "digits"
    done = run(
        "digits", "--host", "numbers.example.org", "--namespace", "served", "--gateway", "front",
        "--gateway-namespace", "doors", "--edge", "http://10.0.0.7", "--edge", "http://10.0.0.8",
        "--predictions", "s3://mine/log", "--replicas", "3", "--out", str(out),
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    where = read(out / "digits.toml")["digits"]
    assert (where.place.host, where.place.namespace) == ("numbers.example.org", "served")
    assert where.place.edges == ("http://10.0.0.7", "http://10.0.0.8")
    assert (where.predictions, where.replicas) == ("s3://mine/log", 3)
    roles = documents((out / "roles.yaml").read_text(encoding="utf-8"))
    assert named(roles, "Role", "penstock-release-digits", "doors")["rules"]
    route = named(documents((out / FIRST).read_text(encoding="utf-8")), "HTTPRoute", "digits")
    assert route["spec"]["parentRefs"][0]["name"] == "front"


def test_a_place_says_more_than_the_options(tmp_path: Path):
    """Its text is taken over as it is, and the objects follow it."""
    said = (MANIFESTS / "workloads" / "digits" / "digits.toml").read_text(encoding="utf-8")
    place = tmp_path / "mine.toml"
    place.write_text("# Ours.\n" + said + 'assigner = "none"\n', encoding="utf-8")

    done = run("digits", "--place", str(place), "--out", str(tmp_path / "out"))

    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "digits.toml").read_text(encoding="utf-8") == place.read_text()
    assert "EnvoyFilter" not in (tmp_path / "out" / FIRST).read_text(encoding="utf-8")


def test_who_watches_knows_the_outcomes_that_a_place_names(tmp_path: Path):
    """Else nobody would ever know how good the model is."""
    said = (MANIFESTS / "workloads" / "digits" / "digits.toml").read_text(encoding="utf-8")
    place = tmp_path / "mine.toml"
    place.write_text(said + 'outcomes = "s3://penstock/outcomes.jsonl"\n', encoding="utf-8")

    done = run("digits", "--place", str(place), "--out", str(tmp_path / "out"))

    assert done.exit_code == 0, done.output
    (job,) = documents((tmp_path / "out" / "watch.yaml").read_text(encoding="utf-8"))
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert parsed(container["command"])["parameter"] == ["outcomes=s3://penstock/outcomes.jsonl"]


@pytest.mark.parametrize("arguments", [(), ("--host", "a.example.com", "--place", "x.toml")])
def test_a_host_or_a_place_and_not_both(tmp_path: Path, arguments: tuple[str, ...]):
    done = run("digits", "--out", str(tmp_path / "out"), *arguments)

    assert done.exit_code == 2
    assert "give one of both" in done.output


def test_a_place_of_another_workload_is_refused(tmp_path: Path):
    place = MANIFESTS / "workloads" / "credit" / "credit.toml"

    done = run("digits", "--place", str(place), "--out", str(tmp_path / "out"))

    assert "credit; digits's alone was wanted" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_place_that_says_what_is_not_known_is_refused(tmp_path: Path):
    place = tmp_path / "place.toml"
    place.write_text('[workloads.digits]\nhosts = "a.example.com"\n', encoding="utf-8")

    done = run("digits", "--place", str(place), "--out", str(tmp_path / "out"))

    assert isinstance(done.exception, PlacesError)
    assert "says 'hosts'" in str(done.exception)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path):
    """Written again over its own files, but never over a patch that somebody put beside them."""
    out = tmp_path / "digits"
    asked = ("digits", "--host", "digits.example.com", "--out", str(out))
    assert run(*asked).exit_code == 0
    assert run(*asked).exit_code == 0
    (out / "patch.yaml").write_text("mine", encoding="utf-8")

    done = run(*asked)

    assert "patch.yaml, which is not written here" in str(done.exception)
    assert (out / "patch.yaml").read_text(encoding="utf-8") == "mine"
    assert (out / KUSTOMIZATION).exists()
    assert not list(tmp_path.glob(".part-*"))


def test_a_script_is_written_as_its_lines():
    """And is the same text when it is read again."""
    script = 'local a = 1\n  return "ü"\n'

    made = text([{"script": script}])

    assert "|" in made.splitlines()[0]
    assert documents(made) == [{"script": script}]
