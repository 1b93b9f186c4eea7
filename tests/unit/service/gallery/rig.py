"""Two services' stores and galleries on one Valkey, or on a cluster of one node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import redis.asyncio as redis

from model.descriptors import DescriptorSizes, ImageDescriptors
from service.gallery.record import GalleryRecord, pack_record
from service.gallery.registered_images import Gallery
from service.gallery.store import GalleryStore
from service.gallery.store_connection import connect_store
from tests.factories import unit

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


def run_on(url: str, port: int, work: Work) -> None:
    """On an empty store."""

    async def run() -> None:
        raw = redis.Redis(port=port)
        stores = connect_store(url), connect_store(url)
        try:
            async with asyncio.timeout(60):
                await raw.flushall()
                await work(Rig(raw, stores))
        finally:
            await raw.aclose()
            for store in stores:
                await store.close()

    asyncio.run(run())


def records(sizes: DescriptorSizes, *ids: str) -> dict[str, GalleryRecord]:
    rng = np.random.default_rng(0)
    images = {}
    for image_id in ids:
        global_ = None if sizes.global_dim is None else unit(rng, 1, sizes.global_dim)[0]
        locals_ = unit(rng, 2, sizes.local_dim)
        images[image_id] = GalleryRecord(ImageDescriptors(locals_, np.zeros(2, np.uint8), global_))
    return images


def packed(sizes: DescriptorSizes, *ids: str) -> dict[str, bytes]:
    return {i: pack_record("x", i, r, "float32") for i, r in records(sizes, *ids).items()}
