"""The cluster's store on the smallest cluster there is: one node with all slots."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis.asyncio as redis

from service.api.errors import StoreFullError, StoreUnavailableError
from service.gallery.record import HEADER_BYTES
from service.gallery.store import GalleryStore
from service.gallery.store_connection import connect_store
from tests.factories import SIZES
from tests.slow.valkey_nodes import Node


def record(text: str) -> bytes:
    """Bytes whose first ones, as a record's, tell one version from another."""
    return text.encode().ljust(HEADER_BYTES, b".") + b"descriptors"


def with_store(node: Node, work: Callable[[GalleryStore, redis.Redis], Awaitable[None]]) -> None:
    """On an empty store, whose node is left as it was."""

    async def run() -> None:
        store = connect_store(f"redis+cluster://{node.address}")
        raw = redis.Redis(port=node.port)
        try:
            async with asyncio.timeout(60):
                await raw.flushall()
                await work(store, raw)
        finally:
            await raw.config_set("maxmemory", 0)
            await raw.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"])
            await raw.aclose()
            await store.close()

    asyncio.run(run())


def test_it_keeps_a_gallery_as_a_single_node_does(cluster: Node) -> None:
    async def work(store: GalleryStore, raw: redis.Redis) -> None:
        await store.ping()
        many = {f"{n:04}": record(f"{n}") for n in range(1000)}
        assert await store.put("x", many, SIZES, None) == 0
        assert await store.put("x", {"0001": record("new"), "y": record("y")}, SIZES, None) == 1
        assert (await store.fetch("x", ["y", "0001", "none", "0002"])).records == [
            record("y"),
            record("new"),
            None,
            record("2"),
        ]
        assert (await store.fetch("y", ["0001"])).records == [None]
        assert (await store.fetch("x", list(many))).records == list(
            (many | {"0001": record("new")}).values()
        )
        assert await store.versions("x", ["y", "none"]) == [record("y")[:HEADER_BYTES], b""]
        page = await store.page("x", 2, "0998")
        assert (page.count, page.ids, page.next_cursor) == (1001, ["0999", "y"], None)
        assert (await store.page("x", 1, "0998")).next_cursor == "0999"
        assert await store.delete("x", "y")
        assert not await store.delete("x", "y")
        assert (await store.page("x", 2, "0998")).ids == ["0999"]
        # Beside the records the list, sizes, version, name, names, and the last claim.
        assert await raw.dbsize() == 1006

    with_store(cluster, work)


def test_its_memory_is_that_of_the_primaries(cluster: Node) -> None:
    async def work(store: GalleryStore, raw: redis.Redis) -> None:
        before = await store.memory_bytes()
        await store.put("x", {"a": bytes(5_000_000)}, SIZES, None)
        assert 4_000_000 < await store.memory_bytes() - before < 20_000_000

    with_store(cluster, work)


def test_images_expire_with_their_place_in_the_list(cluster: Node) -> None:
    async def work(store: GalleryStore, raw: redis.Redis) -> None:
        await store.put("x", {"a": record("a"), "b": record("b")}, SIZES, 1)
        await store.put("x", {"b": record("b"), "c": record("c")}, SIZES, None)
        await store.put("x", {"d": record("d")}, SIZES, 600)
        await asyncio.sleep(2.1)
        assert (await store.fetch("x", ["a", "b"])).records == [None, record("b")]
        assert (await store.page("x", 9, None)).ids == ["b", "c", "d"]
        assert 590 < await raw.ttl("locore:image:x|d") <= 600

    with_store(cluster, work)


def test_a_full_node_takes_nothing(cluster: Node) -> None:
    async def work(store: GalleryStore, raw: redis.Redis) -> None:
        await store.put("x", {"a": record("a")}, SIZES, None)
        await raw.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError):
            await store.put("x", {"a": record("new"), "b": record("b")}, SIZES, None)
        assert (await store.fetch("x", ["a", "b"])).records == [record("a"), None]
        assert (await store.page("x", 9, None)).ids == ["a"]

    with_store(cluster, work)


def test_where_the_lists_cannot_be_changed_the_records_go_back(cluster: Node) -> None:
    async def work(store: GalleryStore, raw: redis.Redis) -> None:
        await store.put("x", {"stay": record("old")}, SIZES, None)
        await store.put("x", {"go": record("old")}, SIZES, 600)
        # The lists' node refuses, after the records were taken.
        await raw.acl_setuser("default", enabled=True, nopass=True, commands=["-zadd"])
        with pytest.raises(StoreUnavailableError) as caught:
            await store.put("x", {i: record("new") for i in ("stay", "go", "new")}, SIZES, None)
        assert "zadd" in str(caught.value.__cause__)
        assert (await store.fetch("x", ["stay", "go", "new"])).records == [record("old")] * 2 + [
            None
        ]
        assert (await raw.ttl("locore:image:x|stay")) == -1
        assert 590 < await raw.ttl("locore:image:x|go") <= 600
        assert (await store.page("x", 9, None)).ids == ["go", "stay"]

    with_store(cluster, work)


def test_a_cluster_that_lacks_slots_is_unavailable(cluster: Node) -> None:
    async def work(store: GalleryStore, raw: redis.Redis) -> None:
        await store.put("x", {"a": record("a")}, SIZES, None)
        await raw.cluster("DELSLOTS", 0)
        for attempt in (store.ping(), store.fetch("x", ["a"]), store.page("x", 1, None)):
            with pytest.raises(StoreUnavailableError):
                await attempt
        await raw.cluster("ADDSLOTS", 0)
        while True:
            try:
                await store.ping()
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
        assert (await store.fetch("x", ["a"])).records == [record("a")]

    with_store(cluster, work)


def test_a_redis_that_is_no_cluster_and_one_that_is_not_there_are_unavailable(
    tmp_path: Path,
) -> None:
    async def work(port: int) -> None:
        for place in (port, 1):
            store = connect_store(f"redis+cluster://127.0.0.1:{place}")
            with pytest.raises(StoreUnavailableError):
                await store.ping()
            await store.close()

    node = Node(tmp_path / "single")
    try:
        asyncio.run(work(node.port))
    finally:
        node.raw.close()
        node.kill()
