"""``penstock controller``: carry the releases of a cluster, as one replica of several."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.home import Home, home
from penstock.ledger import Actor, Ledger
from penstock.release import Fallback
from penstock.rollout.adapters.election import lease_ref
from penstock.rollout.adapters.first import first_objects
from penstock.rollout.adapters.places import Where, read
from penstock.rollout.adapters.replica import Replica, replica
from penstock.rollout.adapters.rounds import EVERY_S, ending_sleep
from penstock.rollout.adapters.server import Server, Transport
from penstock.rollout.adapters.workplace import Desk
from penstock.rollout.journal import Told
from penstock.workload import load

PORT = 8090
NAMESPACE = "penstock"
FAILED, ELSEWHERE = 1, 6

LOG = logging.getLogger("penstock.controller")
QUIET = frozenset({"look", "ready", "starting"})
"""Events of every round, that a log has no use for."""


def controller(
    workloads: Annotated[
        list[str] | None, typer.Argument(help="Of which releases are carried; all without any.")
    ] = None,
    *,
    places: Annotated[
        Path, typer.Option(help="TOML file with where each is served, or a folder of them.")
    ],
    listen: Annotated[
        str, typer.Option(help="Where probes and Prometheus are answered.")
    ] = f"127.0.0.1:{PORT}",
    once: Annotated[bool, typer.Option("--once", help="Do one round of each, then end.")] = False,
    first: Annotated[
        bool, typer.Option("--first", help="Only print the objects that a person creates once.")
    ] = False,
    open_: Annotated[
        bool,
        typer.Option("--open", help="Release unasked what is in STAGING and never was released."),
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two rounds.")] = EVERY_S,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="How the API server is reached; a pod needs none.")
    ] = None,
) -> None:
    """Carry the releases of a cluster: tables into its routes, versions into its slots.

    Example: penstock controller --places places.toml digits

    Of several replicas one acts, which a Lease decides; without any, traffic stays as it is. After
    SIGTERM what is under way is finished within 20 s, or left to the next one.

    Exit codes: 0 ended; 1 a round of --once failed; 2 wrong call; 6 another replica leads, --once.
    """
    chosen = _chosen(read(places), workloads or [])
    if first:
        _print_first(chosen)
        return
    host, port = _address(listen)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    held = home()
    os.environ.update(held.environment())
    transport = _session(kubeconfig)
    ledger = held.ledger()
    try:
        made = replica(
            transport,
            chosen,
            _desk(held, ledger, opens=open_),
            lease=lease_ref(os.environ.get("POD_NAMESPACE", NAMESPACE)),
            me=_name(),
            every_s=every,
        )
        _work(made, host, port, once=once)
    finally:
        ledger.close()


def _session(kubeconfig: Path | None) -> Transport:
    from penstock.rollout.adapters.kubernetes import Session  # noqa: PLC0415 - a second to import

    return Session.in_cluster() if kubeconfig is None else Session.kubeconfig(str(kubeconfig))


def _chosen(places: Mapping[str, Where], names: list[str]) -> dict[str, Where]:
    """Return the places of these workloads, or all.

    Raises:
        ValueError: One has no place.
        UnknownWorkload: There is no such workload here.
    """
    lacking = [name for name in names if name not in places]
    if lacking:
        raise ValueError(f"{lacking[0]} has no place; there are {', '.join(places)}.")
    found = {name: places[name] for name in names or places}
    for name in found:
        load(name)
    return found


def _print_first(places: Mapping[str, Where]) -> None:
    items = [
        made
        for name, where in places.items()
        for made in first_objects(where, rules=load(name).rollout.kill_to is Fallback.RULES)
    ]
    typer.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1))


def _address(text: str) -> tuple[str, int]:
    """Return host and port.

    Raises:
        ValueError: It is no such address.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"--listen is {text!r}; HOST:PORT was wanted, as 127.0.0.1:{PORT}.")
    return host.strip("[]"), int(port)


def _name() -> str:
    """Return a name that no other replica has, in this life or another."""
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}-{uuid.uuid4().hex[:8]}"


def _desk(
    held: Home, ledger: Ledger, *, opens: bool
) -> Callable[[Server, Callable[[], bool], threading.Event], Desk]:
    actor = Actor.load(held.key())

    def desk(server: Server, leads: Callable[[], bool], stop: threading.Event) -> Desk:
        return Desk(
            server=server,
            ledger=ledger,
            actor=actor,
            home=held.path,
            leads=leads,
            emit=_log,
            sleep=ending_sleep(stop),
            opens=opens,
        )

    return desk


def _log(event: Told) -> None:
    kind = str(event.get("event", ""))
    if kind in QUIET:
        return
    level = logging.WARNING if kind in ("failed", "foreign", "unmoved") else logging.INFO
    whose = event.get("release") or event.get("workload") or ""
    LOG.log(level, "%s %s %s", kind, whose, event.get("text") or event.get("reason") or "")


def _work(made: Replica, host: str, port: int, *, once: bool) -> None:
    if once:
        wrong = made.once()
        for sentence in wrong:
            typer.echo(sentence, err=True)
        if wrong:
            raise typer.Exit(FAILED if made.led else ELSEWHERE)
        return

    def end(_number: int, _frame: object) -> None:
        made.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    made.run(host=host, port=port, listening=lambda at: LOG.info("probes are on port %d", at))
    LOG.info("ended; whoever leads next goes on")
