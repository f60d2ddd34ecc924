"""Any history of a store: what is fetched is what was published, or it is refused."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from penstock import storage
from penstock.bundle import MANIFEST, BundleError
from penstock.storage.store import Store
from tests.storage.parts import contents, folder_of, found, lay, lose, made
from tests.strategies import file_trees

_numbers = itertools.count(1)


class Ended(Exception):
    """A process ended in the middle of something."""


def place() -> Store:
    """Return an empty store in memory."""
    return Store(fs=MemoryFileSystem(), root=f"/histories/{next(_numbers)}", pause=lambda _s: None)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=file_trees, where=st.integers(0, 10_000), how=st.sampled_from(["flip", "cut", "add"]))
def test_any_bundle_comes_back_and_any_damage_is_seen(
    files: dict[str, bytes], where: int, how: str
):
    """One byte of one file, the manifest too, is enough to refuse."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, root = Path(scratch), place()
        bundle = made(folder / "p", files)
        published = folder_of(root, storage.publish(bundle, root))
        assert contents(storage.fetch(published, folder / "c").path) == contents(bundle.path)

        name = sorted([*files, MANIFEST])[where % (len(files) + 1)]
        data = found(published, name)
        at = where % len(data)
        damaged = {
            "flip": data[:at] + bytes([data[at] ^ 32]) + data[at + 1 :],
            "cut": data[:at],
            "add": data[:at] + b" " + data[at:],
        }[how]
        lay(published, name, damaged)
        with pytest.raises(BundleError):
            storage.fetch(published, folder / "d")
        with pytest.raises(BundleError):
            storage.publish(bundle, root)


class History(RuleBasedStateMachine):
    """Publishers and fetchers that end anywhere, and somebody who damages the store."""

    def __init__(self) -> None:
        super().__init__()
        self._scratch = tempfile.TemporaryDirectory()
        folder = Path(self._scratch.name)
        self.root, self.caches = place(), [folder / "a", folder / "b"]
        self.packages = [made(folder / f"p{n}", {"x": b"1", "d/y": bytes([n]) * 9}) for n in (1, 2)]
        self.ever, self.finished, self.damaged = set[int](), set[int](), set[int]()

    def published(self, which: int) -> Store:
        """Return where a bundle is, or will be."""
        return self.root.below("digits", storage.name_of(self.packages[which].manifest))

    @rule(which=st.integers(0, 1), puts=st.integers(0, 5))
    def publish(self, which: int, puts: int) -> None:
        """Publish, and end after some of the files."""
        try:
            with ending(after=puts):
                storage.publish(self.packages[which], self.root)
        except Ended:
            return
        except BundleError:
            assert which in self.damaged
            return
        assert which not in self.damaged
        self.finished.add(which)
        self.ever.add(which)

    @rule(which=st.integers(0, 1), cache=st.integers(0, 1), gets=st.integers(0, 4))
    def fetch(self, which: int, cache: int, gets: int) -> None:
        """Fetch, and end after some of the files."""
        try:
            with ending(after=gets, verb="get"):
                held = storage.fetch(self.published(which), self.caches[cache])
        except Ended:
            return
        except BundleError:
            assert which in self.damaged or which not in self.finished
            return
        assert contents(held.path) == contents(self.packages[which].path)
        assert which in self.ever  # a copy outlives what happens to the store

    @rule(which=st.integers(0, 1), lost=st.booleans())
    def damage(self, which: int, lost: bool) -> None:
        """Alter or lose a file of what was published."""
        if which in self.finished:
            store = self.published(which)
            if not lost:
                lay(store, "d/y", b"other")
            elif "d/y" in store.sizes():
                lose(store, "d/y")
            self.damaged.add(which)

    @rule(which=st.integers(0, 1))
    def mend(self, which: int) -> None:
        """Do what the refusal says: remove the folder."""
        if which in self.damaged:
            for name in ("x", "d/y", MANIFEST):
                if name in self.published(which).sizes():
                    lose(self.published(which), name)
            self.damaged.discard(which)
            self.finished.discard(which)

    def teardown(self) -> None:
        """Remove the scratch folder."""
        self._scratch.cleanup()


class ending:  # noqa: N801 - reads as a statement
    """Let a verb of the store end its process after some calls."""

    def __init__(self, *, after: int, verb: str = "put") -> None:
        self._left, self._verb, self._real = after, verb, getattr(Store, verb)

    def __enter__(self) -> None:
        def counted(store: Store, *given: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise Ended
            return self._real(store, *given, **named)

        setattr(Store, self._verb, counted)

    def __exit__(self, *_: object) -> None:
        setattr(Store, self._verb, self._real)


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
