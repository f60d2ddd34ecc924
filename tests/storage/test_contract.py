"""Laws of publishing and fetching, the same for every kind of store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from penstock import storage
from penstock.bundle import MANIFEST, SIGNATURE, BundleError, read
from penstock.storage.moving import Moved
from penstock.storage.store import Store
from tests.storage.parts import TREE, contents, folder_of, forged, found, lay, lose, made


class Cut(Exception):
    """Stands for whatever ends a process half way."""


def counted(patch: pytest.MonkeyPatch, verb: str, *, cut_at: int | None = None) -> Counter[str]:
    """Count what a verb of the store is asked for, by name; end at one of the calls."""
    real, calls, lock = getattr(Store, verb), Counter[str](), threading.Lock()

    def asked(store: Store, *given: Any, **named: Any) -> Any:
        name = next(a for a in given if isinstance(a, str))
        with lock:
            if calls.total() == cut_at:
                raise Cut
            calls[name] += 1
        return real(store, *given, **named)

    patch.setattr(Store, verb, asked)
    return calls


def test_what_was_published_is_fetched_byte_for_byte(root: Store, tmp_path: Path):
    """Nested, empty, of any name, measured and signed: the copy is the bundle."""
    bundle = made(tmp_path / "p", signed=True)

    address = storage.publish(bundle, root)
    held = storage.fetch(folder_of(root, address), tmp_path / "cache", kind="package")

    assert contents(held.path) == contents(bundle.path)
    assert read(held.path, kind="package") == held
    assert (held.digest, held.fingerprint) == (bundle.digest, bundle.fingerprint)
    assert address.startswith(str(root))
    assert address.split("/")[-2:] == ["digits", storage.name_of(bundle.manifest)]
    assert bundle.digest[7:19] in address


def test_it_is_published_once(root: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same bundle again, from elsewhere too, is found there; another has a place of its own."""
    address = storage.publish(made(tmp_path / "p"), root)
    sent = counted(monkeypatch, "put")

    assert storage.publish(made(tmp_path / "copy"), root) == address
    assert not sent
    other = storage.publish(made(tmp_path / "q", {**TREE, "model.onnx": b"other"}), root)
    assert other != address
    measured = {**TREE, "measured/latency.json": b"[2]"}
    assert storage.publish(made(tmp_path / "r", measured), root) not in (address, other)


def test_cut_off_anywhere_it_is_no_bundle_and_is_finished_later(
    root: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The manifest is last: until it is there, nothing is."""
    bundle = made(tmp_path / "p", signed=True)
    place = root.below("digits", storage.name_of(bundle.manifest))
    for n in range(len(TREE) + 2):
        with monkeypatch.context() as patch:
            counted(patch, "put", cut_at=0 if n == 0 else 1)
            with pytest.raises(Cut):
                storage.publish(bundle, root)
        with pytest.raises(BundleError, match=r"no manifest\.json.*publish it again"):
            storage.fetch(place, tmp_path / "cache")

    lay(place, "model.onnx", b"a part of it, as a stream that was closed early leaves")
    storage.publish(bundle, root)
    assert contents(storage.fetch(place, tmp_path / "cache").path) == contents(bundle.path)


BROKEN = {
    "altered": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "cut off": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "empty": lambda _data: b"",
    "lost": None,
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_broken_in_the_store_is_refused_with_what_to_do(
    root: Store, tmp_path: Path, how: str
):
    """By who fetches and by who publishes the same again; nothing of it stays in the cache."""
    bundle = made(tmp_path / "p")
    place = folder_of(root, storage.publish(bundle, root))
    name, change = "deep/er/weights", BROKEN[how]
    if change is None:
        lose(place, name)
    else:
        lay(place, name, change(found(place, name)))

    for _ in range(2):
        with pytest.raises(BundleError, match=f"{name} (is lost|is cut off|was altered).*remove"):
            storage.fetch(place, tmp_path / "cache")
        with pytest.raises(BundleError, match=f"{name} is not what was published.*remove that"):
            storage.publish(bundle, root)
    assert not (tmp_path / "cache" / storage.name_of(bundle.manifest)).exists()

    lay(place, name, TREE[name])
    assert contents(storage.fetch(place, tmp_path / "cache").path) == contents(bundle.path)


def test_a_manifest_of_another_kind_is_refused(root: Store, tmp_path: Path):
    """Damaged, resealed after an edit, of another bundle or of another kind: none is followed."""
    bundle = made(tmp_path / "p")
    place = folder_of(root, storage.publish(bundle, root))
    right = found(place, MANIFEST)

    def refused(match: str, **over: Any) -> None:
        with pytest.raises(BundleError, match=match):
            storage.fetch(place, tmp_path / "cache", **over)

    refused("is a package bundle; a snapshot was wanted", kind="snapshot")
    for damaged in (
        right[:-10],
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        right.replace(b"-", b"_"),
    ):
        lay(place, MANIFEST, damaged)
        refused("is not a manifest|was altered")
    forged(place, bundle, lambda m: m["files"].pop("model.onnx"))
    refused("another bundle than its name says")
    with pytest.raises(BundleError, match=r"manifest\.json is not what was published"):
        storage.publish(bundle, root)
    lay(place, MANIFEST, b" " * (17 << 20))
    with pytest.raises(storage.StoreError, match="is none of ours"):
        storage.fetch(place, tmp_path / "cache")


EVIL = ("../out", "/etc/out", "a/../../out", "a//b", "./a", "a\\b", "a\nb", "", ".", "C:/out",
        "manifest.json", "package.sig", "model.onnx/below")  # fmt: skip


def test_a_name_that_leads_out_of_the_folder_is_refused(root: Store, tmp_path: Path):
    """Whoever can write to the store cannot make us write elsewhere."""
    bundle, place = made(tmp_path / "p"), root.below("evil")
    entry = bundle.manifest["files"]["model.onnx"]
    for name in EVIL:
        forged(place, bundle, lambda m, name=name: m["files"].update({name: entry}))
        before = contents(tmp_path / "p")

        with pytest.raises(BundleError, match="outside its folder"):
            storage.fetch(place, tmp_path / "cache")
        assert not (tmp_path / "cache").exists()
        assert not (tmp_path / "out").exists()
        assert contents(tmp_path / "p") == before


def test_a_copy_that_is_whole_asks_nobody(
    root: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Rolling back needs no store; a copy that was damaged here is fetched anew."""
    bundle, cache = made(tmp_path / "p"), tmp_path / "cache"
    place = folder_of(root, storage.publish(bundle, root))
    held = storage.fetch(place, cache)

    asked = counted(monkeypatch, "read")
    assert storage.fetch(replace(place, fs=None), cache) == held  # pyright: ignore[reportArgumentType]
    assert not asked

    (held.path / "model.onnx").write_bytes(b"damaged")
    assert contents(storage.fetch(place, cache).path) == contents(bundle.path)
    shutil.rmtree(held.path)
    made(held.path, {"model.onnx": b"another, whole"})
    assert contents(storage.fetch(place, cache).path) == contents(bundle.path)


def test_a_fetch_that_was_cut_off_goes_on_where_it_was(
    root: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whole files are kept, and the part of a file that had come; what came wrong is not."""
    files = {f"f{n}": os.urandom(1000) for n in range(6)}
    bundle, cache = made(tmp_path / "p", files), tmp_path / "cache"
    place = folder_of(root, storage.publish(bundle, root))
    with monkeypatch.context() as patch:
        counted(patch, "get", cut_at=4)
        with pytest.raises(Cut):
            storage.fetch(place, cache)
    assert not (cache / storage.name_of(bundle.manifest)).exists()
    scratch = cache / f".part-{storage.name_of(bundle.manifest)}"
    kept = sorted(p.name for p in (scratch / "files").iterdir())
    left = sorted(set(files) - set(kept))
    # One more had come in part, and another is not as it was sent.
    (scratch / "begun" / left[0][1:]).write_bytes(files[left[0]][:400])
    (scratch / "begun" / left[1][1:]).write_bytes(b"x" * 400)

    told: list[Moved] = []
    fetched = counted(monkeypatch, "get")
    held = storage.fetch(place, cache, heard=told.append)

    assert contents(held.path) == contents(bundle.path)
    assert sorted(fetched) == left
    assert fetched[left[1]] == 2
    assert told[-1] == Moved(6000, 6000)
    assert not scratch.exists()


def test_several_publish_and_fetch_at_once(
    root: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """They agree on one address; one fetches, and everybody gets the whole."""
    if isinstance(root.fs, MemoryFileSystem):
        pytest.skip("a file in memory is seen while it is written; in no folder or store is one")
    bundles = [made(tmp_path / f"p{n}") for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        addresses = set(pool.map(lambda b: storage.publish(b, root), bundles))
    [address] = addresses
    place = folder_of(root, address)

    fetched = counted(monkeypatch, "get")
    with ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(lambda _n: storage.fetch(place, tmp_path / "cache"), range(4)))

    assert all(contents(c.path) == contents(bundles[0].path) for c in copies)
    assert fetched == Counter(dict.fromkeys(TREE, 1))


def test_a_signature_is_replaced_and_no_digest_knows_of_it(root: Store, tmp_path: Path):
    """Signed again, by another key, the bundle keeps its name and the newest signature is there."""
    bundle = made(tmp_path / "p")
    address = storage.publish(bundle, root)
    place = folder_of(root, address)
    for signature in (b"first", b"second"):
        (bundle.path / SIGNATURE).write_bytes(signature)
        assert storage.publish(bundle, root) == address
        assert found(place, SIGNATURE) == signature


def test_how_far_it_is_is_told(root: Store, tmp_path: Path):
    """Every byte is counted once; the last word is the whole."""
    bundle = made(tmp_path / "p")
    total = sum(len(data) for data in TREE.values())
    for act in (
        lambda heard: storage.publish(bundle, root, heard=heard),
        lambda heard: storage.fetch(
            root.below("digits", storage.name_of(bundle.manifest)), tmp_path / "c", heard=heard
        ),
    ):
        told: list[Moved] = []
        act(told.append)
        assert told[-1] == Moved(total, total)
        assert [m.done for m in told] == sorted(m.done for m in told)


FETCH = """
import sys
from pathlib import Path
from penstock import storage
print(storage.fetch(sys.argv[1], Path(sys.argv[2])).digest)
"""


def test_processes_share_a_cache(moto: str, tmp_path: Path):
    """Three that begin at once leave one copy, and nothing half done."""
    bundle = made(tmp_path / "p")
    address, cache = storage.publish(bundle, moto), tmp_path / "cache"
    command = [sys.executable, "-c", FETCH, address, str(cache)]
    begun = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]

    assert [p.communicate(timeout=60)[0].strip() for p in begun] == [bundle.digest] * 3
    name = storage.name_of(bundle.manifest)
    assert {p.name for p in cache.iterdir()} == {name, f".{name}.lock"}


def test_a_volume_is_filled_in_its_place(
    root: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What a pod finds after its init container: the bundle alone, however often that was begun."""
    bundle, volume = made(tmp_path / "p", signed=True), tmp_path / "models"
    place = folder_of(root, storage.publish(bundle, root))
    volume.mkdir()
    with monkeypatch.context() as patch:
        counted(patch, "get", cut_at=2)
        with pytest.raises(Cut):
            storage.fill(place, volume)
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        read(volume)

    for _ in range(2):
        held = storage.fill(place, volume)
        assert (held.path, contents(volume)) == (volume, contents(bundle.path))
    (volume / "model.onnx").write_bytes(b"damaged")
    storage.fill(place, volume)
    assert contents(volume) == contents(bundle.path)


def test_the_program_before_a_server_says_what_it_did(moto: str, tmp_path: Path):
    """As KServe calls it: pairs of address and folder; one sentence where it fails."""
    bundle, volumes = made(tmp_path / "p"), [tmp_path / "a", tmp_path / "b"]
    address = storage.publish(bundle, moto)
    program = [sys.executable, "-m", "penstock.storage"]

    def called(*arguments: object) -> subprocess.CompletedProcess[str]:
        given = [*program, *map(str, arguments)]
        return subprocess.run(given, capture_output=True, text=True, check=False)

    done = called(address, volumes[0], address, volumes[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert bundle.digest[7:19] in done.stdout
    assert all(contents(volume) == contents(bundle.path) for volume in volumes)
    for wrong, code, said in (
        ((f"{moto}/nothing", volumes[0]), 1, "holds no manifest.json"),
        (("s3://key:planted@b/x", volumes[0]), 1, "has credentials or a query in it"),
        ((address,), 2, "usage"),
        ((), 2, "usage"),
    ):
        done = called(*wrong)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "planted" not in done.stderr
