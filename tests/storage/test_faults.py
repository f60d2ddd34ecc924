"""Laws of a store that fails: what passes is tried again, what never helps is not."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock import storage
from penstock.bundle import BundleError
from penstock.ledger import REGISTERED, Ledger
from penstock.storage import backends, errors
from penstock.storage.errors import ATTEMPTS, LONGEST_S, StoreError, Unreachable, tried
from penstock.storage.store import Store
from tests.bundles import NOW
from tests.people import person
from tests.storage.conftest import MOTO_KEY, MOTO_SECRET, bucket, s3_named
from tests.storage.faults import Faults, faulty
from tests.storage.parts import TREE, contents, folder_of, lay, made
from tests.storage.servers import READER, READERS_SECRET, SECRET, WRITER

BIG = {"model.onnx": bytes(range(256)) * 100_000, "small": b"s"}
"""With a file of several chunks, where a transfer can be cut in the middle."""


@pytest.fixture
def faults(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """A proxy before moto, which the environment names; without waits between attempts."""
    s3_named(monkeypatch, moto_url, MOTO_KEY, MOTO_SECRET)
    bucket(moto_url)
    monkeypatch.setattr(backends, "CLIENT_TRIES", 1)
    with faulty(moto_url) as held:
        monkeypatch.setenv("AWS_ENDPOINT_URL", held.url)
        yield held


def quick(address: str) -> Store:
    """Return the store of an address that waits for nobody."""
    return replace(Store.at(address), pause=lambda _s: None)


@pytest.mark.parametrize(
    ("of", "how"), [("", "503"), ("PUT", "503"), ("HEAD", "503"), ("GET", "503"), ("GET", "cut")]
)
def test_what_passes_is_tried_again(faults: Faults, tmp_path: Path, of: str, how: str):
    """Errors of the store's own and cut connections, of questions, uploads and downloads."""
    bundle = made(tmp_path / "p", BIG)
    root = quick(f"s3://packages/faults-{of}-{how}".lower())
    faults.first(2, how, of=of)
    place = folder_of(root, storage.publish(bundle, root))
    faults.first(2, how, of=of)

    held = storage.fetch(place, tmp_path / "cache")

    assert contents(held.path) == contents(bundle.path)


def test_what_came_before_a_cut_is_not_fetched_again(faults: Faults, tmp_path: Path):
    """A long transfer over a bad line comes to its end."""
    bundle, root = made(tmp_path / "p", BIG), quick("s3://packages/cut")
    place = folder_of(root, storage.publish(bundle, root))
    faults.asked.clear()
    storage.fetch(place, tmp_path / "a")
    smooth = sum(a.startswith("GET") for a in faults.asked)

    faults.asked.clear()
    cuts = 2
    faults.first(cuts, "cut", of="GET")
    storage.fetch(place, tmp_path / "b")

    assert sum(a.startswith("GET") for a in faults.asked) <= smooth + cuts


def test_who_never_answers_is_given_up_after_a_bounded_number_of_attempts(
    faults: Faults, tmp_path: Path
):
    """The error says how often, and what to do; waits grow up to a bound."""
    faults.wrong = lambda _asked: "503"
    waits: list[float] = []
    root = replace(Store.at("s3://packages/never"), pause=waits.append)

    with pytest.raises(Unreachable, match=rf"{ATTEMPTS} times.*HTTP status 503.*run again"):
        storage.fetch(root, tmp_path / "cache")

    assert len(waits) == ATTEMPTS - 1
    assert all(0 < wait <= LONGEST_S for wait in waits)


def test_waits_double_and_are_not_alike(monkeypatch: pytest.MonkeyPatch):
    """Many that failed at once must not come back at once."""
    monkeypatch.setattr(errors, "ATTEMPTS", 8)
    many: list[list[float]] = [[], []]
    for waits in many:

        def fails() -> None:
            raise ConnectionResetError("reset")

        with pytest.raises(Unreachable):
            tried(fails, what="it failed", pause=waits.append)
    assert many[0] != many[1]
    for n, wait in enumerate(many[0]):
        longest = min(errors.FIRST_S * 2**n, LONGEST_S)
        assert longest / 2 <= wait <= longest


def test_a_store_that_hangs_is_left(
    faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It took the connection and says nothing: the client's own limit ends it."""
    monkeypatch.setattr(backends, "REQUEST_S", 0.4)
    monkeypatch.setattr(errors, "ATTEMPTS", 1)
    faults.wrong = lambda _asked: "hang"
    with pytest.raises(Unreachable, match=r"(?i)timeout|too slow"):
        storage.fetch(Store.at("s3://packages/hang"), tmp_path / "cache")


def test_nobody_there_is_said_to_be_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A closed port is no missing package: who asks must not take it for lost."""
    monkeypatch.setattr(backends, "CLIENT_TRIES", 1)
    s3_named(monkeypatch, "http://127.0.0.1:1", MOTO_KEY, MOTO_SECRET)
    with pytest.raises(Unreachable, match="is up and its endpoint right"):
        storage.fetch(quick("s3://packages/x"), tmp_path / "cache")


def test_a_refusal_is_not_tried_again(faults: Faults, tmp_path: Path):
    """Wrong keys are as wrong the next time, and trying may lock an account."""
    faults.wrong = lambda _asked: "403 no"
    bundle = made(tmp_path / "p")
    with pytest.raises(StoreError, match="credentials may do this") as refused:
        storage.publish(bundle, quick("s3://packages/refused"))
    assert not isinstance(refused.value, Unreachable)
    assert len(faults.asked) == 1


def test_a_full_disk_is_this_machines_matter(
    moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is seen before the transfer where it can be, and never tried again."""
    bundle = made(tmp_path / "p")
    address = storage.publish(bundle, moto)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("penstock.storage.fetching.shutil.disk_usage", lambda _path: usage)
    with pytest.raises(OSError, match=r"needs 0 MB .*set PENSTOCK_HOME to another disk"):
        storage.fetch(address, tmp_path / "cache")

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as refused:
        tried(full, what="x could not be read", pause=lambda _s: pytest.fail("it was tried again"))
    assert refused.value.errno == errno.ENOSPC


def test_a_cache_that_cannot_be_written_says_which_variable(moto: str, tmp_path: Path):
    """A pod has a read-only root; its home must be named."""
    address = storage.publish(made(tmp_path / "p"), moto)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot keep packages.*set PENSTOCK_HOME"):
        storage.fetch(address, tmp_path / "file" / "cache")


def test_a_real_store_refuses_wrong_keys_other_users_and_missing_buckets(
    in_swift: str, swift_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By OpenStack Swift, which checks every signature; each refusal says what to look at."""
    bundle = made(tmp_path / "p")
    address = storage.publish(bundle, in_swift)
    with pytest.raises(StoreError, match="bucket"):
        storage.publish(bundle, "s3://not-there/x")
    with pytest.raises(BundleError, match="no such bucket"):
        storage.fetch("s3://not-there/x", tmp_path / "cache")
    for key, secret in ((WRITER, "wrong"), ("store:nobody", SECRET), (READER, READERS_SECRET)):
        s3_named(monkeypatch, swift_url, key, secret)
        for act in (
            lambda: storage.fetch(address, tmp_path / "cache"),
            lambda: storage.publish(bundle, f"{in_swift}/other"),
        ):
            with pytest.raises(StoreError, match="credentials may do this") as refused:
                act()
            assert not isinstance(refused.value, Unreachable)


def test_no_failure_shows_a_credential(
    faults: Faults,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    """In errors, output, logs, files and ledger, with a store that repeats the keys to us."""
    planted = ("AKIAPLANTEDKEY000001", "planted/Secret+key0002", "planted//Token+0003")
    for name, value in zip(
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), planted, strict=True
    ):
        monkeypatch.setenv(name, value)
    echo = f"you sent {' and '.join(planted)}"
    bundle, said = made(tmp_path / "p"), list[str]()
    root = quick("s3://packages/leaks")
    place = folder_of(root, storage.publish(bundle, root))

    def fails(act: Any, how: str | None = None) -> None:
        faults.wrong = lambda _asked: how
        with pytest.raises((OSError, ValueError, LookupError)) as failed:
            act()
        said.extend(traceback.format_exception(failed.value))
        said.append(repr(failed.value))

    for how in (f"403 {echo}", f"503 {echo}"):
        fails(lambda: storage.publish(bundle, root.below("new")), how)
        fails(lambda: storage.fetch(place, tmp_path / "cache"), how)
    fails(lambda: storage.fetch(f"s3://{planted[0]}:{planted[1]}@packages/x", tmp_path / "c"))
    fails(lambda: storage.fetch(root.below("nothing"), tmp_path / "c"))
    lay(place, "model.onnx", b"damaged")
    fails(lambda: storage.fetch(place, tmp_path / "cache"))
    fails(lambda: storage.publish(bundle, root))
    lay(place, "model.onnx", TREE["model.onnx"])
    faults.wrong = lambda _asked: None
    held = storage.fetch(place, tmp_path / "cache")
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    body = {"package": str(place), "digest": held.digest}
    ledger.append(workload="digits", version=1, kind=REGISTERED, body=body, actor=person(), now=NOW)
    ledger.close()

    printed = capfd.readouterr()
    said += [printed.out, printed.err, caplog.text, repr(root), repr(place)]
    everything = [text.encode() for text in said] + list(contents(tmp_path).values())
    assert len(said) > 20
    for value in planted:
        assert not [text for text in everything if value.encode() in text]
