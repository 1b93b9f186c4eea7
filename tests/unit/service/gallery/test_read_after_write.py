"""What this service acknowledged is what it reads from then on, whatever was being loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.learnt_metric import Metric
from service.api.errors import NotFoundError
from service.gallery.embedded import EmbeddedValkey
from service.gallery.names import Names
from service.gallery.record import GalleryRecord
from service.gallery.registered_images import Gallery
from service.gallery.store import Fetched, GalleryStore
from service.gallery.store_connection import connect_store
from tests.factories import SIZES, image, tiny_config
from tests.metric_files import random_metric

CONFIG = tiny_config()
IDS = ("a", "b")


class HeldFetches:
    """The store's answers to `fetch` wait here until they are let go, one by one."""

    def __init__(self, store: GalleryStore) -> None:
        self._fetch = store.fetch
        self._held: list[asyncio.Event] = []
        self.holds = True
        store.fetch = self._fetch_and_wait  # type: ignore[method-assign]

    async def _fetch_and_wait(self, generation: str, ids: Sequence[str]) -> Fetched:
        fetched = await self._fetch(generation, ids)
        if self.holds:
            self._held.append(asyncio.Event())
            await self._held[-1].wait()
        return fetched

    async def until_held(self, count: int = 1) -> None:
        while True:
            if len(self._held) >= count:
                return
            await asyncio.sleep(0.001)

    def release(self, place: int = 0) -> None:
        self._held.pop(place).set()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Rig:
    def __init__(self, store: GalleryStore, metrics: dict[str, Metric]) -> None:
        self.clock = Clock()
        self.gallery = Gallery(
            store, cache_bytes=1 << 20, dtype="float32", metrics=metrics, clock=self.clock
        )
        self.window_of_lists = HeldFetches(store)

    async def write(self, version: int | None, *ids: str, ttl: int | None = None) -> None:
        """The version is in the image and in its metadata; None deletes."""
        if version is None:
            generation = await self.gallery.names.resolve("x")
            for image_id in ids:
                await self.gallery.delete(generation, image_id)
            return
        record = GalleryRecord(image(np.random.default_rng(version), CONFIG), {"n": version})
        await self.gallery.register("x", dict.fromkeys(ids, record), ttl)

    async def versions(self, *ids: str) -> dict[str, int]:
        records = await self.gallery.fetch(await self.gallery.names.resolve("x"), ids)
        return {i: (record.metadata or {})["n"] for i, record in records.items()}

    async def read_now(self, *ids: str) -> dict[str, int]:
        self.window_of_lists.holds = False
        try:
            return await self.versions(*ids)
        finally:
            self.window_of_lists.holds = True


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of a Valkey for all tests here, whose loop is kept for its end."""
    with asyncio.Runner() as runner:
        valkey = EmbeddedValkey(tmp_path_factory.mktemp("data"))
        runner.run(valkey.start())
        yield valkey.url
        runner.run(valkey.stop())


def with_rig(url: str, work: Callable[[Rig], Coroutine[Any, Any, None]], **metrics: Metric) -> None:
    @asynccontextmanager
    async def connected() -> AsyncIterator[GalleryStore]:
        store = connect_store(url)
        try:
            with suppress(NotFoundError):
                await Names(store).drop("x")
            yield store
        finally:
            await store.close()

    async def run() -> None:
        async with asyncio.timeout(60), connected() as store:
            await work(Rig(store, metrics))

    asyncio.run(run())


@pytest.mark.parametrize("change", [2, None], ids=["replaced", "deleted"])
def test_a_load_under_way_does_not_bring_an_old_image_back(url: str, change: int | None) -> None:
    async def work(r: Rig) -> None:
        await r.write(1, *IDS)
        load = asyncio.create_task(r.versions(*IDS))
        await r.window_of_lists.until_held()
        await r.write(change, "a")
        r.window_of_lists.release()
        # It began before the change was acknowledged, and may see either.
        assert (await load)["b"] == 1
        expected = {"b": 1} if change is None else {"a": change, "b": 1}
        assert await r.read_now(*IDS) == expected

    with_rig(url, work)


def test_also_in_a_learnt_metric(url: str) -> None:
    async def work(r: Rig) -> None:
        await r.write(1, "a")
        load = asyncio.create_task(r.versions("a"))
        await r.window_of_lists.until_held()
        await r.write(2, "a")
        r.window_of_lists.release()
        await load
        assert await r.read_now("a") == {"a": 2}

    with_rig(url, work, x=random_metric(SIZES))


def test_what_nobody_changed_is_kept(url: str) -> None:
    async def work(r: Rig) -> None:
        await r.write(1, *IDS)
        load = asyncio.create_task(r.versions(*IDS))
        await r.window_of_lists.until_held()
        await r.write(2, "a")
        r.window_of_lists.release()
        await load
        # Not asked for again: it would be held.
        assert await r.versions("b") == {"b": 1}

    with_rig(url, work)


def test_an_image_that_has_expired_is_not_used(url: str) -> None:
    """By a clock that stands still: the cache alone would trust it."""

    async def work(r: Rig) -> None:
        await r.write(1, "a", ttl=1)
        await r.write(1, "b")
        await asyncio.sleep(0.9)
        assert await r.read_now(*IDS) == {"a": 1, "b": 1}
        await asyncio.sleep(0.2)
        assert await r.read_now(*IDS) == {"b": 1}

    with_rig(url, work)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["load", "release", "write", "delete", "empty", "drop", "read", "later"]),
        st.sampled_from([("a",), ("b",), IDS]),
        st.integers(0, 3),
    ),
    min_size=8,
    max_size=25,
)


@settings(max_examples=30, deadline=None)
@given(EVENTS)
def test_reads_follow_what_was_acknowledged(
    url: str, events: list[tuple[str, tuple[str, ...], int]]
) -> None:
    """However loads, writes and deletions of two images, or of all, interleave."""

    async def work(r: Rig) -> None:
        await r.write(1000, *IDS)
        expected = dict.fromkeys(IDS, 1000)
        loads: list[asyncio.Task[dict[str, int]]] = []
        window_of_lists = 0
        for number, (event, ids, place) in enumerate(events):
            match event:
                case "load":
                    loads.append(asyncio.create_task(r.versions(*ids)))
                    window_of_lists = await _held_or_done(r, loads[-1], window_of_lists)
                case "release" if window_of_lists:
                    r.window_of_lists.release(place % window_of_lists)
                    window_of_lists -= 1
                    await asyncio.sleep(0.005)
                case "later":
                    r.clock.now += place / 2
                case "read":
                    before = {i: n for i, n in expected.items() if i in ids}
                    assert await r.read_now(*ids) == before
                case "write" | "delete" | "empty" | "drop":
                    expected = await _changed(r, event, number, ids, expected)
        while window_of_lists:
            window_of_lists -= 1
            r.window_of_lists.release()
        await asyncio.gather(*loads)
        assert await r.read_now(*IDS) == expected

    with_rig(url, work)


async def _changed(
    r: Rig, event: str, number: int, ids: tuple[str, ...], before: dict[str, int]
) -> dict[str, int]:
    """The versions after it."""
    match event:
        case "write":
            await r.write(number, *ids)
            return before | dict.fromkeys(ids, number)
        case "delete":
            await r.write(None, *ids)
            return {i: n for i, n in before.items() if i not in ids}
        case "empty":
            await r.gallery.names.empty("x")
            return {}
        case _:
            await r.gallery.names.drop("x")
            await r.write(number, "a")
            return {"a": number}


async def _held_or_done(r: Rig, load: asyncio.Task[Any], window_of_lists: int) -> int:
    """How many answers are held once the load is held too, or was answered from the cache."""
    waiting = asyncio.create_task(r.window_of_lists.until_held(window_of_lists + 1))
    await asyncio.wait({waiting, load}, return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        return window_of_lists
    return window_of_lists + 1
