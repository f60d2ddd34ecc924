"""Read what Feast keeps in SQLite and in Redis, by the bytes of its keys."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from penstock.online.layout import Layout, OnlineError, StoreOut, ViewLayout
from penstock.online.wire import timestamp_us

if TYPE_CHECKING:
    import redis

Stored = tuple[int | None, Sequence[bytes | None]]
"""Event time in microseconds since 1970, None if the entity is unknown; a value per feature."""

Key = tuple[int, bytes]
"""Index of a view in its layout, and an entity's key in it."""


SCHEMES = ("redis", "rediss", "unix")
"""Of addresses that are no path."""

AT_ONCE = 64
"""Keys that one SQL statement asks for; SQLite refuses statements of 500 parts."""


class Store(Protocol):
    """Reads stored values; one answer per key, in order."""

    def read(self, keys: Sequence[Key]) -> list[Stored]:
        """Return what is stored of each key.

        Raises:
            StoreOut: The store did not answer in time.
            OnlineError: It holds something else than features under a key.
        """
        ...

    def check(self) -> None:
        """Return if the store answers.

        Raises:
            StoreOut: It does not.
        """
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


def opened(address: str, layout: Layout, *, timeout_s: float = 0.05) -> Store:
    """Open a store by its address: a path of a SQLite file, or ``redis://host:port/database``.

    Args:
        timeout_s: Longest wait for one answer of the store.

    Raises:
        OnlineError: There is no such store, or it lacks a view of the layout.
    """
    scheme, is_url, _ = address.partition("://")
    if is_url and scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise OnlineError(
            f"the online store's address begins with {scheme}://, which is no store that is read; "
            f"{known} or the path of a SQLite file was wanted."
        )
    if is_url:
        return RedisStore(address, layout, timeout_s=timeout_s)
    return SqliteStore(Path(address), layout, timeout_s=timeout_s)


class SqliteStore:
    """The file that Feast's SQLite store writes; a file put in its place is noticed.

    Feast keeps event times there in whole seconds, cut off: a value's time to live ends up to one
    second early. In Redis they are kept to the nanosecond.
    """

    def __init__(self, path: Path, layout: Layout, *, timeout_s: float) -> None:
        """Open the file for reading.

        Raises:
            OnlineError: There is no such file, or it lacks a view.
        """
        self._path, self._layout, self._timeout_s = path, layout, timeout_s
        self._connection, self._identity = self._connect()
        self._asked: dict[tuple[int, ...], str] = {}
        self._order = [{n: i for i, n in enumerate(v.features)} for v in layout.views]

    def _connect(self) -> tuple[sqlite3.Connection, tuple[int, int]]:
        try:
            seen = self._path.stat()
            connection = sqlite3.connect(
                f"{self._path.resolve().as_uri()}?mode=ro",
                uri=True,
                timeout=self._timeout_s,
                check_same_thread=False,
            )
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            held = {name for (name,) in connection.execute(query)}
        except FileNotFoundError as e:
            raise OnlineError(f"the online store {self._path} cannot be read: {e}") from e
        except (OSError, sqlite3.Error) as e:
            raise StoreOut(f"the online store {self._path} cannot be read: {e}") from e
        prefix = f"{self._layout.project}_"
        if absent := [v.name for v in self._layout.views if prefix + v.name not in held]:
            there = ", ".join(sorted(n.removeprefix(prefix) for n in held)) or "nothing"
            connection.close()
            raise OnlineError(
                f"the online store {self._path} has no view {', '.join(absent)}; it holds {there}. "
                "Apply and materialize the feature definitions."
            )
        return connection, (seen.st_dev, seen.st_ino)

    def read(self, keys: Sequence[Key]) -> list[Stored]:
        """Return what is stored of each key, many in one statement."""
        if len(keys) > AT_ONCE:
            parts = (keys[at : at + AT_ONCE] for at in range(0, len(keys), AT_ONCE))
            return [one for part in parts for one in self.read(part)]
        views = tuple(view for view, _ in keys)
        query = self._asked.get(views)
        if query is None:
            query = self._asked[views] = " UNION ALL ".join(
                f"SELECT {at}, feature_name, value, event_ts FROM {self._table(view)} "  # noqa: S608 - names quoted
                "WHERE entity_key = ?"
                for at, view in enumerate(views)
            )
        found: list[tuple[int | None, list[bytes | None]]] = [
            (None, [None] * len(self._order[view])) for view in views
        ]
        told: list[int | None] = [None] * len(views)
        for at, name, value, event in self._rows(query, [key for _, key in keys]):
            place = self._order[views[at]].get(name)
            if place is not None:
                found[at][1][place] = value
                told[at] = event
        return [
            (None if event is None else event * 1_000_000, values)
            for event, (_, values) in zip(told, found, strict=True)
        ]

    def _table(self, view: int) -> str:
        name = f"{self._layout.project}_{self._layout.views[view].name}"
        return '"' + name.replace('"', '""') + '"'

    def _rows(self, query: str, keys: Sequence[bytes] = ()) -> list[tuple[int, str, bytes, int]]:
        try:
            seen = self._path.stat()
            if (seen.st_dev, seen.st_ino) != self._identity:
                self._connection.close()
                self._connection, self._identity = self._connect()
            return self._connection.execute(query, keys).fetchall()
        except OnlineError as e:
            raise StoreOut(str(e)) from e
        except (OSError, sqlite3.Error) as e:
            raise StoreOut(f"the online store {self._path} cannot be read: {e}") from e

    def check(self) -> None:
        """Return if the file can be read."""
        for view in range(len(self._layout.views)):
            self._rows(f"SELECT 0, feature_name, value, event_ts FROM {self._table(view)} LIMIT 1")  # noqa: S608 - names quoted

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class RedisStore:
    """The hashes that Feast's Redis store writes: one per entity, shared by its views."""

    def __init__(self, url: str, layout: Layout, *, timeout_s: float) -> None:
        """Connect.

        Raises:
            OnlineError: Nobody answers in time.
        """
        import redis  # noqa: PLC0415 - only where features lie in Redis

        self._url = _without_password(url)
        self._timeout_s = timeout_s
        self._errors = (redis.RedisError, OSError)
        self._refusal, self._late = redis.ResponseError, redis.TimeoutError
        self._project = layout.project.encode()
        self._fields = [_fields(view) for view in layout.views]
        self._client: redis.Redis = redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=None,
        )
        self.check()

    def check(self) -> None:
        """Return if it answers; the connection stays open for the next look-up."""
        try:
            self._client.ping()
        except self._errors as e:
            raise self._silent(e) from e

    def read(self, keys: Sequence[Key]) -> list[Stored]:
        """Return what is stored of each key, in one exchange.

        Views of the same entity share a hash, and are asked for together.
        """
        sharing: dict[bytes, list[int]] = {}
        for at, (_, key) in enumerate(keys):
            sharing.setdefault(key, []).append(at)
        commands: list[tuple[Any, ...]] = []
        for key, places in sharing.items():
            fields = [f for at in places for f in self._fields[keys[at][0]]]
            commands.append(("HMGET", key + self._project, *fields))
        try:
            replies = self._exchange(commands)
        except self._errors as e:
            raise self._silent(e) from e
        found: list[Stored] = [(None, ())] * len(keys)
        for places, reply in zip(sharing.values(), replies, strict=True):
            first = 0
            for at in places:
                last = first + len(self._fields[keys[at][0]]) - 1
                event = reply[last]
                found[at] = (None if event is None else timestamp_us(event), reply[first:last])
                first = last + 1
        return found

    def _exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[list[bytes | None]]:
        """Send commands at once and return their replies.

        A third faster than the client's own pipeline, whose objects take longer than the network
        within one machine room.
        """
        pool = self._client.connection_pool
        connection = pool.get_connection()
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            return self._replies(connection, len(commands))
        except self._refusal:
            raise
        except BaseException:
            # Replies that are still to come would be taken for those of the next look-up.
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    def _replies(self, connection: Any, count: int) -> list[list[bytes | None]]:
        """Return the replies; those after a refused one are read too, as nobody else may."""
        replies: list[list[bytes | None]] = []
        refused: Exception | None = None
        # The socket's limit is for one reply; many that come slowly may not take longer together.
        end = time.monotonic() + self._timeout_s
        for left in range(count - 1, -1, -1):
            try:
                replies.append(connection.read_response())
            except self._refusal as e:
                refused = e
            if left and time.monotonic() > end:
                raise self._late(f"{left} of {count} replies were missing")
        if refused is not None:
            raise refused
        return replies

    def _silent(self, error: Exception) -> OnlineError:
        if isinstance(error, self._refusal) and str(error).startswith("WRONGTYPE"):
            return OnlineError(f"the online store {self._url} holds no features there: {error}")
        return StoreOut(
            f"the online store {self._url} did not answer within {self._timeout_s * 1000:.0f} ms: "
            f"{error}"
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _fields(view: ViewLayout) -> list[Any]:
    return [*(bytes.fromhex(field) for field in view.fields), f"_ts:{view.name}".encode()]


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://{tail}" if at else url
