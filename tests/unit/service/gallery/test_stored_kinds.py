"""A gallery may hold images that were stored in several ways, on one Valkey and in a cluster."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import redis

from model.descriptors import ImageDescriptors
from model.quantisation import STORE_DTYPES
from service.gallery.record import GalleryRecord, as_stored
from service.gallery.registered_images import Gallery
from service.gallery.store_connection import connect_store
from tests.factories import unit
from tests.slow.valkey_nodes import Node
from tests.stored_records import COLLECTION, NAMES, expected, stored_bytes

RNG = np.random.default_rng(0)
IMAGES = {
    dtype: ImageDescriptors(unit(RNG, 6, 8), np.arange(6, dtype=np.uint8), unit(RNG, 1, 12)[0])
    for dtype in STORE_DTYPES
}


async def hold_both(url: str) -> None:
    """Images registered in each way beside those that are there already, fetched as one list."""
    store = connect_store(url)
    try:
        for dtype, image in IMAGES.items():
            gallery = Gallery(store, cache_bytes=0, dtype=dtype)
            await gallery.register(COLLECTION, {dtype: GalleryRecord(image)}, None)
            pooling = Gallery(store, cache_bytes=0, dtype=dtype, pool_locals=2)
            await pooling.register(COLLECTION, {f"{dtype}-few": GalleryRecord(image)}, None)
        fewer = [f"{dtype}-few" for dtype in IMAGES]
        records = await gallery.fetch(COLLECTION, [*NAMES, *IMAGES, *fewer])
    finally:
        await store.close()
    for name in NAMES:
        locals_ = expected(name).descriptors.locals
        np.testing.assert_allclose(records[name].descriptors.locals, locals_, atol=1e-6)
    for dtype, image in IMAGES.items():
        for image_id, pool in ((dtype, None), (f"{dtype}-few", 2)):
            record, stored_image = records[image_id], as_stored({"": image}, dtype, pool)[""]
            assert record.dtype == dtype
            np.testing.assert_allclose(record.descriptors.locals, stored_image.locals, atol=1e-6)
            assert record.descriptors.count == (6 if pool is None else 2)


@pytest.mark.parametrize("kind", ["one", "cluster"])
def test_images_stored_in_every_way_are_one_gallery(
    kind: str, request: pytest.FixtureRequest
) -> None:
    node: Node = request.getfixturevalue(kind)
    with redis.Redis(port=node.port) as raw:
        raw.flushall()
        for name in NAMES:
            raw.set(f"locore:image:{COLLECTION}|{name}", stored_bytes(name))
    scheme = "redis" if kind == "one" else "redis+cluster"
    asyncio.run(hold_both(f"{scheme}://{node.address}"))
