"""A collection's sizes, on one Valkey and on a cluster of one node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import redis.asyncio as redis

from model.descriptors import DescriptorSizes, ImageDescriptors
from service.errors import DescriptorDimMismatchError, StoreFullError
from service.gallery.connect import connect_store
from service.gallery.embedded import EmbeddedValkey
from service.gallery.gallery import Gallery
from service.gallery.record import GalleryRecord, pack_record
from service.gallery.store import CollectionSizesError, GalleryStore
from tests.factories import unit
from tests.slow.valkey_nodes import valkey_cluster

WITHOUT, SMALL, OTHER, LARGE = (
    DescriptorSizes(*lengths) for lengths in ((8, None), (8, 12), (8, 16), (9, 12))
)


@dataclass
class Rig:
    """Two services' stores and galleries, and a raw client."""

    raw: redis.Redis
    stores: tuple[GalleryStore, GalleryStore]

    @property
    def galleries(self) -> tuple[Gallery, Gallery]:
        one, other = (Gallery(s, cache_bytes=0, dtype="float32") for s in self.stores)
        return one, other

    async def sizes(self) -> DescriptorSizes | None:
        return (await self.stores[0].page("x", 1, None)).sizes

    async def ids(self) -> list[str]:
        return (await self.stores[0].page("x", 1000, None)).ids

    async def keys(self) -> set[bytes]:
        return {key async for key in self.raw.scan_iter("*")}


Work = Callable[[Rig], Awaitable[None]]
On = Callable[[Work], None]


async def _run(raw: redis.Redis, url: str, work: Work) -> None:
    stores = connect_store(url), connect_store(url)
    try:
        async with asyncio.timeout(60):
            await work(Rig(raw, stores))
    finally:
        await raw.aclose()
        for store in stores:
            await store.close()


async def _on_one(folder: Path, work: Work) -> None:
    valkey = EmbeddedValkey(folder)
    await valkey.start()
    try:
        await _run(redis.Redis.from_url(valkey.url), valkey.url, work)
    finally:
        await valkey.stop()


@pytest.fixture(params=["one", "cluster"])
def on(request: pytest.FixtureRequest, tmp_path: Path) -> On:
    def one(work: Work) -> None:
        asyncio.run(_on_one(tmp_path, work))

    def cluster(work: Work) -> None:
        with valkey_cluster(tmp_path / "nodes", primaries=1) as ((node,), _):
            asyncio.run(_run(redis.Redis(port=node.port), f"redis+cluster://{node.address}", work))

    return one if request.param == "one" else cluster


def records(sizes: DescriptorSizes, *ids: str) -> dict[str, GalleryRecord]:
    rng = np.random.default_rng(0)
    found = {}
    for image_id in ids:
        global_ = None if sizes.global_dim is None else unit(rng, 1, sizes.global_dim)[0]
        locals_ = unit(rng, 2, sizes.local_dim)
        found[image_id] = GalleryRecord(ImageDescriptors(locals_, np.zeros(2, np.uint8), global_))
    return found


def packed(sizes: DescriptorSizes, *ids: str) -> dict[str, bytes]:
    return {i: pack_record("x", i, r, "float32") for i, r in records(sizes, *ids).items()}


async def from_before(rig: Rig, images: dict[str, bytes]) -> None:
    """Register as a service did that knew no sizes."""
    for image_id, record in images.items():
        await rig.raw.set(f"locore:image:x|{image_id}", record)
        await rig.raw.zadd("locore:ids:{x}", {image_id: 0})


def test_the_first_locals_and_the_first_global_fix_the_sizes(on: On) -> None:
    async def work(rig: Rig) -> None:
        (gallery, other), (store, _) = rig.galleries, rig.stores
        assert await rig.sizes() is None
        await gallery.register("x", records(WITHOUT, "a"), None)
        assert await rig.sizes() == WITHOUT
        await other.register("x", records(SMALL, "b"), None)
        assert await rig.sizes() == SMALL
        await gallery.register("x", records(WITHOUT, "c"), None)
        for sizes in (OTHER, LARGE):
            with pytest.raises(CollectionSizesError) as caught:
                await store.put("x", packed(sizes, "a", "d"), sizes, None)
            assert caught.value.sizes == SMALL
        assert await rig.sizes() == SMALL
        assert await rig.ids() == ["a", "b", "c"]
        assert (await store.fetch("x", ["a", "d"])).records == [packed(WITHOUT, "a")["a"], None]
        await gallery.register("y", records(LARGE, "a"), None)

    on(work)


def test_the_error_names_the_image_and_both_lengths(on: On) -> None:
    async def work(rig: Rig) -> None:
        gallery, _ = rig.galleries
        await gallery.register("x", records(SMALL, "a"), None)
        mixed = records(WITHOUT, "b") | records(OTHER, "c")
        with pytest.raises(DescriptorDimMismatchError, match="collection 'x' has 12") as caught:
            await gallery.register("x", mixed, None)
        assert caught.value.details == {
            "field": "images.1.global",
            "expected": 12,
            "found": 16,
            "id": "c",
        }
        with pytest.raises(DescriptorDimMismatchError, match="an image before it has 8"):
            await gallery.register("y", records(SMALL, "a") | records(LARGE, "b"), None)
        assert await rig.ids() == ["a"]

    on(work)


def test_of_two_first_registrations_at_once_one_wins_and_is_whole(on: On) -> None:
    async def work(rig: Rig) -> None:
        one, other = rig.stores
        ids = [f"{n}" for n in range(20)]
        first, second = packed(SMALL, *ids), packed(LARGE, *ids, "more")
        for _ in range(30):
            answers = await asyncio.gather(
                one.put("x", first, SMALL, None),
                other.put("x", second, LARGE, None),
                return_exceptions=True,
            )
            refused = [isinstance(answer, CollectionSizesError) for answer in answers]
            assert sorted(refused) == [False, True]
            sizes, winner = (LARGE, second) if refused[0] else (SMALL, first)
            assert await rig.sizes() == sizes
            assert await rig.ids() == sorted(winner)
            assert (await one.fetch("x", [*ids, "more"])).records == [
                winner.get(i) for i in [*ids, "more"]
            ]
            await rig.raw.flushall()

    on(work)


def test_of_two_first_globals_at_once_one_wins(on: On) -> None:
    async def work(rig: Rig) -> None:
        one, other = rig.stores
        for _ in range(30):
            await one.put("x", packed(WITHOUT, "a"), WITHOUT, None)
            answers = await asyncio.gather(
                one.put("x", packed(SMALL, "a"), SMALL, None),
                other.put("x", packed(OTHER, "a"), OTHER, None),
                return_exceptions=True,
            )
            refused = [isinstance(answer, CollectionSizesError) for answer in answers]
            assert sorted(refused) == [False, True]
            sizes = OTHER if refused[0] else SMALL
            assert await rig.sizes() == sizes
            assert (await one.fetch("x", ["a"])).records == [packed(sizes, "a")["a"]]
            await rig.raw.flushall()

    on(work)


def test_the_last_deletion_releases_the_sizes(on: On) -> None:
    async def work(rig: Rig) -> None:
        store, _ = rig.stores
        await store.put("x", packed(SMALL, "a", "b"), SMALL, None)
        await store.delete("x", "a")
        assert await rig.sizes() == SMALL
        await store.delete("x", "b")
        assert await rig.sizes() is None
        assert await rig.keys() == set()
        await store.put("x", packed(LARGE, "a"), LARGE, None)
        assert await rig.sizes() == LARGE

    on(work)


def test_the_last_expiry_releases_the_sizes(on: On) -> None:
    async def work(rig: Rig) -> None:
        store, _ = rig.stores
        for sizes, others in ((SMALL, LARGE), (LARGE, SMALL)):
            await store.put("x", packed(sizes, "a", "b"), sizes, 2)
            with pytest.raises(CollectionSizesError):
                await store.put("x", packed(others, "c"), others, None)
            await asyncio.sleep(2.1)
        assert await rig.sizes() is None
        assert await rig.keys() == set()

    on(work)


def test_sizes_that_a_deletion_of_an_older_service_left_count_no_more(on: On) -> None:
    async def work(rig: Rig) -> None:
        store, _ = rig.stores
        await store.put("x", packed(SMALL, "a"), SMALL, None)
        for key in ("locore:claim:{x}", "locore:image:x|a", "locore:ids:{x}"):
            await rig.raw.delete(key)
        assert await rig.sizes() is None
        await store.put("x", packed(LARGE, "b"), LARGE, None)
        assert await rig.sizes() == LARGE

    on(work)


def test_a_refusal_for_want_of_memory_fixes_nothing(on: On) -> None:
    async def work(rig: Rig) -> None:
        store, _ = rig.stores
        await store.put("x", packed(WITHOUT, "a"), WITHOUT, None)
        before = await rig.keys()
        await rig.raw.config_set("maxmemory", 1)
        for collection in ("x", "y"):
            with pytest.raises(StoreFullError):
                await store.put(collection, packed(SMALL, "b"), SMALL, None)
        await rig.raw.config_set("maxmemory", 0)
        assert await rig.keys() == before
        assert await rig.sizes() == WITHOUT
        await store.put("x", packed(OTHER, "b"), OTHER, None)

    on(work)


def test_a_gallery_from_before_gets_the_sizes_of_its_records(on: On) -> None:
    async def work(rig: Rig) -> None:
        store, _ = rig.stores
        old = packed(WITHOUT, "a") | packed(SMALL, "b")
        await from_before(rig, old)
        with pytest.raises(CollectionSizesError) as caught:
            await store.put("x", packed(LARGE, "c"), LARGE, None)
        assert caught.value.sizes == SMALL
        await rig.raw.delete("locore:sizes:{x}")
        assert await rig.sizes() == SMALL
        assert await store.put("x", packed(SMALL, "b", "c"), SMALL, None) == 1
        assert await rig.ids() == ["a", "b", "c"]

    on(work)


def test_a_list_without_records_takes_any_sizes(on: On) -> None:
    async def work(rig: Rig) -> None:
        store, _ = rig.stores
        await from_before(rig, {"a": b"foreign"})
        await rig.raw.zadd("locore:ids:{x}", {f"gone-{n}": 0 for n in range(450)})
        assert await rig.sizes() is None
        await store.put("x", packed(LARGE, "c"), LARGE, None)
        assert await rig.sizes() == LARGE

    on(work)
