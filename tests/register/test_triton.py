"""Laws of a model repository for Triton: its own schema takes it, and it is warm and right."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
import yaml
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from penstock import bundle
from penstock.bundle import Bundle, BundleError, Recipe, Summary, hash_file, write_json
from penstock.cli.home import HomeError
from penstock.cli.triton import triton as command
from penstock.endpoint import Endpoint
from penstock.ledger import REGISTERED, Ledger, Stage
from penstock.register.triton import Unfit, write
from penstock.register.tritoncheck import NOBODY
from penstock.register.tritonconfig import Model, Platform, Tensor, buckets, config
from penstock.register.tritonstart import CLOSED
from penstock.runtimes.onnxruntime import OnnxModel
from penstock.runtimes.plan import PlanManifest, PlanMismatch, hash_bytes
from tests.bundles import NOW
from tests.packages import DIGITS, make_package, wait_for
from tests.people import person

DATA = b"the bytes of a plan, which nobody loads here"


def _schema() -> Any:
    """Return Triton's schema alone: its client declares KServe's messages for a second time."""
    client = importlib.util.find_spec("tritonclient")
    assert client is not None
    assert client.submodule_search_locations
    path = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_schema", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


triton = _schema()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A package of a linear graph."""
    return make_package(tmp_path_factory.mktemp("triton") / "package")


def manifest(graph: Path, **over: Any) -> PlanManifest:
    """Return the manifest of a plan of a graph, for one kind of GPU."""
    made = PlanManifest(
        backend="tensorrt",
        version="10.16.1.11",
        platform="linux-x86_64",
        cuda="13",
        driver="580.95",
        gpu="NVIDIA H100",
        compute_capability="9.0",
        runs_on=("9.0",),
        plan=hash_bytes(DATA),
        onnx=hash_file(graph),
        timing_cache=None,
        profiles={"image": ((1, 1, 8, 8), (8, 1, 8, 8), (64, 1, 8, 8))},
        precision="int8",
        version_compatible=False,
        hardware_compatibility="none",
        peak_memory_mb=1.0,
        build_s=1.0,
    )
    return replace(made, **over)


def again(path: Path, package: Bundle, change: Callable[[Path], None]) -> Bundle:
    """Write the package again, with a change."""

    def make(folder: Path) -> Summary:
        for name in package.manifest["files"]:
            (folder / name).write_bytes(package.file(name).read_bytes())
        change(folder)
        return Summary("pass", "made for a test")

    return bundle.write(path, Recipe(kind="package", workload="digits"), make=make, now=NOW)


def planned(path: Path, package: Bundle, **over: Any) -> Bundle:
    """Write the package again with a plan."""

    def change(folder: Path) -> None:
        (folder / "tensorrt.plan").write_bytes(DATA)
        made = manifest(package.file("model.onnx"), **over)
        write_json(folder / "tensorrt.plan.json", asdict(made))

    return again(path, package, change)


def parsed(folder: Path) -> Any:
    """Return a model's configuration, read by Triton's published schema; an unknown field fails."""
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, triton.ModelConfig())


def test_the_published_schema_takes_the_configuration_and_it_is_the_graphs(
    package: Bundle, tmp_path: Path
):
    """Names, types and sizes are those of the graph, as onnx reads it, without the batch."""
    written = write(package, tmp_path / "out")

    held = parsed(tmp_path / "out" / "models" / "digits")
    graph = onnx.load(package.file("model.onnx")).graph
    for said, tensor in [(held.input, graph.input[0]), (held.output, graph.output[0])]:
        sizes = [d.dim_value for d in tensor.type.tensor_type.shape.dim][1:]
        assert [(one.name, list(one.dims)) for one in said] == [(tensor.name, sizes)]
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert said[0].data_type == triton.TYPE_FP32
    assert (held.name, held.platform, held.backend) == ("digits", "onnxruntime_onnx", "onnxruntime")
    assert held.max_batch_size == 64
    assert list(held.version_policy.specific.versions) == [1]
    assert held.instance_group[0].kind == triton.ModelInstanceGroup.KIND_CPU
    assert written.tensorrt is None


def test_the_graph_is_the_packages_own(package: Bundle, tmp_path: Path):
    """The model's file is byte for byte what the package was registered with."""
    write(package, tmp_path / "out")

    served = tmp_path / "out" / "models" / "digits" / "1" / "model.onnx"
    assert hash_file(served) == hash_file(package.file("model.onnx"))


def test_the_batcher_waits_for_nobody_and_its_queue_ends(package: Bundle, tmp_path: Path):
    """What waits is run together at once; too much is refused, and so is what came too late."""
    write(package, tmp_path / "out")

    batching = parsed(tmp_path / "out" / "models" / "digits").dynamic_batching
    assert batching.max_queue_delay_microseconds == 0
    policy = batching.default_queue_policy
    assert policy.timeout_action == triton.ModelQueuePolicy.REJECT
    assert policy.default_timeout_microseconds == 1_000_000
    assert not policy.allow_timeout_override
    assert policy.max_queue_size == Endpoint().max_in_flight


@given(rows=st.integers(1, 5000))
def test_every_batch_that_can_be_formed_has_its_bucket_warm(rows: int):
    """Each size up to the largest lies at most a doubling below a size that was run."""
    warm = buckets(rows)

    assert warm == sorted(set(warm))
    assert warm[0] == 1
    assert warm[-1] == rows
    assert all(large <= 2 * small for small, large in itertools.pairwise(warm))


def test_warm_up_runs_every_bucket_with_golden_rows(package: Bundle, tmp_path: Path):
    """Each sample names a file of one real row, as the transform makes it, in little-endian."""
    write(package, tmp_path / "out")

    folder = tmp_path / "out" / "models" / "digits"
    held = parsed(folder)
    assert [sample.batch_size for sample in held.model_warmup] == buckets(held.max_batch_size)
    model = OnnxModel(package.file("model.onnx"))
    answers = [request["logits"] for request in package.json("golden.json")["requests"]]
    used = set()
    for sample in held.model_warmup:
        assert sample.count >= 1
        assert set(sample.inputs) == {held.input[0].name}
        told = sample.inputs[held.input[0].name]
        assert list(told.dims) == list(held.input[0].dims)
        assert told.data_type == held.input[0].data_type
        data = np.fromfile(folder / "warmup" / told.input_data_file, "<f4")
        logits = model.run(data.reshape(1, *told.dims))[0]
        used |= {n for n, answer in enumerate(answers) if np.allclose(logits, answer, atol=1e-3)}
    assert used == set(range(len(answers)))


def test_nothing_but_what_is_right_is_served(package: Bundle, tmp_path: Path):
    """Both ways to start it are strict, load nothing later, and the script is heard here only."""
    write(package, tmp_path / "out", image="example/triton@sha256:12")

    script = (tmp_path / "out" / "start.sh").read_text(encoding="utf-8")
    runtime = yaml.safe_load((tmp_path / "out" / "runtime.yaml").read_text(encoding="utf-8"))
    (container,) = runtime["spec"]["containers"]
    for option in (
        "--strict-readiness=true",
        "--exit-on-error=true",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
    ):
        assert option in script
        assert option in container["args"]
    assert "--http-address=127.0.0.1" in script
    assert "--http-restricted-api=" in script
    assert container["image"] == "example/triton@sha256:12"
    assert container["startupProbe"]["exec"]["command"][1].endswith("digits/warmup/check.py")
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    subprocess.run(["sh", "-n", str(tmp_path / "out" / "start.sh")], check=True)


def test_a_plan_is_found_only_by_the_gpus_it_was_built_for(package: Bundle, tmp_path: Path):
    """Without a default file another GPU finds no plan, rather than one that is not for it."""
    written = write(planned(tmp_path / "package", package), tmp_path / "out")

    folder = tmp_path / "out" / "models" / "digits"
    held = parsed(folder)
    assert (held.platform, held.backend) == ("tensorrt_plan", "tensorrt")
    assert dict(held.cc_model_filenames) == {"9.0": "model_sm90.plan"}
    assert not held.default_model_filename
    assert [path.name for path in (folder / "1").iterdir()] == ["model_sm90.plan"]
    assert (folder / "1" / "model_sm90.plan").read_bytes() == DATA
    assert held.instance_group[0].kind == triton.ModelInstanceGroup.KIND_GPU
    assert "parameters" not in (folder / "config.pbtxt").read_text()
    runtime = yaml.safe_load((tmp_path / "out" / "runtime.yaml").read_text(encoding="utf-8"))
    assert runtime["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert written.tensorrt == "10.16.1.11"


def test_a_plan_for_later_gpus_is_the_default(package: Bundle, tmp_path: Path):
    """A plan that may run on more than one kind of GPU is not bound to one."""
    over = {"runs_on": ("8.0+",), "hardware_compatibility": "ampere_plus"}
    write(planned(tmp_path / "package", package, **over), tmp_path / "out")

    held = parsed(tmp_path / "out" / "models" / "digits")
    assert held.default_model_filename == "model.plan"
    assert not held.cc_model_filenames


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"plan": hash_bytes(b"another")}, "was altered"),
        ({"onnx": hash_bytes(b"another")}, "built from another graph"),
        ({"backend": "tensorrt-rtx"}, "Triton loads plans of tensorrt"),
        ({"platform": "windows-amd64"}, "was built for windows-amd64"),
        ({"runs_on": ()}, "compute capability"),
        ({"profiles": {"image": ((1, 1, 8, 8), (8, 1, 8, 8), (16, 1, 8, 8))}}, "1 to 16 rows"),
        ({"profiles": {"image": ((2, 1, 8, 8), (8, 1, 8, 8), (64, 1, 8, 8))}}, "2 to 64 rows"),
        ({"profiles": {"x": ((1, 1, 8, 8), (8, 1, 8, 8), (64, 1, 8, 8))}}, "the graph takes"),
    ],
)
def test_a_wrong_plan_is_refused_and_nothing_is_written(
    package: Bundle, tmp_path: Path, over: dict[str, Any], said: str
):
    """A plan of other bytes, another graph, library, system or other batches never gets there."""
    with pytest.raises(PlanMismatch, match=said):
        write(planned(tmp_path / "package", package, **over), tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_plan_that_there_is_not_is_refused(package: Bundle, tmp_path: Path):
    """Asking for a plan never ends with the graph."""
    with pytest.raises(Unfit, match=r"has no tensorrt\.plan; run the engine stage"):
        write(package, tmp_path / "out", platform=Platform.PLAN)


def test_a_package_that_must_be_signed_is_refused_until_somebody_checked(
    package: Bundle, tmp_path: Path
):
    """Triton checks no signature, so whoever writes for it says that they have."""
    contract = replace(DIGITS, endpoint=Endpoint(signed=True))
    signed = again(
        tmp_path / "package", package, lambda f: write_json(f / "serving.json", contract.to_dict())
    )

    with pytest.raises(Unfit, match="serves signed packages only"):
        write(signed, tmp_path / "out")
    write(signed, tmp_path / "out", signature_checked=True)
    assert (tmp_path / "out" / "start.sh").exists()


def test_a_graph_that_answers_otherwise_is_refused(tmp_path: Path):
    """What is not right here is not written for a server elsewhere."""
    wrong = make_package(tmp_path / "package", golden_shift=1.0)

    with pytest.raises(Unfit, match="golden answers are 1 apart"):
        write(wrong, tmp_path / "out")


def test_a_folder_with_something_in_it_is_left_alone(package: Bundle, tmp_path: Path):
    """Whatever lies there is somebody's."""
    (tmp_path / "kept").write_text("kept")

    with pytest.raises(Unfit, match="is not empty; name a new folder"):
        write(package, tmp_path)
    assert (tmp_path / "kept").read_text() == "kept"


names = st.text("abc\"\\\n'{}: é", min_size=1, max_size=12)


@given(names, st.lists(st.integers(1, 1 << 40), max_size=4), st.integers(1, 300))
def test_any_name_is_written_so_that_triton_reads_it(name: str, dims: list[int], rows: int):
    """Quotes, lines and letters of any kind come back as they were."""
    tensor = Tensor(name=name, dims=tuple(dims))
    model = Model(
        name=name,
        platform=Platform.ONNX,
        given=tensor,
        made=tensor,
        rows=rows,
        endpoint=Endpoint(),
        warmed_by=["golden-0.bin"],
    )

    held = text_format.Parse(config(model), triton.ModelConfig())

    assert (held.name, held.input[0].name, list(held.output[0].dims)) == (name, name, dims)
    assert held.model_warmup[-1].batch_size == rows


@pytest.mark.parametrize("gpu", [False, True])
def test_the_script_outside_of_the_image_says_how_to_start_it_inside(
    package: Bundle, tmp_path: Path, gpu: bool
):
    """One line to copy, with the image and the folder, and a code that is no success."""
    folder = tmp_path / "with space"
    write(package, folder, image="example/triton@sha256:12", gpu=gpu)

    ended = started(folder, "/usr/bin:/bin")

    assert ended.returncode == 127
    (line,) = re.findall("^docker run .*", ended.stderr, re.MULTILINE)
    assert line.endswith(f"-v '{folder}':/triton:ro example/triton@sha256:12 /triton/start.sh")
    assert "--network host" in line
    assert ("--gpus all" in line) == gpu


STAYS = "trap 'exit 0' TERM; touch up; for _ in $(seq 500); do sleep 0.02; done; exit 9"
"""A server that serves until it is told to end, or nobody does so for ten seconds."""


def inside(folder: Path, *, triton: str, check: str) -> str:
    """Return a path of programs like the image's; these stand in for the server and the check."""
    folder.mkdir()
    for name, line in (("tritonserver", triton), ("python3", check)):
        program = folder / name
        program.write_text(f'#!/bin/sh\ncd "{folder}"\necho "$0" "$@" >> said\n{line}\n')
        program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_the_script_starts_triton_on_the_repository_and_asks_the_golden_rows(
    package: Bundle, tmp_path: Path
):
    """It waits until somebody listens, asks, and ends as Triton does."""
    write(package, tmp_path / "out")
    once = "[ -e came ] && { touch right; exit 0; }; touch came; exit 3"
    path = inside(
        tmp_path / "bin", triton="until [ -e right ]; do sleep 0.02; done; exit 7", check=once
    )

    ended = started(tmp_path / "out", path)

    assert ended.returncode == 7, ended.stderr
    triton, *checks = (tmp_path / "bin" / "said").read_text().splitlines()
    assert f"--model-repository={tmp_path / 'out' / 'models'} " in triton
    assert triton.endswith(" --log-verbose=1")
    asked = tmp_path / "out" / "models" / "digits" / "warmup" / "check.py"
    assert checks == [f"{tmp_path / 'bin' / 'python3'} {asked} http://127.0.0.1:8080"] * 2


@pytest.mark.parametrize(
    ("triton", "check", "code", "said"),
    [
        (STAYS, "echo golden row 1 is wrong >&2; exit 1", 1, "golden row 1 is wrong"),
        ("exit 5", "exit 3", 5, ""),
    ],
)
def test_the_script_ends_where_triton_is_wrong_or_gone(
    package: Bundle, tmp_path: Path, triton: str, check: str, code: int, said: str
):
    """Nothing goes on serving after a wrong answer; a start that failed ends as Triton ended."""
    write(package, tmp_path / "out")

    ended = started(tmp_path / "out", inside(tmp_path / "bin", triton=triton, check=check))

    assert (ended.returncode, ended.stderr.strip()) == (code, said)


def test_a_signal_to_the_script_ends_triton(package: Bundle, tmp_path: Path):
    """A container is stopped by a signal to its first process, which is the script."""
    write(package, tmp_path / "out")
    path = inside(tmp_path / "bin", triton=STAYS, check="exit 0")

    script = subprocess.Popen([str(tmp_path / "out" / "start.sh")], env={"PATH": path})
    wait_for((tmp_path / "bin" / "up").exists, 10)
    script.terminate()

    assert script.wait(10) == 0


@pytest.mark.parametrize("name", ["models/digits/1/model.onnx", "models/digits/2/model.onnx"])
def test_a_file_that_is_another_or_one_too_many_is_not_served(
    package: Bundle, tmp_path: Path, name: str
):
    """What was written is what is started: Triton loads whatever lies in the folder."""
    write(package, tmp_path / "out")
    (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / name).write_bytes(b"another graph")

    ended = started(tmp_path / "out", inside(tmp_path / "bin", triton="exit 0", check="exit 0"))

    assert ended.returncode == 1
    assert "are not those that SHA256SUMS lists" in ended.stderr
    assert not (tmp_path / "bin" / "said").exists()


def test_a_pod_closes_what_the_script_closes(package: Bundle, tmp_path: Path):
    """The same interfaces, behind a key that is another at each start; the options stay."""
    write(package, tmp_path / "out")
    runtime = yaml.safe_load((tmp_path / "out" / "runtime.yaml").read_text(encoding="utf-8"))
    (container,) = runtime["spec"]["containers"]
    # Kubernetes would take it for a variable of its own.
    assert "$(" not in " ".join(container["args"])
    path = inside(tmp_path / "bin", triton="", check="")

    for _ in range(2):
        subprocess.run(container["args"], env={"PATH": path}, check=True, timeout=60)

    starts = (tmp_path / "bin" / "said").read_text().splitlines()
    keys = [set(re.findall("=([a-z,-]+):closed=([0-9a-f]{64})", start)) for start in starts]
    assert [len(held) for held in keys] == [1, 1]
    assert keys[0] != keys[1]
    assert {closed for closed, _ in keys[0]} == {CLOSED}
    for start in starts:
        assert "--http-restricted-api=" in start
        assert "--grpc-restricted-protocol=" in start
        assert "--model-repository=/mnt/models --model-control-mode=none" in start


def started(folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Run a repository's script with the programs of these folders."""
    return subprocess.run(
        [str(folder / "start.sh"), "--log-verbose=1"],
        env={"PATH": path},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextmanager
def answering(
    model: OnnxModel, *, shift: float = 0.0, rows: int = 1, refusal: bytes = b""
) -> Iterator[str]:
    """Serve a graph over v2, as Triton does; move answers to so many rows, or refuse."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (tensor,) = json.loads(self.rfile.read(int(self.headers["content-length"])))["inputs"]
            data = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
            moved = shift if len(data) >= rows else 0.0
            made = (model.run(data) + np.float32(moved)).ravel().tolist()
            shape = [len(data), 10]
            outputs = [{"name": "logits", "datatype": "FP32", "shape": shape, "data": made}]
            body = refusal or json.dumps({"outputs": outputs}).encode()
            known = self.path == "/v2/models/digits/infer" and not refusal
            self.send_response(200 if known else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("shift", "code"), [(0.0, 0), (0.1, 1), (float("nan"), 1)])
def test_the_check_passes_only_answers_as_recorded(
    package: Bundle, tmp_path: Path, shift: float, code: int
):
    """The startup probe, run by itself as in Triton's image, ends with 1 when a row is wrong."""
    write(package, tmp_path / "out")
    check = tmp_path / "out" / "models" / "digits" / "warmup" / "check.py"

    with answering(OnnxModel(package.file("model.onnx")), shift=shift) as url:
        ended = subprocess.run(
            [sys.executable, "-I", str(check), url], check=False, capture_output=True, timeout=60
        )

    assert ended.returncode == code, ended.stderr


def test_the_check_finds_what_is_wrong_in_a_batch_only(package: Bundle, tmp_path: Path):
    """Rows that are asked together are computed otherwise than each alone."""
    write(package, tmp_path / "out")
    check = tmp_path / "out" / "models" / "digits" / "warmup" / "check.py"

    with answering(OnnxModel(package.file("model.onnx")), shift=0.1, rows=2) as url:
        ended = subprocess.run(
            [sys.executable, "-I", str(check), url], check=False, capture_output=True, timeout=60
        )

    assert ended.returncode == 1
    said = [line.split(":")[0] for line in ended.stderr.decode().splitlines()]
    assert said == [f"golden row {n} of digits in a batch of 3" for n in (1, 2, 3)]


def test_the_check_prints_what_the_server_said(package: Bundle, tmp_path: Path):
    """The server's own sentence says what to mend; the status alone does not."""
    write(package, tmp_path / "out")
    check = tmp_path / "out" / "models" / "digits" / "warmup" / "check.py"
    refusal = b'{"error": "Request for unknown model: digits is not found"}'

    with answering(OnnxModel(package.file("model.onnx")), refusal=refusal) as url:
        ended = subprocess.run(
            [sys.executable, "-I", str(check), url], check=False, capture_output=True, timeout=60
        )

    assert ended.returncode == 1
    assert ended.stderr.strip() == b"digits was refused with 404: " + refusal


def test_the_check_fails_where_nobody_answers(package: Bundle, tmp_path: Path):
    """No answer is no pass; the code is one of its own, so that whoever starts it can wait."""
    write(package, tmp_path / "out")
    check = tmp_path / "out" / "models" / "digits" / "warmup" / "check.py"

    ended = subprocess.run(
        [sys.executable, "-I", str(check), "http://127.0.0.1:1"],
        check=False,
        capture_output=True,
        timeout=60,
    )

    assert ended.returncode == NOBODY
    assert b"no answer to compare" in ended.stderr


def called(*arguments: str) -> Result:
    """Run the command alone, as the command line's own module adds it."""
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


def test_the_command_says_what_triton_is_asked_with(package: Bundle, tmp_path: Path):
    """The transform does not run in Triton, and the command says so."""
    ended = called(str(package.path), "--out", str(tmp_path / "out"))

    assert ended.exit_code == 0, ended.output
    assert "image [1, 8, 8], after the transform" in ended.output
    assert (tmp_path / "out" / "models" / "digits" / "config.pbtxt").exists()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, Bundle]:
    """A home in which version 1 serves and version 2 is let in; return their packages."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PENSTOCK_LEDGER", raising=False)
    monkeypatch.delenv("PENSTOCK_LEDGER_HEAD", raising=False)
    (tmp_path / "home").mkdir()
    ledger, tester = Ledger(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}"), person()
    served = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)
    made = {n: make_package(tmp_path / "home" / str(n), seed=n) for n in (1, 2)}
    for version, stages in ((1, served), (2, served[:1])):
        body = {"digest": made[version].digest, "package": str(made[version].path)}
        ledger.append(
            workload="digits", version=version, kind=REGISTERED, actor=tester, now=NOW,
            body={**body, "fingerprint": made[version].fingerprint, "rehearsal": None},
        )  # fmt: skip
        for stage in stages:
            ledger.move(
                workload="digits", version=version, to=stage, reason="evidence was good",
                actor=tester, now=NOW,
            )  # fmt: skip
    ledger.close()
    return made


@pytest.mark.parametrize(("given", "version"), [("digits", 1), ("digits@2", 2)])
def test_a_workload_is_its_champion_or_the_version_that_is_named(
    home: dict[int, Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    version: int,
):
    """Nobody has to know where packages lie, and a folder of the same name changes nothing."""
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)

    ended = called(given, "--out", str(tmp_path / "out"))

    assert ended.exit_code == 0, (ended.output, ended.exception)
    graph = tmp_path / "out" / "models" / "digits" / "1" / "model.onnx"
    assert hash_file(graph) == hash_file(home[version].file("model.onnx"))


@pytest.mark.usefixtures("home")
def test_a_package_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path):
    """A wrong name is no reason to run a stage again."""
    out = str(tmp_path / "out")

    folder, version, nothing = (called(g, "--out", out) for g in ("runs/x", "digits@7", "credit"))

    assert isinstance(folder.exception, BundleError)
    assert "'runs/x' is neither a folder nor a workload; name" in str(folder.exception)
    assert "digits" in str(folder.exception)
    assert "registered are 1, 2 (champion 1" in str(version.exception)
    assert isinstance(nothing.exception, HomeError)
    assert "type: penstock run credit" in str(nothing.exception)
