"""Laws of the registry, on MLflow over SQLite, over PostgreSQL and behind a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.models import Model

from penstock.bundle import BundleError, read
from penstock.register.mlflow import MlflowRegistry
from penstock.register.registry import described
from tests.register import standin


def add(registry: MlflowRegistry, workload: str, path: Path, **over: str) -> int:
    """Put a package into the registry past the ledger."""
    packaged = standin.package(path, workload=workload, **over)
    tags = described(packaged, standin.EVIDENCE)
    return registry.add(workload, packaged, experiment="20260105-1", tags=tags)


def test_a_version_says_what_it_is(registry: MlflowRegistry, workload: str, tmp_path: Path):
    """Every field that a release asks for is a tag, a parameter or a metric of the version."""
    version = add(registry, workload, tmp_path / "p", rehearsal="errors")

    kept = MlflowClient().get_model_version(workload, str(version))
    assert (version, kept.description) == (1, f"# {workload}: gate pass\n")
    packaged = read(tmp_path / "p")
    ours = {name.removeprefix("penstock."): value for name, value in kept.tags.items()}
    assert {n: v for n, v in ours.items() if n not in ("inputs", "outputs")} == {
        "fingerprint": packaged.fingerprint,
        "digest": packaged.digest,
        "owner": "someone",
        "seed": "7",
        "data": "digits-snapshot",
        "data_digest": "sha256:2",
        "feature_definitions": "sha256:3",
        "code": "0123abc",
        "image": '{"register": "sha256:4"}',
        "gate": "pass",
        "latency_p99_ms": "1.5",
        "peak_memory_mb": "80.0",
        "cores": "1",
        "keep_until": "2027-01-05T00:00:00+00:00",
        "rehearsal": "errors",
    }
    model = MlflowClient().get_logged_model(kept.source.removeprefix("models:/"))
    assert (model.status, model.source_run_id) == ("READY", kept.run_id)
    assert {m.key: m.value for m in model.metrics} == {"accuracy": 0.5}
    assert model.params["epochs"] == "2"


def test_a_card_may_be_long(registry: MlflowRegistry, workload: str, tmp_path: Path):
    """MLflow's page shows its beginning and says where the rest is; the package has it all."""
    add(registry, workload, tmp_path / "p", card="word " * 2000)

    shown = MlflowClient().get_model_version(workload, "1").description
    assert (len(shown), shown.startswith(f"# {workload}: gate pass")) == (5000, True)
    assert shown.endswith("card.md")
    assert len(registry.package(workload, 1).file("card.md").read_text()) > 10_000


def test_the_run_of_a_version_lies_below_its_pipeline(
    registry: MlflowRegistry, workload: str, tmp_path: Path
):
    """Parameters and metrics are those of the lineage; what is no number is left to the package."""
    add(registry, workload, tmp_path / "p")

    client = MlflowClient()
    run = client.get_run(client.get_model_version(workload, "1").run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"accuracy": 0.5}
    assert run.data.params == {"epochs": "2", "model": "m", "seed": "7", "data": "digits-snapshot"}
    above = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert above.data.tags["penstock.run"] == "20260105-1"


def test_mlflow_reads_the_signature(registry: MlflowRegistry, workload: str, tmp_path: Path):
    """What MLflow's page shows of inputs and outputs is what the served model takes and gives."""
    add(registry, workload, tmp_path / "p")

    folder = download_artifacts(f"models:/{workload}/1", dst_path=str(tmp_path / "down"))
    signature = Model.load(folder).signature
    shown = [
        [(t.name, str(t.type), t.shape) for t in tensors.inputs]
        for tensors in (signature.inputs, signature.outputs)
    ]
    assert shown == [
        [("pixels", "float32", (-1, 64)), ("age", "float64", (-1,))],
        [("label", "int64", (-1,)), ("probability", "float32", (-1, 10))],
    ]


def test_the_package_comes_back_as_it_was(registry: MlflowRegistry, workload: str, tmp_path: Path):
    """Another machine gets the same bytes; asked twice, the copy in use is left in its place."""
    add(registry, workload, tmp_path / "p")

    first = registry.package(workload, 1)
    before = (first.path / "manifest.json").stat().st_ino
    again = registry.package(workload, 1)

    assert first.path == again.path != tmp_path / "p"
    assert (first.path / "manifest.json").stat().st_ino == before
    assert read(first.path).digest == read(tmp_path / "p").digest


def test_an_altered_artifact_is_not_handed_out(
    registry: MlflowRegistry, workload: str, tmp_path: Path, artifacts: Path
):
    """A byte changed where the registry keeps it is noticed, though a good copy was fetched."""
    add(registry, workload, tmp_path / "p")
    registry.package(workload, 1)
    for card in artifacts.rglob("card.md"):
        if workload in card.read_text():
            card.write_text(f"# {workload}: gate pass, really\n")

    with pytest.raises(BundleError, match=r"card\.md"):
        registry.package(workload, 1)


def test_another_whole_package_in_its_place_is_not_handed_out(
    registry: MlflowRegistry, workload: str, tmp_path: Path, artifacts: Path
):
    """A bundle that is whole is still not the one that was registered."""
    add(registry, workload, tmp_path / "p")
    other = standin.package(tmp_path / "other", workload=workload, model="another")
    for card in list(artifacts.rglob("card.md")):
        if workload in card.read_text():
            for path in (p for p in other.path.rglob("*") if p.is_file()):
                (card.parent / path.relative_to(other.path)).write_bytes(path.read_bytes())

    with pytest.raises(BundleError, match="It was replaced"):
        registry.package(workload, 1)


def test_aliases_follow_and_leave(registry: MlflowRegistry, workload: str, tmp_path: Path):
    """An alias names its version, and is taken away when it names nothing."""
    add(registry, workload, tmp_path / "p")

    registry.point(workload, {"champion": 1, "standby": None})
    first = registry.state(workload).aliases
    registry.point(workload, {"champion": None})

    assert first == {"champion": 1}
    assert registry.state(workload).aliases == {}


def test_a_registry_without_the_workload_is_empty(registry: MlflowRegistry, workload: str):
    """Nothing was registered: no version, no alias, nothing begun."""
    state = registry.state(workload)

    assert (state.versions, state.aliases, state.unfinished) == ((), {}, {})


def test_mlflow_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch):
    """MLflow would make a folder wherever the command was run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI is not set"):
        MlflowRegistry()


@pytest.mark.parametrize("backend", ["server"], indirect=True)
def test_a_server_needs_a_place_for_copies(
    registry: MlflowRegistry, workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The ledger names where a package lies on this machine; that must outlast the process."""
    add(registry, workload, tmp_path / "p")
    monkeypatch.delenv("PENSTOCK_STORE")

    with pytest.raises(ValueError, match="PENSTOCK_STORE is not set"):
        registry.package(workload, 1)
