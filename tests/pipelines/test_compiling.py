"""Laws of ``penstock compile``: a file that a cluster takes, or a sentence and a code for it."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.check import check, pods
from pipelines.compiling import compile_to, main, run_name
from tests.pipelines import IMAGES, PROFILES

CUT = 20
"""Characters of a run's name that are left where runs are compared."""

AT = st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def penstock(*arguments: str) -> tuple[int, str, str]:
    """Run the command; return its code, what it printed, and what it complained of."""
    command = [str(Path(sys.executable).parent / "penstock"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_profile_with_pinned_images_is_compiled_and_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The file, how large it is and how many pods it starts."""
    images = "".join(f'{group} = "{name}"\n' for group, name in IMAGES.items())
    mine, out = tmp_path / "mine.toml", tmp_path / "digits.yaml"
    mine.write_text((PROFILES / "gpu.toml").read_text("utf-8") + "\n[images]\n" + images, "utf-8")

    code = main(["digits", "--profile", str(mine), "--out", str(out), "--check"])

    text = out.read_text(encoding="utf-8")
    assert code == 0
    assert (
        capsys.readouterr().out
        == f"wrote {out}: {len(text):,} bytes, {pods(text)} pods in a run at most\n"
    )
    assert check(text, pinned=True) == []


def test_what_a_cluster_would_refuse_is_not_written(tmp_path: Path):
    """Images without digests, each with the steps that would run in it."""
    out = tmp_path / "digits.yaml"
    wanted = ("--pipeline", "watch", "--profile", str(PROFILES / "laptop.toml"), "--check")

    code, said, bad = penstock("compile", "digits", *wanted, "--out", str(out))

    assert (code, said) == (1, "")
    assert not out.exists()
    assert bad.count("has no digest; name it as …@sha256:… in the profile's [images]") == 4
    assert "penstock: exec-diagnose, exec-gate, exec-monitor, exec-register" in bad


def test_a_wrong_profile_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """As every wrong call is."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('namespace = "a"\nservice_account = "b"\n[every_step]\nretries = -1\n')

    assert main(["digits", "--profile", str(wrong), "--out", str(tmp_path / "out")]) == 2
    assert (
        capsys.readouterr().err == "wrong.toml.every_step.retries: -1 came, 0 to 10 was wanted.\n"
    )


def test_a_file_that_cannot_be_written_is_a_wrong_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """And not what a cluster would refuse, which has a code of its own."""
    assert main(["digits", "--out", str(tmp_path / "none" / "out.yaml")]) == 2
    assert "name another with --out." in capsys.readouterr().err


def test_there_are_two_pipelines(tmp_path: Path):
    """Another name is refused before anything is compiled."""
    with pytest.raises(ValueError, match="no pipeline 'serve'; there is train and watch"):
        compile_to(tmp_path / "p.yaml", workload="digits", pipeline="serve")


@given(st.from_regex(r"[a-z0-9 ]{1,8}", fullmatch=True), AT, AT)
def test_what_differs_between_runs_is_what_is_left_of_their_names(
    differs: str, one: datetime, two: datetime
):
    """Two runs begun in different minutes of a year have names that differ where they are cut."""
    names = [run_name("train", "digits", differs=differs, now=at)[:CUT] for at in (one, two)]

    assert names[0].startswith(differs)
    minutes = [at.replace(year=2028, second=0, microsecond=0) for at in (one, two)]
    assert (names[0] == names[1]) == (minutes[0] == minutes[1])
