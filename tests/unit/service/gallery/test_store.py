"""The gallery against a real Valkey: the embedded one, started and killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import redis.asyncio as redis

from service.api.errors import StoreFullError, StoreUnavailableError
from service.gallery.embedded import EmbeddedStoreError, EmbeddedValkey
from service.gallery.record import HEADER_BYTES, DamagedRecordError, GalleryRecord
from service.gallery.registered_images import CACHE_TRUST_SECONDS, Gallery
from service.gallery.store import CHUNK
from service.gallery.store_connection import connect_store
from tests.factories import SIZES, image, tiny_config

CONFIG = tiny_config()


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """A running Valkey, a raw client to it, and two replicas' galleries."""

    def __init__(self, valkey: EmbeddedValkey) -> None:
        self.valkey = valkey
        self.raw = redis.Redis.from_url(valkey.url)
        self.clock = Clock()
        self.stores = [connect_store(valkey.url) for _ in range(2)]
        self.gallery, self.replica = (
            Gallery(store, cache_bytes=1 << 20, dtype="float32", clock=self.clock)
            for store in self.stores
        )

    async def close(self) -> None:
        await self.raw.aclose()
        for store in self.stores:
            await store.close()


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    valkey = EmbeddedValkey(folder)
    await valkey.start()
    one_rig = Rig(valkey)
    try:
        yield one_rig
    finally:
        await one_rig.close()
        await valkey.stop()


def with_rig(folder: Path, work: Callable[[Rig], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), rig(folder) as one_rig:
            await work(one_rig)

    asyncio.run(run())


def records(*ids: str, seed: int = 0) -> dict[str, GalleryRecord]:
    rng = np.random.default_rng(seed)
    return {i: GalleryRecord(image(rng, CONFIG), {"id": i}) for i in ids}


def same(one: GalleryRecord, other: GalleryRecord) -> bool:
    return bool((one.descriptors.locals == other.descriptors.locals).all())


def test_collections_and_ids_that_share_their_letters_are_apart(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        one, other = records("1", seed=1), records("eu:1", seed=2)
        await r.gallery.register("shop:eu", one, None)
        assert (await r.gallery.register("shop", other, None)).replaced == 0
        images = await r.replica.fetch("shop:eu", ["1"])
        assert same(images["1"], one["1"])
        assert await r.gallery.delete("shop", "eu:1")
        assert await r.replica.get("shop:eu", "1") is not None

    with_rig(tmp_path, work)


def test_images_are_registered_replaced_listed_and_deleted(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        first, second = records("b", "a"), records("a", "c", seed=1)
        registration = await r.gallery.register("x", first, None)
        assert (registration.registered, registration.replaced) == (2, 0)
        registration = await r.gallery.register("x", second, None)
        assert (registration.registered, registration.replaced) == (2, 1)
        images = await r.gallery.fetch("x", ["c", "none", "a", "b"])
        assert set(images) == {"a", "b", "c"}
        assert same(images["a"], second["a"])
        assert images["b"].metadata == {"id": "b"}
        page = await r.gallery.page("x", 2, None)
        assert (page.count, page.ids, page.next_cursor) == (3, ["a", "b"], "b")
        page = await r.gallery.page("x", 2, page.next_cursor)
        assert (page.ids, page.next_cursor) == (["c"], None)
        assert await r.gallery.delete("x", "a")
        assert not await r.gallery.delete("x", "a")
        assert set(await r.gallery.fetch("x", ["a", "b"])) == {"b"}
        assert (await r.gallery.page("x", 9, None)).count == 2

    with_rig(tmp_path, work)


def test_versions_are_the_headers_in_the_order_of_the_ids(tmp_path: Path) -> None:
    """Also of more ids than one command asks for, of an id twice, and of images not there."""

    async def work(r: Rig) -> None:
        stored = {f"{number}": f"{number:09}".encode() * 9 for number in range(CHUNK + 5)}
        await r.stores[0].put("x", stored, SIZES, None)
        ids = ["none", *reversed(stored), "0"]
        versions = await r.stores[1].versions("x", ids)
        assert versions == [stored.get(image_id, b"")[:HEADER_BYTES] for image_id in ids]

    with_rig(tmp_path, work)


def test_the_memory_of_a_store_grows_with_its_images(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        before = await r.stores[0].memory_bytes()
        await r.stores[0].put("x", {"a": bytes(5_000_000)}, SIZES, None)
        assert 4_000_000 < await r.stores[0].memory_bytes() - before < 20_000_000

    with_rig(tmp_path, work)


def test_collections_are_apart(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        await r.gallery.register("x", records("a"), None)
        assert await r.gallery.fetch("y", ["a"]) == {}
        assert (await r.gallery.page("y", 9, None)).count == 0

    with_rig(tmp_path, work)


def test_more_ids_than_one_command_takes(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        ids = [f"{n:04}" for n in range(1000)]
        await r.gallery.register("x", records(*ids), None)
        assert list(await r.replica.fetch("x", ids)) == ids

    with_rig(tmp_path, work)


def test_an_expired_image_is_gone_everywhere(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        await r.gallery.register("x", records("short", "replaced"), 1)
        await r.gallery.register("x", records("replaced", "long"), None)
        await asyncio.sleep(1.2)
        r.clock.now += 2
        assert set(await r.gallery.fetch("x", ["short", "replaced", "long"])) == {
            "replaced",
            "long",
        }
        page = await r.gallery.page("x", 9, None)
        assert (page.count, page.ids) == (2, ["long", "replaced"])

    with_rig(tmp_path, work)


def test_another_replicas_changes_are_seen_within_the_stated_time(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        old, new = records("a", "b"), records("a", seed=1)
        await r.gallery.register("x", old, None)
        await r.gallery.fetch("x", ["a", "b"])
        await r.replica.register("x", new, None)
        await r.replica.delete("x", "b")
        r.clock.now += CACHE_TRUST_SECONDS
        images = await r.gallery.fetch("x", ["a", "b"])
        assert set(images) == {"a"}
        assert same(images["a"], new["a"])

    with_rig(tmp_path, work)


def test_own_changes_are_seen_at_once(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        await r.gallery.register("x", records("a"), None)
        await r.gallery.fetch("x", ["a"])
        new = records("a", seed=1)
        await r.gallery.register("x", new, None)
        assert same((await r.gallery.fetch("x", ["a"]))["a"], new["a"])

    with_rig(tmp_path, work)


def test_an_unchanged_image_is_not_fetched_again(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        await r.gallery.register("x", records("a"), None)
        first = (await r.gallery.fetch("x", ["a"]))["a"]
        r.clock.now += 100
        assert (await r.gallery.fetch("x", ["a"]))["a"] is first

    with_rig(tmp_path, work)


def test_damaged_and_foreign_bytes_are_an_error_that_names_the_image(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        await r.gallery.register("x", records("good", "bad"), None)
        good = await r.raw.get("locore:image:x|good")
        assert good is not None
        for value in (good, b"foreign", good[:-1]):
            await r.raw.set("locore:image:x|bad", value)
            r.clock.now += 2
            with pytest.raises(DamagedRecordError, match="'bad'"):
                await r.gallery.fetch("x", ["good", "bad"])

    with_rig(tmp_path, work)


def test_a_full_store_takes_none_of_a_registration(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        await r.gallery.register("x", records("a"), None)
        await r.raw.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError):
            await r.gallery.register("x", records("b", "c"), None)
        await r.raw.config_set("maxmemory", 0)
        page = await r.gallery.page("x", 9, None)
        assert (page.count, page.ids) == (1, ["a"])

    with_rig(tmp_path, work)


def test_an_embedded_store_that_dies_is_started_again_with_its_data(tmp_path: Path) -> None:
    async def work(r: Rig) -> None:
        await r.gallery.register("x", records("a"), None)
        pid = int((await r.raw.info("server"))["process_id"])
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(StoreUnavailableError):
            await r.stores[0].ping()
        while True:
            try:
                await r.stores[0].ping()
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
        assert (await r.gallery.page("x", 9, None)).ids == ["a"]

    with_rig(tmp_path, work)


def test_data_outlives_the_embedded_store(tmp_path: Path) -> None:
    async def fill(r: Rig) -> None:
        await r.gallery.register("x", records("a", "b"), None)

    async def look(r: Rig) -> None:
        assert set(await r.gallery.fetch("x", ["a", "b"])) == {"a", "b"}

    with_rig(tmp_path, fill)
    with_rig(tmp_path, look)


def test_a_data_directory_serves_one_service(tmp_path: Path) -> None:
    async def work(_: Rig) -> None:
        with pytest.raises(EmbeddedStoreError, match="in use by another service"):
            await EmbeddedValkey(tmp_path).start()

    with_rig(tmp_path, work)


def test_a_store_that_is_not_there_is_unavailable() -> None:
    async def work() -> None:
        store = connect_store("redis://127.0.0.1:1")
        with pytest.raises(StoreUnavailableError):
            await store.ping()
        await store.close()

    asyncio.run(work())
