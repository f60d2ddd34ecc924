"""Laws of the loop under crashes and rivals: the same place, and one effect for each intent."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pytest

from penstock.ledger import Ledger
from penstock.release import Trigger
from penstock.rollout.lease import FileLease
from penstock.rollout.plan import Phase
from penstock.rollout.state import IN_FORCE, INTENT, Ask, State
from penstock.verdict import Outcome
from tests.rollout.carried import (
    POLICY,
    RELEASE,
    Now,
    Release,
    Story,
    answers,
    asks,
)

SHORT = replace(POLICY, canary_percents=(10, 100))


class Always:
    """A lease that everybody holds: what keeps two from acting both is the ledger alone."""

    def acquire(self, release: str, now: datetime) -> bool:
        """Say yes."""
        return True

    def renew(self, release: str, now: datetime, *, freeze: bool) -> bool:
        """Say yes."""
        return True

    def release(self, release: str) -> None:
        """Give nothing back."""


@dataclass
class Copier:
    """Keeps what lies on the disk after each effect: what a process that is killed there leaves."""

    folder: Path
    into: Path
    kept: list[Path] = field(default_factory=list[Path])

    def __call__(self, _what: str) -> None:
        """Keep a copy."""
        copy = self.into / str(len(self.kept))
        shutil.copytree(self.folder, copy)
        self.kept.append(copy)


def failing_once(state: State) -> Outcome:
    """Say that the second step fails, the first time."""
    return Outcome.FAIL if state.step == 2 and not state.strikes else Outcome.PASS


def failing(state: State) -> Outcome:
    """Say that the second step fails, each time."""
    return Outcome.FAIL if state.step == 2 else Outcome.PASS


def people(release: Release, state: State, ledger: Ledger) -> None:
    """Approve what waits; pause once at the first canary, and let it go on."""
    answers(granted=True)(release, state, ledger)
    asks((1, Ask.PAUSE), (1, Ask.RESUME))(release, state, ledger)


STORIES: dict[str, Release] = {
    "approved, paused, finished": Release(
        folder=Path(), policy=SHORT, trigger=Trigger.DRIFT, people=people, lease=Always
    ),
    "stepped back, then finished": Release(
        folder=Path(), policy=SHORT, says=failing_once, lease=Always
    ),
    "rolled back": Release(folder=Path(), policy=SHORT, says=failing, lease=Always),
}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: here a thousand entries are written."""
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.exists() else None) as folder:
        yield Path(folder)


@pytest.fixture
def opened(memory: Path) -> Callable[[str, Path], Release]:
    """Makes releases that were just opened, by copying one of each kind."""
    kept = memory / "opened"
    kept.mkdir()

    def make(name: str, folder: Path) -> Release:
        source = kept / name
        if not source.exists():
            source.mkdir()
            replace(STORIES[name], folder=source).open()
        shutil.copytree(source, folder)
        return replace(STORIES[name], folder=folder)

    return make


def told(release: Release) -> Story:
    """Return what a release that nobody cuts comes to."""
    release.carry()
    return release.story()


@pytest.mark.parametrize("name", ["approved, paused, finished", "rolled back"])
def test_cut_at_any_effect_it_ends_in_the_same_place(
    opened: Callable[[str, Path], Release], name: str, memory: Path
):
    """For every place a release can be cut: taken up there it does what it would have done."""
    whole = opened(name, memory / "whole")
    copier = Copier(whole.folder, memory / "cut")
    wanted = told(replace(whole, touch=copier))
    assert len(copier.kept) > 15
    for folder in copier.kept:
        assert told(replace(whole, folder=folder)) == wanted, folder.name


KILLS = {"an intent": INTENT, "a table": "apply", "a move": "moved", "an outcome": IN_FORCE}


def killed(release: Release, what: str, nth: int) -> int:
    """Carry a release in a process of its own that is killed at an effect; return its status."""
    count = [0]

    def touch(effect: str) -> None:
        count[0] += effect == what
        if effect == what and count[0] == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            replace(release, touch=touch, lease=None).carry()
        os._exit(1)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("what", KILLS.values(), ids=KILLS)
def test_killed_outright_it_ends_in_the_same_place(
    opened: Callable[[str, Path], Release], what: str, memory: Path
):
    """A real process, killed with the lease in its hand; the next one takes it at once."""
    name = "stepped back, then finished"
    wanted = told(opened(name, memory / "whole"))
    for nth in (1, 3):
        release = opened(name, memory / str(nth))
        assert killed(release, what, nth) == signal.SIGKILL
        assert told(replace(release, lease=None)) == wanted


def rivals(release: Release, count: int) -> list[BaseException]:
    """Carry a release by as many controllers at once, each with a ledger of its own."""
    failed: list[BaseException] = []

    def carry() -> None:
        try:
            release.carry(most=400)
        except BaseException as e:  # noqa: BLE001 - a thread tells nobody else
            failed.append(e)

    threads = [threading.Thread(target=carry) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


@pytest.mark.parametrize("name", ["stepped back, then finished", "rolled back"])
def test_of_two_controllers_at_once_one_alone_acts(
    opened: Callable[[str, Path], Release], name: str, memory: Path
):
    """Even where both hold the lease: one intent of each number, one effect, one table."""
    wanted = told(opened(name, memory / "whole"))
    release = opened(name, memory / "rivals")

    assert rivals(release, 3) == []

    assert release.story() == wanted
    ledger = release.ledger()
    mine = [e.body for e in ledger.entries("digits") if e.body.get("release") == RELEASE]
    ledger.close()
    written = [body["table"] for body in mine if body.get("table")]
    assert [t.to_dict() for t in release.plane().tables()[1:]] == written
    sequences = [t.sequence for t in release.plane().tables()]
    assert sequences == sorted(set(sequences))


def test_processes_that_are_killed_while_rivals_go_on_change_nothing(
    opened: Callable[[str, Path], Release], memory: Path
):
    """Killed and overtaken in any interleaving, the release is the one that nobody disturbed."""
    name = "stepped back, then finished"
    wanted = told(opened(name, memory / "whole"))
    release = opened(name, memory / "rivals")
    children: list[int] = []
    for number, what in enumerate(KILLS.values(), 1):
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                replace(release, touch=_ender(what, number)).carry(most=400)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)

    assert told(release) == wanted


def _ender(what: str, nth: int) -> Callable[[str], None]:
    """Return what kills its process at the n-th effect of a kind."""
    left = [nth]

    def touch(effect: str) -> None:
        left[0] -= effect == what
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    return touch


def test_only_who_holds_the_lease_acts(opened: Callable[[str, Path], Release], memory: Path):
    """While its holder lives and renews, another controller looks on; when it is over, it acts."""
    release = opened("rolled back", memory / "lease")
    one, other = (FileLease(release.folder / "serving", timeout_s=30) for _ in range(2))
    ledger, clock = release.ledger(), Now()
    first = replace(release, lease=lambda: one).controller(ledger, clock=clock)
    second = replace(release, lease=lambda: other).controller(ledger, clock=clock)
    assert first.tick().n == 1
    clock.sleep(20)
    assert second.tick().n == 1
    assert second.waits_for == "controller"
    assert first.tick().phase is Phase.CANARY

    clock.sleep(31)

    assert second.tick().n == 3
    assert first.tick().n == 3
    assert first.waits_for == "controller"
    ledger.close()
