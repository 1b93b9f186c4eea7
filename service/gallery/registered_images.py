"""The gallery as the service uses it: registration, and decoded images by id."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from model.descriptors import DescriptorSizes
from model.learnt_metric import Metric
from model.quantisation import StoreDtype
from service.api.errors import DescriptorDimMismatchError
from service.api.sizes import joined, misfit
from service.gallery.cache import CachedRecord, RecordCache
from service.gallery.collection_metrics import in_metric
from service.gallery.keys import collection_of
from service.gallery.names import Names
from service.gallery.record import (
    HEADER_BYTES,
    GalleryRecord,
    pack_record,
    unpack_globals,
    unpack_record,
    unpack_records,
)
from service.gallery.store import (
    CollectionSizesError,
    GalleryStore,
    GenerationOverError,
    Page,
)
from service.gallery.thumbnail_store import Thumbnail, Thumbnails
from service.watch.metrics import CACHE_BYTES, CACHE_REQUESTS, IMAGES_REGISTERED

CACHE_TRUST_SECONDS = 1.0
"""For this time a cached image is used without asking the store. Then its version is checked, so no
request gets an image that another service replaced or deleted longer ago. This service's own writes
and expiry are visible immediately: if images of the collection expire, the store is always
asked."""


@dataclass(frozen=True)
class Registered:
    registered: int
    replaced: int


class Gallery:
    """Images of any number of collections, stored as `dtype`, with at most `pool_locals` locals
    unless that is None. `fetch` returns images in their collection's metric, where `metrics` has
    one. Raises what `GalleryStore` raises, and DamagedRecordError.

    Images are read and cached by generation, which `names.resolve` returns for a name, so that no
    request sees those of another generation."""

    def __init__(
        self,
        store: GalleryStore,
        *,
        cache_bytes: int,
        dtype: StoreDtype,
        pool_locals: int | None = None,
        metrics: Mapping[str, Metric] = MappingProxyType({}),
        thumbnail_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.names = Names(store)
        self._store = store
        self._cache = RecordCache(cache_bytes)
        self._dtype: StoreDtype = dtype
        self._pool_locals = pool_locals
        self.metrics = metrics
        self.thumbnails = Thumbnails(store, thumbnail_bytes, clock)
        self._clock = clock

    async def register(
        self,
        name: str,
        records: dict[str, GalleryRecord],
        ttl_seconds: int | None,
        thumbnails: Mapping[str, Thumbnail] = MappingProxyType({}),
    ) -> Registered:
        """Registers all `records` (at least one) or none; replaces images with the same ids.
        `name`: a collection or an alias; `thumbnails`: of some of the images, by id, stored while
        there is room.

        Raises DescriptorDimMismatchError unless all have the sizes of each other and of the
        collection.
        """
        sizes = _sizes_of(records, None, "an image before it")
        while True:
            generation = await self.names.resolve(name)
            try:
                replaced, headers = await self._put(generation, records, sizes, ttl_seconds)
            except GenerationOverError:
                # The collection was emptied, dropped or made an alias.
                continue
            IMAGES_REGISTERED.inc(len(records))
            await self.thumbnails.put(generation, headers, thumbnails, ttl_seconds)
            return Registered(len(records), replaced)

    async def _put(
        self,
        generation: str,
        records: dict[str, GalleryRecord],
        sizes: DescriptorSizes,
        ttl_seconds: int | None,
    ) -> tuple[int, dict[str, bytes]]:
        """Returns how many images were replaced, and the headers of the records by id."""

        def packed() -> dict[str, bytes]:
            how = self._dtype, self._pool_locals
            return {i: pack_record(generation, i, r, *how) for i, r in records.items()}

        data = await asyncio.to_thread(packed)
        try:
            replaced = await self._store.put(generation, data, sizes, ttl_seconds)
        except CollectionSizesError as error:
            _sizes_of(records, error.sizes, f"collection {collection_of(generation)!r}")
            raise
        finally:
            # Also after an error: the store may have the new images, and only the answer was lost.
            self._forget(generation, records)
        return replaced, {image_id: record[:HEADER_BYTES] for image_id, record in data.items()}

    async def delete(self, generation: str, image_id: str) -> bool:
        try:
            return await self._store.delete(generation, image_id)
        finally:
            self._forget(generation, [image_id])

    async def page(self, generation: str, limit: int, after: str | None) -> Page:
        return await self._store.page(generation, limit, after)

    async def sizes(self, generation: str) -> DescriptorSizes | None:
        """The sizes of a collection's descriptors; None if it has no image."""
        return (await self._store.page(generation, 1, None)).sizes

    async def version(self, generation: str) -> bytes | None:
        """A value that changes with every change of the images; None if there are none."""
        return await self._store.version(generation)

    async def globals(
        self, generation: str, ids: Sequence[str]
    ) -> dict[str, NDArray[np.float32] | None]:
        """Globals of the registered images of `ids`, None for an image without. Not in a metric,
        not cached."""
        records = (await self._store.fetch(generation, ids)).records
        data_by_id = {i: data for i, data in zip(ids, records, strict=True) if data is not None}
        return await asyncio.to_thread(unpack_globals, generation, data_by_id)

    async def get(self, generation: str, image_id: str) -> GalleryRecord | None:
        """One image as stored: not in a metric, not cached."""
        (data,) = (await self._store.fetch(generation, [image_id])).records
        return None if data is None else unpack_record(generation, image_id, data)

    async def fetch(self, generation: str, ids: Sequence[str]) -> dict[str, GalleryRecord]:
        """The registered images of `ids`, from the cache if it is recent enough. Raises
        UnprocessableError for an image that the collection's metric does not fit."""
        now = self._clock()
        records: dict[str, GalleryRecord] = {}
        doubtful: dict[str, CachedRecord] = {}
        misses: list[str] = []
        for image_id in ids:
            entry = self._cache.get((generation, image_id))
            if entry is None:
                misses.append(image_id)
            elif now - entry.checked_at < CACHE_TRUST_SECONDS and not entry.expires:
                records[image_id] = entry.record
            else:
                doubtful[image_id] = entry
        if doubtful:
            versions = await self._store.versions(generation, list(doubtful))
            for (image_id, entry), version in zip(doubtful.items(), versions, strict=True):
                if version == entry.version:
                    entry.checked_at = now
                    records[image_id] = entry.record
                else:
                    self._cache.discard((generation, image_id))
                    misses.append(image_id)
        CACHE_REQUESTS.labels("hit").inc(len(records))
        CACHE_REQUESTS.labels("miss").inc(len(misses))
        if misses:
            records |= await self._load(generation, misses, now)
        CACHE_BYTES.set(self._cache.bytes)
        return records

    async def _load(self, generation: str, ids: list[str], now: float) -> dict[str, GalleryRecord]:
        # The images loaded here do not reflect registrations and deletions from here on.
        with self._cache.loading((generation, image_id) for image_id in ids) as valid:
            fetched = await self._store.fetch(generation, ids)
            pairs = zip(ids, fetched.records, strict=True)
            stored = {i: data for i, data in pairs if data is not None}

            def decoded() -> dict[str, GalleryRecord]:
                records = unpack_records(generation, stored)
                return {i: self._in_metric(generation, i, record) for i, record in records.items()}

            records = await asyncio.to_thread(decoded)
        metric = self.metrics.get(collection_of(generation))
        metric_bytes = 0 if metric is None else metric.matrix[0].nbytes
        for image_id, record in records.items():
            data = stored[image_id]
            # `now` is from before the request to the store, so that trust does not last too long.
            size = max(len(data), record.descriptors.nbytes) + metric_bytes
            entry = CachedRecord(record, data[:HEADER_BYTES], size, now, fetched.expiring)
            if (generation, image_id) in valid:
                self._cache.put((generation, image_id), entry)
        return records

    def _in_metric(self, generation: str, image_id: str, record: GalleryRecord) -> GalleryRecord:
        metric = self.metrics.get(collection_of(generation))
        if metric is None:
            return record
        owner = f"the metric of collection {collection_of(generation)!r}"
        image = in_metric(record.descriptors, metric, owner, image_id=image_id)
        return replace(record, descriptors=image)

    def _forget(self, generation: str, ids: Sequence[str] | dict[str, GalleryRecord]) -> None:
        for image_id in ids:
            self._cache.discard((generation, image_id))
        CACHE_BYTES.set(self._cache.bytes)


def _sizes_of(
    records: dict[str, GalleryRecord], expected: DescriptorSizes | None, owner: str
) -> DescriptorSizes:
    """The merged sizes of all records. Raises DescriptorDimMismatchError with the first record that
    does not fit the `expected` sizes, or those of the first record."""
    sizes = expected or next(iter(records.values())).descriptors.sizes
    for place, (image_id, record) in enumerate(records.items()):
        its = record.descriptors.sizes
        wrong = misfit(its, sizes)
        if wrong is not None:
            raise DescriptorDimMismatchError(
                f"images.{place}.{wrong.part}", wrong, owner, id=image_id
            )
        sizes = joined(sizes, its)
    return sizes
