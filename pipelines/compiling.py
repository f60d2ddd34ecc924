"""Compile a pipeline into the file that Kubeflow takes, and say what a cluster would refuse of it.

Runs as a process of its own (``python -m pipelines.compiling``), so that the command line need not
import kfp.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pipelines.profile import Profile, read

PIPELINES = ("train", "watch")
"""Every pipeline is a module beside this one, with a function ``pipeline(workload, profile)``."""

REFUSED = 1
WRONG_CALL = 2


def compile_to(
    path: Path, *, workload: str, pipeline: str = "train", profile: Profile | None = None
) -> str:
    """Write the compiled pipeline and return the hash of its bytes.

    Args:
        profile: None compiles for this machine.

    Raises:
        ValueError: There is no such pipeline.
        UnknownWorkload: There is no such workload.
    """
    from kfp.compiler import Compiler  # noqa: PLC0415 - seconds to import; errors need none of it

    if pipeline not in PIPELINES:
        raise ValueError(f"no pipeline {pipeline!r}; there is {' and '.join(PIPELINES)}.")
    made = importlib.import_module(f"pipelines.{pipeline}").pipeline(workload, profile)
    Compiler().compile(made, str(path))
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def run_name(pipeline: str, workload: str, *, differs: str, now: datetime) -> str:
    """Return a run's name for people.

    Kubeflow cuts names to about twenty characters where runs are compared, so what differs between
    them comes first.

    Args:
        differs: What this run is about, in eight characters: ``seed 13``, ``v7``.

    >>> night = datetime(2026, 11, 22, 4, 31, tzinfo=UTC)
    >>> run_name("train", "digits", differs="seed 13", now=night)
    'seed 13 11-22T04:31Z digits train 2026'
    """
    utc = now.astimezone(UTC)
    return f"{differs} {utc:%m-%dT%H:%MZ} {workload} {pipeline} {utc:%Y}"


def main(argv: list[str] | None = None) -> int:
    """Write the file, or say why not; return 0, or 1 where a cluster would refuse it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--pipeline", default="train", choices=PIPELINES)
    parser.add_argument("--profile", type=Path, help="deployment profile, TOML")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--check", action="store_true", help="refuse what a cluster would refuse")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "pipeline.yaml"
        try:
            profile = read(given.profile) if given.profile else None
            compile_to(made, workload=given.workload, pipeline=given.pipeline, profile=profile)
        except (ValueError, LookupError, OSError) as e:
            print(e, file=sys.stderr)
            return WRONG_CALL
        text = made.read_text(encoding="utf-8")
    from pipelines.check import check, pods  # noqa: PLC0415 - with kfp, as above

    if given.check and (problems := check(text, pinned=profile is not None)):
        print(*problems, sep="\n", file=sys.stderr)
        return REFUSED
    try:
        given.out.write_text(text, encoding="utf-8")
    except OSError as e:
        print(
            f"{given.out} cannot be written: {e.strerror}; name another with --out.",
            file=sys.stderr,
        )
        return WRONG_CALL
    print(f"wrote {given.out}: {len(text):,} bytes, {pods(text)} pods in a run at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
