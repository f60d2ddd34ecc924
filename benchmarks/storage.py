"""What publishing and fetching a package cost beside copying its bytes: ``-m benchmarks.storage``.

The store is OpenStack Swift on loopback, in processes of its own. The floor is Arrow's client of
the same store, one file after another, without checking anything.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock import storage
from penstock.bundle import Bundle, Recipe, Summary, write
from penstock.storage.backends import arrow
from tests.bundles import NOW
from tests.storage.servers import SECRET, WRITER, swift

TIMES = 3
"""Runs of each; the best counts, since others use this machine too."""

SHAPES = {"one large file": (1, 96 << 20), "like a package": (24, 1 << 20), "small": (200, 20_000)}
"""Files and the bytes of each."""


@dataclass(frozen=True)
class Row:
    """Seconds of each way to move one package."""

    shape: str
    mb: float
    raw_up: float
    published: float
    again: float
    raw_down: float
    fetched: float
    cached: float

    def __str__(self) -> str:
        """Return a line of a table."""
        parts = (
            self.shape, f"{self.mb:.0f}", f"{self.raw_up:.2f}", f"{self.published:.2f}",
            f"{self.published / (self.raw_up + self.raw_down):.2f}", f"{self.again:.2f}",
            f"{self.raw_down:.2f}", f"{self.fetched:.2f}", f"{self.fetched / self.raw_down:.2f}",
            f"{self.cached:.2f}",
        )  # fmt: skip
        return f"| {' | '.join(parts)} |"


HEAD = """| package | MB | raw up s | publish s | to raw up and down | again s | raw down s | fetch s | to raw | kept s |
|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501 - a table


def best(act: Callable[[int], object]) -> float:
    """Return the seconds of the quickest of several runs."""
    seconds = list[float]()
    for n in range(TIMES):
        begun = time.perf_counter()
        act(n)
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def package(path: Path, files: int, size: int) -> Bundle:
    """Write a package that no compression makes smaller."""

    def fill(folder: Path) -> Summary:
        for n in range(files):
            (folder / f"f{n}").write_bytes(os.urandom(size))
        return Summary("pass", "made to be moved")

    return write(path, Recipe(kind="package", workload="digits"), make=fill, now=NOW)


def measured(shape: str, folder: Path) -> Row:
    """Return what moving a package of a shape takes."""
    files, size = SHAPES[shape]
    bundle, store = package(folder / "p", files, size), arrow("s3")
    names = sorted(bundle.manifest["files"])
    address = ""

    def raw_up(n: int) -> None:
        for name in names:
            place, file = f"packages/raw-{shape}-{n}/{name}", bundle.path / name
            with file.open("rb") as source, store.open_output_stream(place) as out:
                shutil.copyfileobj(source, out, 8 << 20)

    def raw_down(n: int) -> None:
        (folder / f"raw{n}").mkdir()
        for name in names:
            place, file = f"packages/raw-{shape}-0/{name}", folder / f"raw{n}" / name
            with store.open_input_stream(place) as source, file.open("wb") as out:
                shutil.copyfileobj(source, out, 8 << 20)

    def published(n: int) -> None:
        nonlocal address
        address = storage.publish(bundle, f"s3://packages/{shape}-{n}")

    return Row(
        shape=f"{shape}: {files} × {size / 1e6:.2g} MB",
        mb=files * size / 1e6,
        raw_up=best(raw_up),
        published=best(published),
        again=best(lambda _n: storage.publish(bundle, address.rsplit("/", 2)[0])),
        raw_down=best(raw_down),
        fetched=best(lambda n: storage.fetch(address, folder / f"cache{n}")),
        cached=best(lambda _n: storage.fetch(address, folder / "cache0")),
    )


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="penstock-storage-") as scratch:
        folder = Path(scratch)
        (folder / "swift").mkdir()
        with swift(folder / "swift") as url:
            os.environ |= {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": WRITER,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_REGION": "us-east-1",
            }
            from tests.storage.conftest import bucket  # it imports moto

            bucket(url)
            print(HEAD)
            for shape in SHAPES:
                (folder / shape).mkdir()
                print(measured(shape, folder / shape), flush=True)
                shutil.rmtree(folder / shape)


if __name__ == "__main__":
    main()
