"""Laws of a guarded store: an outage costs one exchange, and ends without anybody's doing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from redis import Redis as Client

from penstock.online import Guarded, Layout, Lookup, OnlineError, StoreOut, UnfitKey, opened
from penstock.online.store import Key, Store, Stored
from penstock.online.wire import key_prefix, key_value
from tests.online.servers import Redis, redis_server
from tests.online.test_lookup import ENTITIES, Case, T, a_store
from tests.packages import free_port, wait_for

RETRY_S = 0.02


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    """A Redis server for this module."""
    with redis_server() as server:
        yield server


def filled(folder: Path, port: int) -> Case:
    """Return a case whose values lie in the Redis at a port."""
    text = f'  type: redis\n  connection_string: "127.0.0.1:{port},db=0"\n'
    return Case(a_store(folder / "repo", text), f"redis://127.0.0.1:{port}/0")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, redis: Redis) -> Case:
    """A filled store."""
    return filled(tmp_path_factory.mktemp("guarded"), redis.port)


def guarded(case: Case, *, retry_s: float = RETRY_S) -> tuple[Guarded, Lookup]:
    """Return a guarded store and what looks up in it."""
    layout = case.layout()
    store = Guarded(lambda: opened(case.address, layout, timeout_s=0.2), retry_s=retry_s)
    return store, Lookup(layout, store, clock=lambda: T)


def taste(lookup: Lookup) -> float:
    """Return a feature of an entity that is known."""
    return lookup.get(ENTITIES[0]).values["taste"]


def test_an_outage_costs_one_exchange_however_many_ask(case: Case, redis: Redis):
    """Of a hundred look-ups the first meets the silence; when it ends, so does the outage."""
    store, lookup = guarded(case)
    assert taste(lookup) == 0.25
    redis.freeze()
    try:
        for _ in range(100):
            with pytest.raises(StoreOut):
                lookup.get(ENTITIES[0])
        asked = (store.exchanges, store.outages, lookup.counts.failed, store.out)
        with pytest.raises(StoreOut, match="did not answer within 200 ms"):
            store.check()
    finally:
        redis.thaw()
    wait_for(lambda: not store.out, 10)

    assert asked == (2, 1, 100, True)
    assert taste(lookup) == 0.25
    store.check()
    store.close()


class Late:
    """A real store whose reads take as long as the test says, by a clock of its own."""

    def __init__(self, store: Store) -> None:
        self._store, self.now_s, self.takes_s, self.asked = store, 0.0, 0.0, 0
        self.close = store.close

    def clock(self) -> float:
        return self.now_s

    def read(self, keys: Sequence[Key]) -> list[Stored]:
        self.now_s += self.takes_s
        self.asked += 1
        return self._store.read(keys)

    def check(self) -> None:
        self.now_s += self.takes_s
        self.asked += 1
        self._store.check()


def test_a_store_that_answers_slowly_is_taken_out_and_comes_back(tmp_path: Path):
    """One slow read is nobody's fault, the second takes it out; slow tries do not let it in."""
    path = tmp_path / "online.db"
    layout = Case(
        a_store(tmp_path / "repo", f"  type: sqlite\n  path: {path}\n"), str(path)
    ).layout()
    late = Late(opened(str(path), layout, timeout_s=0.2))
    store = Guarded(lambda: late, retry_s=RETRY_S, clock=late.clock)
    lookup = Lookup(layout, store, clock=lambda: T)
    late.takes_s = 1.0
    assert taste(lookup) == 0.25
    late.takes_s = 0.001
    for _ in range(20):
        assert taste(lookup) == 0.25
    late.takes_s = 0.045
    for _ in range(2):
        assert taste(lookup) == 0.25, "a slow answer is an answer"
    for _ in range(38):
        with pytest.raises(StoreOut, match=r"reads take 1[0-9] ms, 10 ms are allowed"):
            lookup.get(ENTITIES[0])
    tried = late.asked
    assert (store.exchanges, store.outages) == (23, 1)
    wait_for(lambda: late.asked > tried + 2, 10)
    assert store.out, "it answers, and no faster"
    late.takes_s = 0.001
    wait_for(lambda: not store.out, 10)

    assert taste(lookup) == 0.25
    assert not store.out
    store.close()


def test_a_server_that_died_and_came_back_is_asked_again(tmp_path: Path):
    """Killed, gone, and started anew at the same place."""
    port = free_port()
    with redis_server(port) as first:
        case = filled(tmp_path, port)
        store, lookup = guarded(case)
        assert taste(lookup) == 0.25
        first.kill()
        with pytest.raises(StoreOut):
            lookup.get(ENTITIES[0])
        with pytest.raises(StoreOut, match="not asked until it answers again"):
            lookup.get(ENTITIES[0])
        with redis_server(port):
            wait_for(lambda: not store.out, 10)
            assert lookup.get(ENTITIES[0]).values["taste"] is None, "it holds nothing now"
            assert store.exchanges == 3
            store.close()


def test_a_store_that_is_not_there_yet_is_waited_for(tmp_path: Path):
    """A server may start while Redis is down."""
    port = free_port()
    with redis_server(port) as redis:
        case = filled(tmp_path, port)
        redis.freeze()
        store, lookup = guarded(case)
        with pytest.raises(StoreOut):
            lookup.get(ENTITIES[0])
        redis.thaw()
        wait_for(lambda: not store.out, 10)

        assert taste(lookup) == 0.25
        assert store.exchanges == 1
        store.close()


def test_a_store_that_is_another_is_refused_at_once(tmp_path: Path):
    """What no waiting mends is said at the door."""
    folder = tmp_path / "repo"
    path = tmp_path / "online.db"
    layout = Case(a_store(folder, f"  type: sqlite\n  path: {path}\n"), str(path)).layout()

    with pytest.raises(OnlineError, match="cannot be read"):
        Guarded(lambda: opened(str(tmp_path / "none.db"), layout, timeout_s=0.2))
    path.rename(tmp_path / "moved.db")
    path.write_bytes(b"")
    with pytest.raises(OnlineError, match="has no view"):
        Guarded(lambda: opened(str(path), layout, timeout_s=0.2))


@pytest.mark.parametrize("address", ["ftp://x", "http://u:secret@x/0", "redi://x"])
def test_an_address_of_no_store_is_told_what_is_one(address: str, tmp_path: Path):
    """By its scheme, and without what stands behind it, which may be a password."""
    layout = Layout(project="p", service="s", definitions="d", views=())
    scheme = address.partition(":")[0]

    with pytest.raises(OnlineError, match=f"begins with {scheme}://.*redis://.*SQLite") as e:
        opened(address, layout)
    assert "secret" not in str(e.value)


def test_a_file_that_went_away_is_waited_for(tmp_path: Path):
    """A materialization that moves the file aside for a moment."""
    path = tmp_path / "online.db"
    case = Case(a_store(tmp_path / "repo", f"  type: sqlite\n  path: {path}\n"), str(path))
    store, lookup = guarded(case)
    assert taste(lookup) == 0.25
    path.rename(tmp_path / "moved.db")
    for _ in range(10):
        with pytest.raises(StoreOut):
            lookup.get(ENTITIES[0])
    (tmp_path / "moved.db").rename(path)
    wait_for(lambda: not store.out, 10)

    assert taste(lookup) == 0.25
    assert store.exchanges == 3
    store.close()


def test_what_is_wrong_with_one_entity_takes_no_store_out(case: Case, redis: Redis):
    """A key of another type, and a key that holds something else, are one caller's trouble."""
    layout = case.layout()
    view = next(v for v in layout.views if v.name == "users")
    key = key_prefix(view.keys) + key_value(78, view.keys[0]) + layout.project.encode()
    client = Client(port=redis.port)
    client.set(key, "no hash")
    before = client.info("stats")["total_connections_received"]
    store, lookup = guarded(case)

    with pytest.raises(UnfitKey):
        lookup.get({"user_id": "1", "category": "x"})
    with pytest.raises(OnlineError, match="holds no features there"):
        lookup.get({"user_id": 78, "category": "x"})

    assert not store.out
    assert taste(lookup) == 0.25
    assert store.exchanges == 2, "a key that does not fit asks nobody"
    assert client.info("stats")["total_connections_received"] == before + 1, "its own first one"
    client.delete(key)
    client.close()
    store.close()


def test_a_closed_store_is_tried_no_more(case: Case, redis: Redis):
    """Its thread ends, whether the store is back or not."""
    store, lookup = guarded(case, retry_s=60)
    redis.freeze()
    try:
        with pytest.raises(StoreOut):
            lookup.get(ENTITIES[0])
        store.close()
    finally:
        redis.thaw()

    assert store.out
    assert store._waiting is not None
    assert not store._waiting.is_alive()
