"""``penstock submit``: run a pipeline on a Kubeflow server, from a terminal or from CI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock import registered
from penstock.cli.home import home
from penstock.cli.screen import terminal
from penstock.cli.submitted import EXIT, WRONG_CALL, Submission, carry
from penstock.ledger import champion
from penstock.workload import load

DAY_S = 86_400
"""How long a run is followed where nothing else is said."""

LEDGER = "PENSTOCK_LEDGER"
_SENDS = ("run", "check", "schedule")
_HEEDED = {
    "--wait": ("run", "check", "follow"),
    "--once": ("run", "check"),
    "--recurring-name": ("schedule", "disable"),
    "-p": _SENDS,
    "--params": _SENDS,
}
"""What each of these options is for; a dry run takes those of the run that it tries."""

SERVER, WHAT, WHEN, LATER = "The server", "What is submitted", "Waiting", "Instead of submitting"


@dataclass(frozen=True, kw_only=True)
class _Instead:
    """What is asked for in place of a run."""

    dry_run: bool
    cron: str | None
    disable: bool
    follow: str | None
    cancel: str | None

    def action(self) -> str:
        """Return the one thing that is asked for.

        Raises:
            ValueError: Two things are.
        """
        asked = {
            "check": self.dry_run,
            "schedule": self.cron is not None,
            "disable": self.disable,
            "follow": self.follow is not None,
            "cancel": self.cancel is not None,
        }
        named = [action for action, on in asked.items() if on]
        if len(named) > 1:
            raise ValueError("--dry-run, --cron, --disable, --follow and --cancel: leave one.")
        return named[0] if named else "run"


def _of_no_use(action: str, given: Mapping[str, object]) -> None:
    """Refuse an option that the action would leave aside without a word.

    Raises:
        ValueError: One is given.
    """
    for option, value in given.items():
        if value and action not in _HEEDED[option]:
            raise ValueError(f"{option} came, and is of no use here; leave it out.")


def _panel(name: str, text: str, *flags: str, **more: Any) -> Any:
    return typer.Option(*flags, help=text, rich_help_panel=name, show_default=False, **more)


def submit(
    workload: Annotated[
        str, typer.Argument(help="Folder below workloads/; not needed to follow or to cancel.")
    ] = "",
    host: Annotated[
        str, _panel(SERVER, "Its address; of its API.", envvar="PENSTOCK_KFP_HOST")
    ] = "",
    ui: Annotated[
        str, _panel(SERVER, "Address of its pages; the host's.", envvar="PENSTOCK_KFP_UI")
    ] = "",
    namespace: Annotated[str | None, _panel(SERVER, "Yours, where users are kept apart.")] = None,
    token_file: Annotated[
        Path | None,
        _panel(
            SERVER,
            "File of the token, read at every request. Without it PENSTOCK_KFP_TOKEN, in a pod "
            "the service account's.",
        ),
    ] = None,
    ca_cert: Annotated[
        Path | None,
        _panel(SERVER, "Certificate of who signed the server's, PEM.", envvar="PENSTOCK_KFP_CA"),
    ] = None,
    insecure: Annotated[
        bool, _panel(SERVER, "Believe any certificate; send a token unencrypted.", "--insecure")
    ] = False,
    pipeline: Annotated[str, _panel(WHAT, "train (the default) or watch.")] = "train",
    profile: Annotated[
        Path | None, _panel(WHAT, "Deployment profile: images, GPUs, secrets.")
    ] = None,
    parameter: Annotated[
        list[str] | None, _panel(WHAT, "name=value, as often as needed.", "-p", "--parameter")
    ] = None,
    params: Annotated[
        Path | None, _panel(WHAT, "File of parameters: .json, .toml or .yaml; -p wins.")
    ] = None,
    experiment: Annotated[
        str | None, _panel(WHAT, "Group of runs that are compared; the workload's name.")
    ] = None,
    service_account: Annotated[str | None, _panel(WHAT, "Of the steps; the profile's.")] = None,
    revision: Annotated[
        str | None, _panel(WHAT, "Of the sources; git's.", envvar="PENSTOCK_REVISION")
    ] = None,
    once: Annotated[
        str | None, _panel(WHAT, "Key: what was submitted with it before is found again.")
    ] = None,
    no_cache: Annotated[bool, _panel(WHAT, "Run every step anew.", "--no-cache")] = False,
    unpinned: Annotated[
        bool, _panel(WHAT, "Take images that are named by tag.", "--unpinned")
    ] = False,
    wait: Annotated[
        int | None, _panel(WHEN, "Seconds to wait for its end; without it, none.", min=1)
    ] = None,
    every: Annotated[int, _panel(WHEN, "Seconds between two looks; 10.", min=1)] = 10,
    json_file: Annotated[
        Path | None, _panel(WHEN, "Write what happened into this file.", "--json")
    ] = None,
    dry_run: Annotated[
        bool, _panel(LATER, "Compile and check; send nothing.", "--dry-run")
    ] = False,
    cron: Annotated[
        str | None, _panel(LATER, "Schedule it, UTC, seconds first: '0 0 2 * * *'.")
    ] = None,
    recurring_name: Annotated[
        str | None, _panel(LATER, "Name of the schedule; WORKLOAD-PIPELINE.")
    ] = None,
    disable: Annotated[bool, _panel(LATER, "Switch the schedule off.", "--disable")] = False,
    follow: Annotated[str | None, _panel(LATER, "Id of a run to follow.")] = None,
    cancel: Annotated[str | None, _panel(LATER, "Id of a run to end.")] = None,
) -> None:
    """Run a pipeline on Kubeflow Pipelines; wait for it or not.

    Example: penstock submit streamrec --host https://kubeflow.example.com --wait 7200

    Exit codes: 0 submitted, or succeeded with --wait; 1 failed; 2 wrong call; 3 rejected by the
    gate; 4 data refused; 6 waits for a person; 7 cancelled; 8 still running after --wait; 9 not
    allowed: the token; 10 unreachable; 11 refused by the server; 130 interrupted, the run goes on.
    """
    instead = _Instead(dry_run=dry_run, cron=cron, disable=disable, follow=follow, cancel=cancel)
    action = instead.action()
    if action not in ("follow", "cancel"):
        load(workload)
    _of_no_use(
        action,
        {
            "--wait": wait,
            "--once": once,
            "--recurring-name": recurring_name,
            "-p": parameter,
            "--params": params,
        },
    )
    named = any(pair.startswith("champion=") for pair in parameter or [])
    looks = action in _SENDS and pipeline == "train" and not named
    request = {
        "action": action,
        "workload": workload,
        "pipeline": pipeline,
        "profile": _text(profile),
        "host": host,
        "ui": ui,
        "namespace": namespace,
        "experiment": experiment,
        "service_account": service_account,
        "parameters": parameter or [],
        "parameters_file": _text(params),
        "champion": _champion(workload) if looks else "",
        "revision": revision,
        "once": once,
        "wait_s": DAY_S if action == "follow" and wait is None else wait,
        "every_s": every,
        "token_file": _text(token_file),
        "ca_cert": _text(ca_cert),
        "insecure": insecure,
        "cached": not no_cache,
        "pinned": not unpinned,
        "cron": cron,
        "schedule": recurring_name or f"{workload}-{pipeline}",
        "run_id": follow or cancel,
    }
    told = Submission(workload=workload, pipeline=pipeline)
    carry(request, told, terminal(), json_file)
    if told.outcome == WRONG_CALL:
        raise ValueError(told.reason)
    raise typer.Exit(EXIT[told.outcome])


def _champion(workload: str) -> str:
    """Return the address of the package of whoever serves, empty where that is not known.

    Without a ledger nobody is named. The gate then judges by its fixed bounds alone, and a release
    refuses a version that was not compared with whoever serves.

    Raises:
        LookupError: The champion's package is where no cluster reaches it.
    """
    if not os.environ.get(LEDGER):
        return ""
    ledger = home().ledger(looking=True)
    try:
        entries = ledger.entries(workload)
        serving = champion(entries)
        return "" if serving is None else registered.uri(entries, serving)
    finally:
        ledger.close()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
