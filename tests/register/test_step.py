"""Laws of the register step, on real MLflow, ledger and server: what is let in, and what is not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mlflow import MlflowClient

from penstock import workload as workloads
from penstock.bundle import (
    Bundle,
    BundleError,
    Recipe,
    Summary,
    code_revision,
    read,
    write,
    write_json,
)
from penstock.ledger import Ledger, Stage, package_of, stage_of
from penstock.ledger.actors import KEY_VARIABLE, Actor, KeyFileError
from penstock.register import featurecontract, infra, signing, step
from penstock.register.promotion import slices_of
from penstock.stage import MARK, Refused
from penstock.workload import Approval, Endpoint, load
from serving.signature import verify
from tests import bundles
from tests.bundles import NOW
from tests.packages import graph, keys
from tests.register import dossiers

DIGITS = load("digits")
DEFINITIONS = code_revision(*workloads.definitions("digits"))


def scores() -> dict[str, Any]:
    """Return the judge's numbers of a digits model without a champion."""
    number = dossiers.metric(0.9617, None)
    part = {"n": 60, "metric": "accuracy", "margin": 0.15, "outcome": "pass", **number}
    by_class = [
        {"class": c, "n": 60, "accuracy": 0.96, "low": 0.9, "high": 0.99} for c in range(10)
    ]
    return {
        "n": 600,
        "metric": "accuracy",
        "threshold": None,
        "metrics": {"accuracy": number},
        "slices": [{"name": name, **part} for name in slices_of(DIGITS)],
        "fairness": [],
        "costs": None,
        "roc": None,
        "reliability": [{"n": 600, "predicted": 0.95, "happened": 0.96}],
        "confusion": np.diag([60] * 10).tolist(),
        "by_class": by_class,
    }


def evidence(
    folder: Path, *, seed: int = 7, champion: str = "", outcome: str = "pass"
) -> dict[str, Path]:
    """Write what the stages before hand over: a linear model's graph, and verdicts about it."""
    documents = {kind: dict(held) for kind, held in dossiers.DOCUMENTS.items()}
    config = {**documents["model"]["config.json"], "seed": seed, "classes": 10}
    documents["model"]["config.json"] = {**config, "metric": "accuracy"}
    quantized = documents["serving"]["quantize.json"]
    documents["serving"]["quantize.json"] = {**quantized, "cpu": {"float_layers": []}}
    check = {"name": "accuracy", "outcome": outcome, "reason": "0.96", "value": 0.96, "limit": 0.93}
    documents["gate"]["verdict.json"] = dossiers.verdict(check)
    documents["gate"]["scores.json"] = scores()
    paths: dict[str, Path] = {}
    made = {"onnx": f"digits-onnx-{seed}", "champion": champion}
    for kind, files in documents.items():
        if kind == "snapshot":
            proof = {**files["proof.json"], "feature_definitions": DEFINITIONS}
            paths[kind] = bundles.snapshot(folder / kind, proof=proof, online=files["online.json"])
        else:
            inputs = {name: made[of] for name, of in MADE_FROM[kind].items() if made[of]}
            paths[kind] = _written(folder / kind, kind, files, seed, inputs)
        made[kind] = read(paths[kind]).fingerprint
    return paths


MADE_FROM: dict[str, dict[str, str]] = {
    "data-verdict": {"snapshot": "snapshot"},
    "model": {"snapshot": "snapshot", "data-verdict": "data-verdict"},
    "serving": {"snapshot": "snapshot", "onnx": "onnx"},
    "engine": {"int8": "serving"},
    "equivalence": {
        "snapshot": "snapshot", "model": "model", "onnx": "onnx", "int8": "serving",
        "engine": "engine",
    },
    "gate": {
        "snapshot": "snapshot", "data-verdict": "data-verdict", "model": "model",
        "serving": "serving", "engine": "engine", "equivalence": "equivalence",
        "champion": "champion",
    },
}  # fmt: skip
"""Of each bundle, what its manifest names, and which of them that is."""


def _written(
    path: Path, kind: str, files: Mapping[str, Any], seed: int, inputs: Mapping[str, str]
) -> Path:
    def fill(folder: Path) -> Summary:
        for name, document in files.items():
            write_json(folder / name, document)
        if kind == "model":
            (folder / "model.safetensors").write_bytes(dossiers.weights((64, 10)))
        if kind == "serving":
            onnx.save(graph(seed), folder / "model.int8-cpu.onnx")
        return Summary("pass", "made for a test")

    recipe = Recipe(
        kind="int8" if kind == "serving" else kind,
        workload="digits",
        inputs=inputs,
        settings={"seed": seed, "files": dict(files)},
    )
    return write(path, recipe, make=fill, now=NOW).path


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once: its migrations take longer than a test."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_registered_models()
    return path


class Home:
    """A folder with ledger, registry, key and evidence."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = Ledger(f"sqlite:///{path / 'ledger.db'}")

    def register(
        self,
        found: Mapping[str, Path],
        *,
        champion: str = "",
        name: str = "out",
        trigger: str = "manual",
    ) -> str:
        """Run the step as the component does."""
        given: dict[str, Any] = {kind.replace("-", "_"): p for kind, p in found.items()}
        return step.run(
            workload="digits",
            **given,
            champion=champion,
            rehearsal="",
            out=self.path / name / "package",
            infra_verdict=self.path / name / "infra",
            trigger=trigger,
            now=NOW,
        )

    def package(self, version: int) -> Bundle:
        return read(Path(package_of(self.ledger.entries("digits"), version)), kind="package")

    def stage(self, version: int) -> Stage:
        return stage_of(self.ledger.entries("digits"), version)


@pytest.fixture
def home(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home whose environment the step reads."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    Actor.create(tmp_path / "actor.pem", name="ada")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("PENSTOCK_LEDGER", f"sqlite:///{tmp_path / 'ledger.db'}")
    monkeypatch.setenv("PENSTOCK_STORE", str(tmp_path / "store"))
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "actor.pem"))
    MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").create_experiment(
        "digits", (tmp_path / "artifacts").as_uri()
    )
    held = Home(tmp_path)
    yield held
    held.ledger.close()


def test_what_the_gate_let_through_is_packaged_served_recorded_and_staged(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """One run: every document in the package, a real server's answers and a signature on record."""
    version = home.register(evidence(tmp_path / "stages"), trigger="drift")

    assert version == "1"
    assert home.stage(1) is Stage.STAGING
    package, entries = home.package(1), home.ledger.entries("digits")
    assert [e.kind for e in entries] == ["registered", "contract", "moved", "aliases"]
    assert {e.actor for e in entries} == {"ada"}
    assert set(package.manifest["files"]) >= {
        "model.onnx", "serving.json", "golden.json", "baseline.json", "contract.json",
        "lineage.json", "profile.json", "scores.json", "behaviours.json", "card.json", "card.html",
        "change.json", "change.html", "validation.json", "validation.html",
        "verdicts/data-verdict.json", "verdicts/equivalence.json", "verdicts/gate.json",
    }  # fmt: skip
    registered = entries[0].body
    assert registered["trigger"] == "drift"
    infra = registered["evidence"]["infra"]
    assert {c["outcome"] for c in infra["checks"]} == {"pass"}
    assert infra["package"] == package.digest
    assert infra["digest"] == read(tmp_path / "out" / "infra", kind="infra-verdict").digest
    assert datetime.fromisoformat(registered["keep_until"]) == NOW + DIGITS.retention
    assert package.json("lineage.json")["trained_by"] == "ada"
    said = capsys.readouterr().out
    assert MARK in said
    assert f"digits:1+{package.digest[7:19]}" in said


def test_asking_again_finds_the_version_and_starts_no_server(home: Home, tmp_path: Path):
    """A version that is on its way is found; nothing is entered, and nothing validated, twice."""
    found = evidence(tmp_path / "stages")
    home.register(found)
    before = home.ledger.entries("digits")

    again = home.register(found, name="again")

    assert again == "1"
    assert home.ledger.entries("digits") == before
    assert not (tmp_path / "again" / "infra").exists()


def test_no_pass_at_the_gate_is_refused_before_anything(home: Home, tmp_path: Path):
    """Inconclusive is no pass: no package, no version, no entry."""
    with pytest.raises(Refused, match="gate is inconclusive"):
        home.register(evidence(tmp_path / "stages", outcome="inconclusive"))

    assert not (tmp_path / "out").exists()
    assert home.ledger.entries() == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("raise ModuleNotFoundError('no module named kserve')", "infra validation is error"),
        ("raise SystemExit('not serving version 0: bad')", "infra validation is fail"),
    ],
)
def test_what_no_server_answers_with_is_not_registered(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, said: str
):
    """Neither a missing library nor a package that the server refuses leaves a version."""
    monkeypatch.setattr(infra, "PREDICTOR", (sys.executable, "-c", command))

    with pytest.raises(Refused, match=said):
        home.register(evidence(tmp_path / "stages"))

    assert home.ledger.entries() == []
    assert MlflowClient().search_registered_models() == []


def test_a_regulated_version_waits_for_a_signature_and_then_goes_on(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Registered, refused at the door, signed by a person, let in: the same version, one server."""
    regulated = replace(DIGITS, approval=Approval.PERSON)
    monkeypatch.setattr(workloads, "load", lambda _: regulated)
    found = evidence(tmp_path / "stages")

    with pytest.raises(Refused, match="penstock contract sign digits"):
        home.register(found)
    assert home.stage(1) is Stage.NONE
    contract = featurecontract.present(regulated)
    actor = Actor.load(tmp_path / "actor.pem")
    featurecontract.sign(home.ledger, regulated, contract, actor=actor, now=NOW)
    version = home.register(found, name="again")

    assert (version, home.stage(1)) == ("1", Stage.STAGING)
    assert not (tmp_path / "again" / "infra").exists()


@pytest.mark.parametrize("kind", list(MADE_FROM["gate"])[:-1])
def test_only_what_the_gate_has_judged_is_packaged(home: Home, tmp_path: Path, kind: str):
    """Any one bundle of another run beside a passing gate is refused, before any work."""
    judged, other = evidence(tmp_path / "one"), evidence(tmp_path / "two", seed=8)
    if kind in ("snapshot", "data-verdict"):
        other[kind] = bundles.bundle(tmp_path / kind, kind, lambda _: None, run="another").path

    with pytest.raises(BundleError, match=f"judged others: {kind} is digits-"):
        home.register({**judged, kind: other[kind]})

    assert not (tmp_path / "out").exists()
    assert home.ledger.entries() == []


def test_what_the_gate_judged_must_be_of_one_chain(home: Home, tmp_path: Path):
    """A gate that was given a model and a graph of two runs lets in neither."""
    judged, other = evidence(tmp_path / "one"), evidence(tmp_path / "two", seed=8)
    mixed = {**judged, "model": other["model"]}
    inputs = {k: read(p).fingerprint for k, p in mixed.items() if k != "gate"}
    gate = read(judged["gate"])
    files = {name: gate.json(name) for name in gate.manifest["files"]}
    mixed["gate"] = _written(tmp_path / "gate", "gate", files, 7, inputs)

    with pytest.raises(BundleError, match="not of one chain: model was made from"):
        home.register(mixed)


def promoted(home: Home, version: int) -> None:
    """Carry a version to all users."""
    actor = Actor.load(home.path / "actor.pem")
    for to in (Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION):
        home.ledger.move(
            workload="digits", version=version, to=to, reason="t", actor=actor, now=NOW
        )


def test_nobody_gets_past_the_champion_by_leaving_it_out(home: Home, tmp_path: Path):
    """With a champion, a gate that compared with nobody lets nothing in."""
    home.register(evidence(tmp_path / "stages"))
    promoted(home, 1)

    with pytest.raises(Refused, match=r"compared with nobody, and version 1.*run the gate again"):
        home.register(evidence(tmp_path / "second", seed=8), name="second")

    assert home.stage(2) is Stage.NONE


def test_the_aliases_follow_and_a_registry_that_does_not_answer_is_said(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """When the step ends the challenger has its alias.

    Without MLflow the version stands all the same, and what to do is in the step's line.
    """
    home.register(evidence(tmp_path / "stages"))
    assert MlflowClient().get_registered_model("digits").aliases == {"challenger": 1}
    promoted(home, 1)
    first = home.package(1)
    capsys.readouterr()

    def down() -> Any:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(step, "mlflow", down)
    anew = evidence(tmp_path / "anew", champion=first.fingerprint)
    assert home.register(anew, champion=str(first.path), name="again") == "1"

    said = capsys.readouterr().out
    assert "nobody answers" in said
    assert "penstock register reconcile digits" in said


def test_a_lost_champion_blocks_no_registration(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Its own candidate becomes a new version, which can serve in its place; the loss is said."""
    found = evidence(tmp_path / "stages")
    home.register(found)
    promoted(home, 1)
    first, kept = home.package(1), tmp_path / "kept"
    shutil.copytree(first.path, kept)
    first.file("card.md").write_text("edited")
    anew = evidence(tmp_path / "anew", champion=first.fingerprint)

    assert home.register(anew, champion=str(kept), name="again") == "2"

    assert home.stage(2) is Stage.STAGING
    assert "champion 1 is lost" in capsys.readouterr().out


def test_the_champion_must_be_the_one_that_the_gate_saw(home: Home, tmp_path: Path):
    """A change document against another model than was judged would be about nothing."""
    home.register(evidence(tmp_path / "stages"))
    promoted(home, 1)
    first = home.package(1)
    right = evidence(tmp_path / "second", seed=8, champion=first.fingerprint)

    with pytest.raises(BundleError, match="run the gate again"):
        home.register(right, champion="")
    with pytest.raises(BundleError, match="run the gate again"):
        home.register(evidence(tmp_path / "third", seed=8), champion=str(first.path))
    version = home.register(right, champion=str(first.path), name="second")

    assert version == "2"
    assert home.package(2).json("change.json")["against"] is not None


def test_what_serves_is_found_though_it_was_judged_against_itself(home: Home, tmp_path: Path):
    """The champion's own candidate, judged anew, stays its version; no server is started."""
    home.register(evidence(tmp_path / "stages"))
    promoted(home, 1)
    first = home.package(1)
    anew = evidence(tmp_path / "anew", champion=first.fingerprint)

    version = home.register(anew, champion=str(first.path), name="again")

    assert version == "1"
    assert not (tmp_path / "again" / "infra").exists()


def test_nobody_registers_without_a_key(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Who acts is a key, and it is asked for before any work."""
    monkeypatch.delenv(KEY_VARIABLE)

    with pytest.raises(KeyFileError, match="PENSTOCK_KEY"):
        home.register(evidence(tmp_path / "stages"))

    assert not (tmp_path / "out").exists()


def test_a_ledger_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Nothing is written to a ledger that nobody named."""
    monkeypatch.delenv("PENSTOCK_LEDGER", raising=False)

    with pytest.raises(ValueError, match="PENSTOCK_LEDGER is not set"):
        step.ledger_url()


def test_a_workload_that_asks_for_signatures_is_registered_signed_or_not_at_all(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without a key nothing is made; with one the real server verified what is on record."""
    asks = replace(DIGITS, endpoint=Endpoint(signed=True))
    monkeypatch.setattr(workloads, "load", lambda _: asks)
    found = evidence(tmp_path / "stages")
    monkeypatch.delenv(signing.KEY_VARIABLE, raising=False)
    with pytest.raises(Refused, match="serves signed packages only"):
        home.register(found)
    assert not (tmp_path / "out").exists()
    private, public = keys(tmp_path)
    monkeypatch.setenv(signing.KEY_VARIABLE, str(private))

    monkeypatch.setenv(signing.VERIFIER_VARIABLE, str(keys(tmp_path, name="other")[1]))
    with pytest.raises(Refused, match=r"infra validation is fail.*is not what the holder of"):
        home.register(found)
    monkeypatch.setenv(signing.VERIFIER_VARIABLE, str(public))
    home.register(found)

    verify(home.package(1).path, public)


def test_a_version_of_before_is_signed_when_it_is_asked_for_again(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The same version, now signed: a key may come later than the model."""
    found = evidence(tmp_path / "stages")
    home.register(found)
    private, public = keys(tmp_path)
    monkeypatch.setenv(signing.KEY_VARIABLE, str(private))

    assert home.register(found, name="again") == "1"

    verify(home.package(1).path, public)
