"""Status: what serves on this machine, and whether it answers just now."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from penstock.cli.home import Home, called, carrying, home
from penstock.cli.screen import plain, row, terminal
from penstock.release import EVERYWHERE
from penstock.rollout import admin, envoy, kill, killserver, killtokens
from penstock.rollout.access import LOOPBACK, AccessError
from penstock.rollout.plane import Plane
from penstock.rollout.table import BUCKETS, TrafficTable

OK = 200
STALE_S = 5.0
"""What was seen longer ago is no news: the supervisor looks ten times a second."""


def status(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON, for programs.")
    ] = False,
) -> None:
    """Show what serves: slots, versions, share of users, crashes, what the log has lost.

    Example: penstock status

    Exit codes: 0 the champion answers; 1 it does not, or nothing runs.
    """
    held = home()
    found = look(held)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        _draw(found)
    if not found["answers"]:
        raise typer.Exit(1)


def look(held: Home) -> dict[str, Any]:
    """Return what serves, as plain values; ``answers`` says whether the champion does just now."""
    found: dict[str, Any] = {"running": Plane.running(held.path), "answers": False}
    found["run"] = carrying(held)
    thrown = kill.killed(held.path)
    found["killed"] = None if thrown is None else _thrown(held, thrown)
    found["kill_server"] = _kill_server(held)
    if not found["running"]:
        return found
    plane = Plane.attach(held.path)
    found |= {"url": plane.url, **plane.status(), "log": {}}
    table, found["note"] = _table(plane)
    found["table"] = None if table is None else table.to_dict()
    found["markets"] = {
        market: held.to_dict() for market, held in plane.tables().items() if market != EVERYWHERE
    }
    found["users"] = admin.answered(found["admin"])
    for slot in found["slots"]:
        found["log"][slot] = counted(plane.log_folder(slot))
    asked = [name for name, slot in found["slots"].items() if slot["version"]]
    found["answering"] = [name for name in asked if _answers(plane, name, found["model"])]
    wanted = thrown.to if thrown is not None else None if table is None else table.champion
    found["answers"] = wanted in found["answering"]
    return found


def _thrown(held: Home, thrown: kill.Request) -> dict[str, Any]:
    known = bool(thrown.id) and not kill.unrecorded(held.path)
    return {"to": thrown.to, "why": str(thrown), "entered": known}


def _kill_server(held: Home) -> dict[str, Any] | None:
    """Return where the kill switch is heard over HTTP, and whether it is; None without tokens."""
    try:
        port = killtokens.port_of(held.path)
        return None if port is None else {"port": port, "heard": killserver.heard(port)}
    except AccessError as e:
        return {"port": None, "heard": False, "error": str(e)}


def _table(plane: Plane) -> tuple[TrafficTable | None, str]:
    """Return the table in force, or the one that was written last with a word about it."""
    try:
        return plane.observe(), ""
    except envoy.EnvoyError as e:
        note = f"the edge does not answer, this is what it was told last ({e})"
    try:
        return plane.written(), note
    except (OSError, LookupError, ValueError) as e:
        return None, f"nobody knows who answers: the edge does not say and its table is unread: {e}"


def _answers(plane: Plane, slot: str, model: str) -> bool:
    """Ask a slot as a user's request would go: through Envoy."""
    try:
        return plane.probe(slot, f"/v2/models/{model}/ready")[0] == OK
    except (OSError, http.client.HTTPException):
        return False


def _draw(found: Mapping[str, Any]) -> None:
    console = terminal()
    if found["run"] is not None:
        console.print(plain(f"a run is going on (process {found['run']})"))
    if found["killed"] is not None:
        _draw_killed(found["killed"])
    if found["kill_server"] is not None:
        console.print(_kill_row(found["kill_server"]))
    if not found["running"]:
        console.print(f"nothing is running; {called()} up starts the servers")
        return
    table = None if found["table"] is None else TrafficTable.from_dict(found["table"])
    number = "unknown" if table is None else table.sequence
    console.print(plain(f"{found['model']} at {found['url']}, table {number}, {_seen(found)}"))
    if found["note"]:
        console.print(plain(found["note"]))
    for market, held in found["markets"].items():
        console.print(plain(f"market {market}: {_split(TrafficTable.from_dict(held))}"))
    console.print(row("edge", None, "ready" if found["envoy"] else "waiting", _edge(found)))
    for slot, state in found["slots"].items():
        words = _slot(slot, state, table, found["log"][slot], answers=slot in found["answering"])
        console.print(row(f"slot {slot}", None, state["state"], words))


def _draw_killed(killed: Mapping[str, Any]) -> None:
    console = terminal()
    console.print(plain(f"KILL SWITCH: {killed['why']}; penstock kill clear ends it"))
    if not killed["entered"]:
        console.print("it is not in the ledger yet; penstock kill show enters it")


def _kill_row(said: Mapping[str, Any]) -> Table:
    heard = f"heard at {LOOPBACK}:{said['port']}"
    words = heard if said["heard"] else said.get("error") or f"NOT HEARD at port {said['port']}"
    return row("kill server", None, "ready" if said["heard"] else "waiting", words)


def _seen(seen: Mapping[str, Any]) -> str:
    age_s = max(0.0, time.time() - seen["at"])
    alarm = "; the supervisor does not answer" if age_s > STALE_S else ""
    return f"seen {age_s:.1f} s ago{alarm}"


def asked_for(seen: Mapping[str, Any]) -> str:
    """Return in words who may ask."""
    words = ["TLS" if seen["tls"] else "no TLS"]
    if seen["clients"]:
        words.append("client certificates")
    words.append(f"tokens of {', '.join(seen['tokens'])}" if seen["tokens"] else "no token")
    return ", ".join(words)


def _edge(seen: Mapping[str, Any]) -> str:
    words = [asked_for(seen), f"admin {seen['admin']}"]
    if users := seen["users"]:
        words.append(f"{users['requests']} requests of users since it started")
        if users["failed"]:
            words.append(f"{users['failed']} OF THEM ANSWERED 5xx")
        if users["unreached"]:
            words.append(f"a server was not reached {users['unreached']} times")
    words += _crashes(seen["edge_restarts"], seen["edge_error"], looping=seen["edge_looping"])
    if seen["access_error"]:
        words.append(f"who may ask is as it was: {seen['access_error']}")
    return ", ".join(words)


def _slot(
    slot: str,
    state: Mapping[str, Any],
    table: TrafficTable | None,
    log: Mapping[str, Any],
    *,
    answers: bool,
) -> str:
    if not state.get("version"):
        return "empty"
    words = [f"version {state['version']}", "answers now" if answers else "DOES NOT ANSWER"]
    words += [_share(slot, table)] if table is not None else []
    words += [f"process {state['pid']}"] if state["pid"] else ["no process"]
    words.append(f"port {state['port']}")
    if state["metrics_port"]:
        words.append(f"metrics {state['metrics_port']}")
    if state["seconds"] is not None and state["state"] == "ready":
        words.append(f"ready after {state['seconds']:.1f} s")
    words += _crashes(state["restarts"], state["error"], looping=state["looping"])
    if log["lost"]:
        words.append(f"predictions lost: {log['lost']}")
    if log["problem"]:
        words.append(f"prediction log: {log['problem']}")
    return ", ".join(words)


def _crashes(restarts: int, error: str, *, looping: bool) -> list[str]:
    found = ["CRASH LOOP"] if looping else []
    if restarts:
        found.append("restarted once" if restarts == 1 else f"restarted {restarts} times")
    return [*found, f"last error: {error}"] if error else found


def _split(table: TrafficTable) -> str:
    """Return in words who answers the users of a market."""
    slots = (table.champion, *([table.challenger] if table.buckets and table.challenger else []))
    return ", ".join(f"slot {slot} {_share(slot, table)}" for slot in slots)


def _share(slot: str, table: TrafficTable) -> str:
    percent = 100 * table.buckets / BUCKETS
    if slot == table.champion:
        return f"{100 - percent:.0f} % of users"
    if slot == table.challenger:
        return f"{percent:.0f} % of users"
    if slot == table.mirror:
        return "a copy of every request"
    return "stands by, a copy of one in a hundred" if slot == table.trickle else "no users"


def counted(folder: Path) -> dict[str, Any]:
    """Return how many predictions a slot's log has not kept, and what hinders it now."""
    held: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        held = json.loads((folder / "counters.json").read_text(encoding="utf-8"))
    lost = int(held.get("dropped", 0)) + int(held.get("failed", 0))
    return {"lost": lost, "problem": str(held.get("problem") or "")}
