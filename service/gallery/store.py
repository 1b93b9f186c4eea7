"""Gallery images in Redis or Valkey."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from model.descriptors import DescriptorSizes
from service.api.sizes import joined
from service.gallery import commands
from service.gallery.commands import Command
from service.gallery.keys import (
    change_keys,
    collection_of,
    generation_keys,
    image_key,
    thumbnail_key,
)
from service.gallery.record import HEADER_BYTES, header_sizes
from service.gallery.session import StoreSession

CHUNK = 200
"""Keys in one command: a longer one would block the store's other clients."""


class CollectionSizesError(Exception):
    """The collection has `sizes`; the images to be registered have others."""

    def __init__(self, sizes: DescriptorSizes) -> None:
        super().__init__(f"the collection has {sizes}")
        self.sizes = sizes


class GenerationOverError(Exception):
    """The generation was emptied or dropped, or does not exist yet."""


@dataclass(frozen=True)
class Page:
    """`sizes`: of the collection, None if it has no image."""

    collection: str
    count: int
    ids: list[str]
    next_cursor: str | None
    sizes: DescriptorSizes | None


@dataclass(frozen=True)
class Fetched:
    """`records`: in the order of the ids, None for a missing one; `expiring`: whether any image of
    the collection has a time to live."""

    records: list[bytes | None]
    expiring: bool


class GalleryStore(StoreSession):
    """The durable gallery: images by generation (keys.py) and id. Raises what a session does."""

    async def put(
        self,
        generation: str,
        records: dict[str, bytes],
        sizes: DescriptorSizes,
        ttl_seconds: int | None,
    ) -> int:
        """Stores records by id, all or none. Returns how many replaced an image. All have the
        `sizes`, or no global.

        Raises StoreFullError if the store has no memory left, CollectionSizesError and
        GenerationOverError.
        """
        async with self._timed("put"):
            await self._drop_expired(generation)
            command = commands.put(generation, records, sizes, ttl_seconds)
            return len(records) - await self._checked(command, generation, sizes)

    async def fetch(self, generation: str, ids: Sequence[str]) -> Fetched:
        async with self._timed("fetch"):
            *answers, expiring = await self._answers(
                [
                    *(("MGET", *(image_key(generation, i) for i in c)) for c in _chunks(ids)),
                    commands.count_expiring(generation),
                ]
            )
            return Fetched([record for answer in answers for record in answer], expiring > 0)

    async def versions(self, generation: str, ids: Sequence[str]) -> list[bytes]:
        """The records' headers, empty if there is no record."""
        async with self._timed("versions"):
            return await self._headers(generation, ids)

    async def delete(self, generation: str, image_id: str) -> bool:
        """False if there was no such image."""
        async with self._timed("delete"):
            command = commands.delete(generation, image_id)
            (deleted,) = await self._answers([command], again=False)
        return bool(deleted)

    async def version(self, generation: str) -> bytes | None:
        """Changes with every change of the images; None if there are none."""
        _, key = change_keys(generation)
        async with self._timed("list"):
            await self._drop_expired(generation)
            (value,) = await self._answers([("GET", key)])
        return None if value is None else bytes(value)

    async def page(self, generation: str, limit: int, after: str | None) -> Page:
        """Ids in order, those behind `after` first; `next_cursor` is what to pass as `after`."""
        key, _, sizes_key, _, _ = generation_keys(generation)
        start = "-" if after is None else f"({after}"
        async with self._timed("list"):
            await self._drop_expired(generation)
            count, members, sizes_text = await self._answers(
                [
                    ("ZCARD", key),
                    ("ZRANGEBYLEX", key, start, "+", "LIMIT", 0, limit + 1),
                    ("GET", sizes_key),
                ]
            )
            sizes = commands.sizes_from(sizes_text) if count and sizes_text else None
            if count and not sizes_text:
                sizes = await self._learn_sizes(generation)
        ids = [image_id.decode() for image_id in members]
        has_more = len(ids) > limit
        return Page(
            collection_of(generation),
            int(count),
            ids[:limit],
            ids[limit - 1] if has_more else None,
            sizes,
        )

    async def _checked(self, command: Command, generation: str, sizes: DescriptorSizes) -> int:
        """Lists the collection, and runs a script that checks its sizes. Returns the script's
        number. Raises CollectionSizesError and GenerationOverError."""
        while True:
            _, answer = await self._answers([commands.note_collection(generation), command])
            if answer == commands.OVER:
                raise GenerationOverError(generation)
            if isinstance(answer, int):
                return answer
            if answer:
                raise CollectionSizesError(commands.sizes_from(answer))
            await self._learn_sizes(generation, sizes)

    async def _learn_sizes(
        self, generation: str, otherwise: DescriptorSizes | None = None
    ) -> DescriptorSizes | None:
        """Gives a collection without sizes those of its first images, or `otherwise` if none of its
        listed images exists."""
        key, _, sizes_key, _, _ = generation_keys(generation)
        sizes: DescriptorSizes | None = None
        start = 0
        while sizes is None:
            (ids,) = await self._answers([("ZRANGE", key, start, start + CHUNK - 1)])
            if not ids:
                break
            for header in await self._headers(generation, [i.decode() for i in ids]):
                more = header_sizes(header)
                sizes = joined(sizes, more) if sizes and more else sizes or more
            start += CHUNK
        sizes = sizes or otherwise
        if sizes is None:
            return None
        adopt = commands.adopt_sizes(generation, sizes)
        _, sizes_text = await self._answers([adopt, ("GET", sizes_key)])
        return commands.sizes_from(sizes_text) if sizes_text else sizes

    async def _headers(self, generation: str, ids: Sequence[str]) -> list[bytes]:
        keys = [image_key(generation, image_id) for image_id in ids]
        answers = await self._answers(
            [commands.beginnings(some, HEADER_BYTES) for some in _chunks(keys)]
        )
        return [header for answer in answers for header in answer]

    async def _drop_expired(self, generation: str) -> None:
        """Removes ids of expired records from the lists, atomically, so that an image that is
        registered again keeps its place. The records delete themselves."""
        command = commands.expire(generation)
        while await self._answers([command]) == [commands.EXPIRED_AT_ONCE]:
            pass

    async def remove(self, generation: str, ids: Sequence[str]) -> None:
        """Removes records and thumbnails, then their ids from the list. Not for a current
        generation."""
        keys = [key(generation, i) for i in ids for key in (image_key, thumbnail_key)]
        async with self._timed("sweep"):
            await self._answers(self._removal(keys))
            ids_key, *_ = generation_keys(generation)
            await self._answers([("ZREM", ids_key, *ids)])

    def _removal(self, keys: Sequence[str]) -> Sequence[Command]:
        return [("UNLINK", *keys)]


def _chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
