"""Laws of ``penstock up``, ``down`` and ``status`` around a real Envoy and stand-in servers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import Result
from filelock import FileLock
from typer.testing import CliRunner

from penstock.cli.home import LOCK, NOTE, Home, HomeError
from penstock.cli.main import app
from penstock.cli.run import answering_at
from penstock.cli.servers import Named, _access
from penstock.cli.status import counted, look
from penstock.rollout.access import Access, AccessError, read_tokens
from penstock.rollout.plane import Plane, PlaneError
from penstock.rollout.supervisor import COMMAND_VARIABLE
from tests.packages import free_port, running, wait_for
from tests.rollout.test_edge import Authority, token_file
from tests.rollout.test_plane import INFER, STANDIN, _answers


def penstock(home: Path, *arguments: str) -> Result:
    """Run the command in a home; what it refuses is in ``exception``."""
    return CliRunner().invoke(app, arguments, env={"PENSTOCK_HOME": str(home), "COLUMNS": "120"})


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One plane whose slot a answers."""
    patch = pytest.MonkeyPatch()
    patch.setenv(COMMAND_VARIABLE, STANDIN)
    home = tmp_path_factory.mktemp("servers")
    made = Plane.up(home, model="digits", port=free_port())
    made.set_slot("a", package=home, digest="sha256:1", version="1")
    made.wait_ready("a", version="1", timeout_s=20)
    wait_for(lambda: _answers(made, "a"), 5)
    yield made
    made.down()
    patch.undo()


def remembered(home: Path, access: Access) -> Home:
    """Return a home that remembers who may ask."""
    (home / "serving").mkdir(exist_ok=True)
    access.save(home / "serving" / "access.json")
    return Home(home)


def test_naming_one_protection_keeps_the_others(tmp_path: Path):
    """TLS after tokens leaves the tokens, and the other way round."""
    token = token_file(tmp_path)
    certificate, key = Authority.begin(tmp_path / "ca").issue("server")
    tls = {"certificate": certificate, "key": key}
    tokens = read_tokens(token)

    for first, then in (
        (Access(tokens=tokens), Named(cert=Path(certificate), key=Path(key))),
        (Access(**tls), Named(token=token)),
    ):
        held = remembered(tmp_path, first)
        assert _access(held, then, open_to_all=False) == Access(tokens=tokens, **tls)
        assert _access(held, Named(), open_to_all=False) is None


def test_only_open_takes_a_protection_away(tmp_path: Path):
    """What is named beside it holds, so nobody is let in between; nothing named: everybody."""
    held = remembered(tmp_path, Access(tokens=read_tokens(token_file(tmp_path))))
    certificate, key = Authority.begin(tmp_path / "ca").issue("server")
    tls = Named(cert=Path(certificate), key=Path(key))

    assert _access(held, tls, open_to_all=True) == Access(certificate=certificate, key=key)
    assert _access(held, Named(), open_to_all=True) == Access()
    with pytest.raises(AccessError, match="needs --tls-cert"):
        _access(held, Named(listen="0.0.0.0"), open_to_all=False)


def test_status_says_whether_the_champion_answers(plane: Plane):
    """In words and in JSON, with what users were answered; its exit code is for scripts."""
    httpx.post(plane.url + INFER)

    words, told = penstock(plane.home, "status"), penstock(plane.home, "status", "--json")

    assert (words.exit_code, told.exit_code) == (0, 0), words.output
    assert "version 1, answers now, 100 % of users" in " ".join(words.stdout.split())
    said = json.loads(told.stdout)
    assert (said["answers"], said["answering"], said["url"]) == (True, ["a"], plane.url)
    assert said["users"]["requests"] >= 1


def test_status_shows_what_it_can_while_the_edge_is_dead(plane: Plane):
    """Slots and the table as it was written last, a word about it, and exit code 1."""
    seen = plane.status()
    os.kill(seen["supervisor"]["pid"], signal.SIGSTOP)
    try:
        os.kill(seen["envoy"], signal.SIGKILL)
        wait_for(lambda: not running(seen["envoy"]), 5)
        done = penstock(plane.home, "status")
    finally:
        os.kill(seen["supervisor"]["pid"], signal.SIGCONT)

    said = " ".join(done.stdout.split())
    assert done.exit_code == 1
    assert "the edge does not answer, this is what it was told last" in said
    assert "version 1, DOES NOT ANSWER, 100 % of users" in said
    wait_for(lambda: not look(Home(plane.home))["note"], 15)
    wait_for(lambda: look(Home(plane.home))["users"], 5)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("crashing", "no server can answer now; ask again in a second."),
        ("silent", "the model did not answer in time; ask again in a second."),
    ],
)
def test_a_champion_that_cannot_answer_is_a_plain_503_and_counted(
    plane: Plane, version: str, said: str
):
    """Users hear when to come again and nothing of Envoy; status says how many were failed."""
    before = look(Home(plane.home))["users"]
    plane.set_slot("a", package=plane.home, digest="sha256:1", version=version)
    plane.wait_ready("a", version=version, timeout_s=20)
    wait_for(lambda: _answers(plane, "a"), 5)

    answer = httpx.post(plane.url + INFER)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"error": said}
    after = look(Home(plane.home))["users"]
    assert after["failed"] == before["failed"] + 1
    assert after["unreached"] > before["unreached"]


def test_nothing_is_taken_from_a_run_that_goes_on(plane: Plane):
    """Up and down are refused with its process; status tells of it."""
    with FileLock(plane.home / LOCK):
        (plane.home / NOTE).write_text("4711")
        for verb in ("up", "down"):
            done = penstock(plane.home, verb)
            assert isinstance(done.exception, HomeError)
            assert f"(process 4711), and {verb} would disturb it" in str(done.exception)
        assert "a run is going on (process 4711)" in penstock(plane.home, "status").stdout
    assert "a run is going on" not in penstock(plane.home, "status").stdout


def test_up_of_another_workload_says_the_true_obstacle_first(plane: Plane):
    """Not that a run would help, which would then be refused for what serves here."""
    done = penstock(plane.home, "up", "streamrec")

    assert isinstance(done.exception, PlaneError)
    assert "serve digits, not streamrec; stop them first" in str(done.exception)


def test_a_run_says_where_users_ask_as_the_edge_is_now(plane: Plane, tmp_path: Path):
    """Of an edge with TLS not an address that would refuse them; of none, none."""
    certificate, key = Authority.begin(tmp_path / "ca").issue("server")
    access, port = Access(certificate=certificate, key=key), plane.status()["port"]
    Plane.up(plane.home, model="digits", port=port, access=access)

    said = answering_at(Home(plane.home), "digits")

    Plane.up(plane.home, model="digits", port=port, access=Access())
    assert said == f"https://127.0.0.1:{port}{INFER}"
    assert answering_at(Home(tmp_path), "digits") is None


def test_losses_are_what_was_dropped_and_what_failed(tmp_path: Path):
    """With what hinders the log now; without a count, or with a torn one, nothing is claimed."""
    assert counted(tmp_path) == {"lost": 0, "problem": ""}
    told = {"written": 9, "dropped": 2, "failed": 1, "problem": "the disk is full"}
    (tmp_path / "counters.json").write_text(json.dumps(told))
    assert counted(tmp_path) == {"lost": 3, "problem": "the disk is full"}
    (tmp_path / "counters.json").write_text("{")
    assert counted(tmp_path) == {"lost": 0, "problem": ""}
