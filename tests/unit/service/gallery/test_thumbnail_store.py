"""Thumbnails beside the records, in one Valkey and in a cluster of one node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import redis.asyncio as redis
from structlog.testing import capture_logs

from service.gallery.keys import change_keys
from service.gallery.record import GalleryRecord
from service.gallery.registered_images import Gallery
from service.gallery.store_connection import connect_store
from service.gallery.sweeper import Sweeper
from service.gallery.thumbnail_store import Thumbnail
from tests.factories import image, tiny_config
from tests.slow.valkey_nodes import Node

CONFIG = tiny_config()
HEAD = 16 + 2
"""Bytes of a thumbnail without keypoints beside its WebP."""


class Rig:
    def __init__(self, url: str, raw: redis.Redis) -> None:
        self.store, self.raw, self.now = connect_store(url), raw, 0.0

    def gallery(self, max_bytes: int) -> Gallery:
        return Gallery(
            self.store,
            cache_bytes=0,
            dtype="float32",
            thumbnail_bytes=max_bytes,
            clock=lambda: self.now,
        )

    async def left(self) -> list[Any]:
        """Keys of thumbnails."""
        return sorted(await self.raw.keys("locore:thumbnail:*"))


Run = Callable[[Callable[[Rig], Awaitable[None]]], None]


@pytest.fixture(scope="module", params=["one", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """Of one node, in a cluster or not."""
    node: Node = request.getfixturevalue(request.param)
    scheme = "redis" if request.param == "one" else "redis+cluster"
    return f"{scheme}://{node.address}"


@pytest.fixture
def run(url: str) -> Run:
    return lambda work: asyncio.run(_with_rig(url, work))


async def _with_rig(url: str, work: Callable[[Rig], Awaitable[None]]) -> None:
    raw = redis.Redis.from_url(url.replace("+cluster", ""))
    await raw.flushall()
    rig = Rig(url, raw)
    try:
        async with asyncio.timeout(60):
            await work(rig)
    finally:
        await raw.aclose()
        await rig.store.close()


def records(*ids: str, seed: int = 0) -> dict[str, GalleryRecord]:
    rng = np.random.default_rng(seed)
    return {i: GalleryRecord(image(rng, CONFIG), {"id": i}) for i in ids}


def pictures(*ids: str, size: int = 100) -> dict[str, Thumbnail]:
    return {i: Thumbnail(i.encode().ljust(size, b".")) for i in ids}


async def shown(gallery: Gallery, *ids: str) -> list[bytes | None]:
    thumbnails = [await gallery.thumbnails.get("c", i) for i in ids]
    return [None if thumbnail is None else thumbnail.webp for thumbnail in thumbnails]


def test_a_thumbnail_is_kept_with_its_keypoints(run: Run) -> None:
    points = np.random.default_rng(2).random((6, 2), np.float32)

    async def work(rig: Rig) -> None:
        gallery = rig.gallery(10_000)
        mine = {"a": Thumbnail(b"webp", points), "b": Thumbnail(b"other")}
        await gallery.register("c", records("a", "b", "none"), None, mine)
        a, b = [await gallery.thumbnails.get("c", i) for i in ("a", "b")]
        assert a is not None
        assert b is not None
        assert a.webp == b"webp"
        assert a.keypoints is not None
        np.testing.assert_allclose(a.keypoints, points, atol=0.5 / 255 + 1e-6)
        assert (b.webp, b.keypoints) == (b"other", None)
        assert await shown(gallery, "none", "unknown") == [None, None]
        assert await gallery.thumbnails.of("c", ["none", "b", "a", "unknown"]) == {"a", "b"}
        assert await gallery.thumbnails.of("c", []) == set()
        assert await gallery.thumbnails.of("other", ["a"]) == set()

    run(work)


def test_a_thumbnail_goes_with_its_image(run: Run) -> None:
    async def work(rig: Rig) -> None:
        gallery = rig.gallery(10_000)
        await gallery.register("c", records("a", "b", "d"), None, pictures("a", "b", "d"))
        await gallery.delete("c", "a")
        # Descriptors alone: what the image looks like now nobody knows.
        await gallery.register("c", records("b", seed=1), None)
        await gallery.register("c", records("d", seed=1), None, {"d": Thumbnail(b"new")})
        assert await shown(gallery, "a", "b", "d") == [None, None, b"new"]
        assert await rig.left() == [b"locore:thumbnail:c|d"]
        counted = await rig.raw.hgetall(change_keys("c")[0])
        assert counted == {b"d": b"21", b"": b"21"}
        await gallery.delete("c", "b")
        await gallery.delete("c", "d")
        assert await rig.raw.exists(*change_keys("c")) == 0

    run(work)


def test_a_thumbnail_expires_with_its_image(run: Run) -> None:
    async def work(rig: Rig) -> None:
        gallery = rig.gallery(10_000)
        await gallery.register("c", records("stays"), None, pictures("stays"))
        await gallery.register("c", records("goes"), 1, pictures("goes"))
        assert None not in await shown(gallery, "stays", "goes")
        await asyncio.sleep(1.2)
        assert await shown(gallery, "goes") == [None]
        assert (await gallery.page("c", 5, None)).ids == ["stays"]
        assert await rig.left() == [b"locore:thumbnail:c|stays"]
        counted = await rig.raw.hgetall(change_keys("c")[0])
        assert set(counted) == {b"stays", b""}

    run(work)


def test_a_thumbnail_of_another_version_is_none(run: Run) -> None:
    """As where a service dies between a registration and its thumbnails."""

    async def work(rig: Rig) -> None:
        gallery = rig.gallery(10_000)
        await gallery.register("c", records("a"), None, pictures("a"))
        old = await rig.raw.get("locore:thumbnail:c|a")
        assert isinstance(old, bytes)
        await gallery.register("c", records("a", seed=1), None, pictures("a"))
        await rig.raw.set("locore:thumbnail:c|a", old)
        assert await shown(gallery, "a") == [None]
        await rig.raw.set("locore:thumbnail:c|a", b"")
        assert await shown(gallery, "a") == [None]

    run(work)


def test_what_is_beyond_the_bound_is_not_kept_and_said_once(run: Run) -> None:
    async def work(rig: Rig) -> None:
        gallery = rig.gallery(3 * (100 + HEAD) + 10)
        with capture_logs() as log:
            await gallery.register("x", records("1", "2"), None, pictures("1", "2"))
            assert log == []
            await gallery.register("c", records("a", "b"), None, pictures("a", "b"))
            await gallery.register("c", records("d"), None, pictures("d"))
            assert [line["event"] for line in log] == ["thumbnails_not_kept"]
        assert await shown(gallery, "b", "d") == [None, None]
        assert (await shown(gallery, "a"))[0] is not None
        # One that is replaced makes room for itself.
        await gallery.register("c", records("a", seed=1), None, pictures("a", size=110))
        assert (await shown(gallery, "a"))[0] is not None
        # What was deleted in another collection is room, at the latest after a minute.
        await gallery.delete("x", "1")
        rig.now += 61
        await gallery.register("c", records("d", seed=1), None, pictures("d"))
        assert (await shown(gallery, "d"))[0] is not None

    run(work)


def test_thumbnails_go_with_an_emptied_collection(run: Run) -> None:
    async def work(rig: Rig) -> None:
        gallery = rig.gallery(10_000)
        await gallery.register("c", records("a", "b"), None, pictures("a", "b"))
        before = await gallery.names.resolve("c")
        await gallery.names.empty("c")
        after = await gallery.names.resolve("c")
        await gallery.register("c", records("a", seed=1), None)
        assert await gallery.thumbnails.get(after, "a") is None
        # A request that began before still finds them.
        assert await gallery.thumbnails.get(before, "a") is not None
        assert await Sweeper(rig.store, grace_seconds=0).sweep() == 2
        assert await rig.left() == []
        assert await rig.raw.exists(*change_keys(before)) == 0
        rig.now += 61
        big = {"a": Thumbnail(bytes(10_000 - HEAD))}
        await gallery.register("c", records("a", seed=2), None, big)
        assert await gallery.thumbnails.get(after, "a") is not None

    run(work)


def test_with_no_room_at_all_none_is_kept(run: Run) -> None:
    async def work(rig: Rig) -> None:
        gallery = rig.gallery(0)
        registration = await gallery.register("c", records("a"), None, pictures("a"))
        assert registration.registered == 1
        assert await shown(gallery, "a") == [None]
        assert await rig.left() == []

    run(work)


def test_a_store_that_refuses_thumbnails_takes_the_registration(run: Run) -> None:
    async def work(rig: Rig) -> None:
        gallery = rig.gallery(10_000)
        await rig.raw.acl_setuser("default", enabled=True, commands=["-hvals"])
        try:
            with capture_logs() as log:
                registration = await gallery.register("c", records("a"), None, pictures("a"))
        finally:
            await rig.raw.acl_setuser("default", enabled=True, commands=["+hvals"])
        assert registration.registered == 1
        assert await shown(gallery, "a") == [None]
        assert [line["event"] for line in log] == ["thumbnails_not_kept"]

    run(work)


def test_the_version_changes_with_the_images(run: Run) -> None:
    async def work(rig: Rig) -> None:
        gallery, key = rig.gallery(0), change_keys("c")[1]
        values = [await rig.raw.get(key)]
        await gallery.register("c", records("a", "b"), None)
        values.append(await rig.raw.get(key))
        await gallery.register("c", records("a", seed=1), None)
        values.append(await rig.raw.get(key))
        await gallery.delete("c", "a")
        values.append(await rig.raw.get(key))
        assert len(set(values)) == 4
        await gallery.delete("c", "b")
        assert await rig.raw.get(key) is None

    run(work)
