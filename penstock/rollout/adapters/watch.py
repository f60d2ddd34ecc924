"""What somebody else changed, as soon as the API server tells: reported, not repaired.

The controller repairs: at its next tick the table in force is not the intended one, and it decides
to restore it. What is found here is for people, and for waking the controller early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from penstock.rollout.adapters.cluster import WRITTEN, ClusterPlane
from penstock.rollout.adapters.server import WATCH_S, Expired, Missing, Object, Ref, Server
from penstock.rollout.ports import TableError


def changes(
    server: Server, ref: Ref, *, stop: Callable[[], bool], seconds: float = WATCH_S
) -> Iterator[Object | None]:
    """Yield an object as it is and after each change, None when it is gone, until stopped.

    A watch that ended is taken up after the last version that was seen, bookmarks included. What
    the server has forgotten is read anew, so that a change may be missed but never its result.

    Args:
        seconds: Longest that one watch is asked for.

    Raises:
        TableError: Nobody answers, or not to us.
    """
    found = _get(server, ref)
    yield found
    since = _version(found)
    while not stop():
        try:
            for change in server.watch(ref, since=since, seconds=seconds):
                since = change.object["metadata"]["resourceVersion"]
                if change.kind == "DELETED":
                    yield None
                elif change.kind != "BOOKMARK":
                    yield change.object
                if stop():
                    return
        except Expired:
            found = _get(server, ref)
            yield found
            since = _version(found)


def foreign_changes(
    server: Server,
    plane: ClusterPlane,
    *,
    stop: Callable[[], bool],
    seconds: float = WATCH_S,
) -> Iterator[str]:
    """Yield one sentence for each change that makes the main object another than its tables say.

    Raises:
        TableError: Nobody answers, or not to us.
    """
    last = ""
    for found in changes(server, plane.dialect.main, stop=stop, seconds=seconds):
        said = f"{plane.dialect.main} is gone" if found is None else _foreign(plane)
        what = said.partition(WRITTEN)[0]
        if said and what != last:
            yield said
        last = what


def _foreign(plane: ClusterPlane) -> str:
    try:
        return plane.foreign()
    except TableError as e:
        return str(e)


def _get(server: Server, ref: Ref) -> Object | None:
    try:
        return server.get(ref)
    except Missing:
        return None


def _version(found: Object | None) -> str:
    """Return the version to watch from; of what is not there, from now on."""
    return "" if found is None else found["metadata"]["resourceVersion"]
