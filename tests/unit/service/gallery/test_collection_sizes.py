"""A collection's sizes, on one Valkey and on a cluster of one node."""

from __future__ import annotations

import asyncio

import pytest

from service.api.errors import DescriptorDimMismatchError, StoreFullError
from service.gallery.store import CollectionSizesError
from tests.unit.service.gallery.rig import (
    LARGE,
    OTHER,
    SMALL,
    WITHOUT,
    On,
    Rig,
    packed,
    records,
)


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
        assert await rig.keys() == {b"locore:collections", b"locore:name:{x}"}
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
        assert await rig.keys() == {b"locore:collections", b"locore:name:{x}"}

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
