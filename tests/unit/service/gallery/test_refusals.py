"""A store that is there and refuses, and one that has few connections for many who ask."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from service.api.errors import StoreUnavailableError
from service.gallery.condition import reason
from service.gallery.store import GalleryStore
from service.gallery.store_connection import connect_store
from service.watch.metrics import STORE_UP
from tests.e2e.service import free_port
from tests.e2e.valkey import plain_valkey
from tests.factories import SIZES


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    with plain_valkey(port, tmp_path_factory.mktemp("data")), redis.Redis(port=port) as raw:
        for user, rules in (
            ("nokeys", "~other:* +@all"),
            ("noeval", "~* +@all -eval"),
            ("readonly", "~* +@all -@write"),
            # As docs/stores.md has it.
            ("enough", "~locore:* +@read +@write +@connection +eval +time"),
        ):
            raw.execute_command("ACL", "SETUSER", user, "on", ">secret", *rules.split())
        yield port


@pytest.fixture
def raw(port: int) -> Iterator[redis.Redis]:
    with redis.Redis(port=port) as client:
        yield client


def with_store(url: str, work: Callable[[GalleryStore], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        store = connect_store(url)
        try:
            async with asyncio.timeout(60):
                await work(store)
        finally:
            await store.close()

    asyncio.run(run())


async def refused(store: GalleryStore, *operations: str) -> str:
    """The reason for the last one."""
    attempts: dict[str, Callable[[], Awaitable[object]]] = {
        "ping": store.ping,
        "put": lambda: store.put("x", {"a": b"a record"}, SIZES, None),
        "fetch": lambda: store.fetch("x", ["a"]),
        "versions": lambda: store.versions("x", ["a"]),
        "page": lambda: store.page("x", 1, None),
        "delete": lambda: store.delete("x", "a"),
    }
    for operation in operations or attempts:
        with pytest.raises(StoreUnavailableError) as caught:
            await attempts[operation]()
        assert STORE_UP._value.get() == 0
    assert caught.value.__cause__ is not None
    return reason(caught.value.__cause__)


def busy(port: int) -> threading.Thread:
    def run() -> None:
        with redis.Redis(port=port) as client, pytest.raises(redis.ResponseError):
            client.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@contextmanager
def refusing(kind: str, port: int, raw: redis.Redis) -> Iterator[None]:
    """The store refuses all."""
    match kind:
        case "busy":
            raw.config_set("busy-reply-threshold", 20)
            thread = busy(port)
            time.sleep(0.2)
            yield
            raw.script_kill()
            thread.join()
        case "replica without its primary":
            raw.config_set("replica-serve-stale-data", "no")
            raw.replicaof("127.0.0.1", 1)
            yield
            raw.replicaof("NO", "ONE")
        case "a password is asked for":
            raw.config_set("requirepass", "secret")
            yield
            raw.config_set("requirepass", "")
        case "too many clients":
            raw.config_set("maxclients", 1)
            yield
            raw.config_set("maxclients", 1000)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("busy", "BUSY"),
        ("replica without its primary", "MASTER is down"),
        ("a password is asked for", "Authentication required"),
        ("too many clients", "max number of clients"),
    ],
)
def test_a_store_that_refuses_is_unavailable_until_it_does_not(
    port: int, raw: redis.Redis, kind: str, why: str
) -> None:
    url = f"redis://127.0.0.1:{port}"

    async def work(store: GalleryStore) -> None:
        assert why in await refused(store)

    async def again(store: GalleryStore) -> None:
        await store.ping()
        assert STORE_UP._value.get() == 1

    with refusing(kind, port, raw):
        with_store(url, work)
    with_store(url, again)


@pytest.mark.parametrize(
    ("user", "operations", "why"),
    [
        ("nokeys", (), "No permissions to access a key"),
        ("noeval", ("ping", "put", "page", "delete"), "no permissions to run the 'eval' command"),
        ("readonly", ("ping", "put", "delete"), "no permissions to run"),
    ],
)
def test_a_user_who_may_not_do_all_is_refused(
    port: int, user: str, operations: tuple[str, ...], why: str
) -> None:
    async def work(store: GalleryStore) -> None:
        message = await refused(store, *operations)
        assert why in message
        assert "EVAL" not in message
        if operations:
            # What works does not hide what does not.
            assert (await store.fetch("x", ["a"])).records == [None]
            assert STORE_UP._value.get() == 0

    with_store(f"redis://{user}:secret@127.0.0.1:{port}", work)


def test_a_user_needs_what_is_documented(port: int) -> None:
    async def work(store: GalleryStore) -> None:
        await store.ping()
        assert await store.put("y", {"a": b"a record"}, SIZES, 60) == 0
        assert (await store.fetch("y", ["a"])).expiring
        assert (await store.page("y", 1, None)).ids == ["a"]
        assert await store.delete("y", "a")

    with_store(f"redis://enough:secret@127.0.0.1:{port}", work)


def test_a_read_only_store_is_not_ready(port: int, raw: redis.Redis) -> None:
    async def work(store: GalleryStore) -> None:
        await refused(store, "ping", "put", "delete")

    raw.replicaof("127.0.0.1", 1)
    try:
        with_store(f"redis://127.0.0.1:{port}", work)
    finally:
        raw.replicaof("NO", "ONE")


def test_a_store_that_lacks_replicas_can_be_read(port: int, raw: redis.Redis) -> None:
    async def work(store: GalleryStore) -> None:
        await store.ping()
        with pytest.raises(StoreUnavailableError):
            await store.put("x", {"a": b"a record"}, SIZES, None)
        assert STORE_UP._value.get() == 1

    raw.config_set("min-replicas-to-write", 1)
    try:
        with_store(f"redis://127.0.0.1:{port}", work)
    finally:
        raw.config_set("min-replicas-to-write", 0)


def test_somebody_elses_data_under_our_keys_is_no_refusal(port: int, raw: redis.Redis) -> None:
    async def work(store: GalleryStore) -> None:
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            await store.versions("other", ["a"])
        await store.ping()

    raw.lpush("locore:image:other|a", "something else")
    with_store(f"redis://127.0.0.1:{port}", work)


def test_requests_wait_for_a_connection(port: int, raw: redis.Redis) -> None:
    async def work(store: GalleryStore) -> None:
        names = [f"{number:03}" for number in range(40)]
        await store.put("many", dict.fromkeys(names, bytes(10_000)), SIZES, None)
        answers = await asyncio.gather(*(store.fetch("many", names) for _ in range(40)))
        assert all(None not in answer.records for answer in answers)
        clients = [client["name"] for client in raw.client_list()]
        assert clients.count("few") == 2

    with_store(f"redis://127.0.0.1:{port}?max_connections=2&client_name=few", work)


def test_who_waits_for_a_connection_can_be_cut_off(port: int, raw: redis.Redis) -> None:
    """As a re-ranking is at its deadline; the store is well all the while."""

    async def work(store: GalleryStore) -> None:
        await store.ping()
        raw.client_pause(1000)
        first = asyncio.create_task(store.fetch("x", ["a"]))
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await store.fetch("x", ["b"])
        assert (await first).records == [None]
        assert (await store.fetch("x", ["c"])).records == [None]
        assert STORE_UP._value.get() == 1

    with_store(f"redis://127.0.0.1:{port}?max_connections=1", work)
