"""Removes the images of emptied and dropped collections in the background, in small steps."""

from __future__ import annotations

import asyncio

import structlog

from service.api.errors import StoreUnavailableError
from service.gallery import name_commands
from service.gallery.keys import EMPTIED, SWEEPER, dropped_key, generation_keys, generation_of
from service.gallery.store import CHUNK, GalleryStore

log = structlog.get_logger(__name__)

GRACE_SECONDS = 30.0
"""An ended generation stays for this time, which is longer than any operation of the store. A
request that has looked up a name still finds its images, and unfinished writes are undone."""

_EVERY_SECONDS = 5.0
_PAUSE_SECONDS = 0.005
"""A pause after each step, so that other clients of the store get their turn."""

_AT_ONCE = 100


class Sweeper:
    """One service per store sweeps at a time; two would only waste time."""

    def __init__(self, store: GalleryStore, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._store = store
        self._grace = grace_seconds

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                await self.sweep()
            except StoreUnavailableError:
                # Requests log it. The rest stays listed for the next sweep.
                continue
            except Exception:
                log.exception("sweep_failed")

    async def sweep(self) -> int:
        """Sweeps generations after their grace period. Returns how many images were removed."""
        due = name_commands.due(EMPTIED, self._grace, _AT_ONCE)
        (collections,) = await self._store.answers("sweep", [due])
        if not collections:
            return 0
        (leased,) = await self._store.answers("sweep", [name_commands.lease()])
        if not leased:
            return 0
        try:
            return sum([await self._sweep_collection(name.decode()) for name in collections])
        finally:
            await self._store.answers("sweep", [("DEL", SWEEPER)])

    async def _sweep_collection(self, collection: str) -> int:
        due = name_commands.due(dropped_key(collection), self._grace, _AT_ONCE)
        count = ("ZCARD", dropped_key(collection))
        tokens, remaining = await self._store.answers("sweep", [due, count])
        removed = 0
        for token in tokens:
            generation = generation_of(collection, token.decode())
            removed += await self._sweep_generation(generation)
            (remaining,) = await self._store.answers("sweep", [name_commands.swept(generation)])
        if not remaining:
            await self._store.answers(
                "sweep", [name_commands.unnote(EMPTIED, collection, self._grace)]
            )
        if removed:
            log.info("swept", collection=collection, images=removed)
        return removed

    async def _sweep_generation(self, generation: str) -> int:
        key, *_ = generation_keys(generation)
        removed = 0
        while True:
            first = ("ZRANGE", key, 0, CHUNK - 1)
            ids, _ = await self._store.answers("sweep", [first, name_commands.keep_lease()])
            if not ids:
                return removed
            await self._store.remove(generation, [image_id.decode() for image_id in ids])
            removed += len(ids)
            await asyncio.sleep(_PAUSE_SECONDS)
