"""The globals of the collections that the page searches, in memory: its first stage.

A collection is read when it is first searched, and again once its images have changed.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from model.globals_search import GlobalsMatrix
from service.api.errors import UnprocessableError
from service.gallery.registered_images import Gallery

MAX_IMAGES = 200_000
_PAGE, _CHUNK = 10_000, 200
_PATIENCE = 5
"""Limits reading: a collection that changes all the time is read for at most a sixth of the
time."""
_NUMBER_BYTES = 4


@dataclass(eq=False)
class _Entry:
    version: bytes | None
    count: int
    matrix: GlobalsMatrix
    stale_at: float
    """When it may be read again."""

    @property
    def nbytes(self) -> int:
        return self.matrix.rows.nbytes


@dataclass(frozen=True, eq=False)
class SearchedGlobals:
    """`count`: images of the collection; `matrix` has those with a global."""

    count: int
    matrix: GlobalsMatrix


class GlobalsCache:
    """At most `max_bytes` of globals; the least recently searched are dropped first. A collection
    counts twice while it is read again."""

    def __init__(self, gallery: Gallery, max_bytes: int) -> None:
        self._gallery = gallery
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._reading: dict[str, asyncio.Task[_Entry]] = {}

    async def get(self, generation: str) -> SearchedGlobals:
        """Raises UnprocessableError for a collection that is too large to be searched here."""
        entry = self._entries.get(generation)
        version = await self._gallery.version(generation)
        if entry is None or (version != entry.version and time.monotonic() >= entry.stale_at):
            entry = await self._shared_reading(generation)
        self._entries[generation] = entry
        self._entries.move_to_end(generation)
        while sum(e.nbytes for e in self._entries.values()) > self._max_bytes:
            self._entries.popitem(last=False)
        return SearchedGlobals(entry.count, entry.matrix)

    async def _shared_reading(self, generation: str) -> _Entry:
        """Requests for one generation share a reading, which goes on if one of them leaves."""
        task = self._reading.get(generation)
        if task is None:
            task = asyncio.create_task(self._read(generation))
            self._reading[generation] = task
            task.add_done_callback(lambda reading: self._end(generation, reading))
        return await asyncio.shield(task)

    def _end(self, generation: str, reading: asyncio.Task[_Entry]) -> None:
        del self._reading[generation]
        if not reading.cancelled():
            reading.exception()  # the requests have the error; asyncio must not log it as unread

    async def _read(self, generation: str) -> _Entry:
        started = time.monotonic()
        # Before the images, so that the next search notices what changes while they are read.
        version = await self._gallery.version(generation)
        page = await self._gallery.page(generation, _PAGE, None)
        count, dim = page.count, (page.sizes.global_dim if page.sizes else None) or 0
        self._check_room(count, dim)
        rows = np.empty((count, dim), np.float32)
        ids: list[str] = []
        images = 0
        while True:
            images += len(page.ids)
            for start in range(0, len(page.ids) if dim else 0, _CHUNK):
                chunk = page.ids[start : start + _CHUNK]
                for image_id, vector in (await self._gallery.globals(generation, chunk)).items():
                    # More images may have come since the count.
                    if vector is not None and len(vector) == dim and len(ids) < count:
                        rows[len(ids)] = vector
                        ids.append(image_id)
            if page.next_cursor is None:
                break
            page = await self._gallery.page(generation, _PAGE, page.next_cursor)
        matrix = GlobalsMatrix(ids, rows if len(ids) == count else rows[: len(ids)].copy())
        now = time.monotonic()
        return _Entry(version, images, matrix, now + _PATIENCE * (now - started))

    def _check_room(self, count: int, dim: int) -> None:
        if count > MAX_IMAGES:
            raise UnprocessableError(
                f"the collection has {count:,} images; the page searches up to {MAX_IMAGES:,}",
                code="too_many_images_to_search",
                count=count,
                most=MAX_IMAGES,
            )
        needed = count * dim * _NUMBER_BYTES
        if needed > self._max_bytes:
            raise UnprocessableError(
                f"the collection's globals take {needed:,} bytes; the page searches in "
                f"{self._max_bytes:,} (LOCORE_PAGE_BYTES)",
                code="too_many_images_to_search",
                count=count,
                most=self._max_bytes // max(dim * _NUMBER_BYTES, 1),
            )
