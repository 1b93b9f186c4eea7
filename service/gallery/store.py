"""Gallery images in Redis or Valkey: redis-py (asyncio) behind the few operations we need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import Sentinel

from model.descriptors import DescriptorSizes
from service.gallery import commands
from service.gallery.commands import Command, collection_keys, image_key
from service.gallery.condition import AWAY, FAILURES, NO_REPLICAS, StoreCondition
from service.gallery.record import HEADER_BYTES, header_sizes
from service.metrics import STORE_SECONDS
from service.sizes import joined

CHUNK = 200
"""Keys of one command: a long one would hold up every other client of the store."""

LONGEST_SECONDS = 20.0
"""Of one operation: a cluster that is all silent is asked for its slots by one request after the
other, each waiting for those before it."""

_PAUSES = (0.1, 0.2)
"""Seconds before work is tried again: long enough for a connection that broke, short of what a
request can wait for."""

DEFAULT_CONNECTIONS = 100

_Answer = TypeVar("_Answer")


class CollectionSizesError(Exception):
    """A collection has `sizes`, and what is to be registered has others."""

    def __init__(self, sizes: DescriptorSizes) -> None:
        super().__init__(f"the collection has {sizes}")
        self.sizes = sizes


@dataclass(frozen=True)
class Page:
    """`sizes`: of the collection, None where it has no image."""

    count: int
    ids: list[str]
    next_cursor: str | None
    sizes: DescriptorSizes | None


@dataclass(frozen=True)
class Fetched:
    """`records`: as asked for, None where there is none; `expiring`: images of the collection,
    perhaps these, go by themselves at some time."""

    records: list[bytes | None]
    expiring: bool


class GalleryStore:
    """The durable gallery. Every method raises StoreUnavailableError where the store is away or
    refuses, whose cause says why; none says it of a store that has too few `connections` for all
    who ask at once: they wait for one.

    This one is for a single Redis, or for the one that is primary now (`sentinels` say which).
    """

    def __init__(
        self,
        client: redis.Redis | RedisCluster,
        sentinels: Sentinel | None = None,
        connections: int = DEFAULT_CONNECTIONS,
    ) -> None:
        self._client = client
        self._sentinels = sentinels
        # An operation takes at most one connection to each node.
        self._connections = asyncio.Semaphore(connections)
        self.condition = StoreCondition()

    async def close(self) -> None:
        await self._client.aclose()
        if self._sentinels is not None:
            await self._sentinels.aclose()

    async def ping(self) -> None:
        """Whether the store does all that we ask of it, by commands that change nothing."""
        async with self._timed("ping"):
            await self._answers([("PING",)])
            await self._try_commands()

    async def _try_commands(self) -> None:
        try:
            await self._answers([commands.trial()])
        except exceptions.ResponseError as error:
            if NO_REPLICAS not in str(error):
                raise

    async def memory_bytes(self) -> int:
        """What the store takes now, buffers of clients included; replicas are not counted."""
        async with self._timed("ping"):
            return sum(await self._steadily(self._memory_of_primaries))

    async def put(
        self,
        collection: str,
        records: dict[str, bytes],
        sizes: DescriptorSizes,
        ttl_seconds: int | None,
    ) -> int:
        """Store records by id, all or none; returns how many replaced an image. All have the
        `sizes`, or no global.

        Raises StoreFullError where the store refuses writes for want of memory, and
        CollectionSizesError.
        """
        async with self._timed("put"):
            await self._drop_expired(collection)
            command = commands.put(collection, records, sizes, ttl_seconds)
            return len(records) - await self._checked(command, collection, sizes)

    async def fetch(self, collection: str, ids: Sequence[str]) -> Fetched:
        async with self._timed("fetch"):
            *found, expiring = await self._answers(
                [
                    *(("MGET", *(image_key(collection, i) for i in c)) for c in _chunks(ids)),
                    commands.count_expiring(collection),
                ]
            )
            return Fetched([record for answer in found for record in answer], expiring > 0)

    async def versions(self, collection: str, ids: Sequence[str]) -> list[bytes]:
        """The records' headers, empty where there is no record."""
        async with self._timed("versions"):
            return await self._headers(collection, ids)

    async def delete(self, collection: str, image_id: str) -> bool:
        """False where there was no such image."""
        async with self._timed("delete"):
            command = commands.delete(collection, image_id)
            (deleted,) = await self._answers([command], again=False)
        return bool(deleted)

    async def version(self, collection: str) -> bytes | None:
        """Another after each change of the collection's images; None where it has none."""
        async with self._timed("list"):
            await self._drop_expired(collection)
            (found,) = await self._answers([("GET", collection_keys(collection).version)])
        return None if found is None else bytes(found)

    async def answers(self, operation: str, asked: Sequence[Command]) -> list[Any]:
        """The answers to idempotent commands about what lies beside the records."""
        async with self._timed(operation):
            return await self._answers(asked) if asked else []

    async def page(self, collection: str, limit: int, after: str | None) -> Page:
        """Ids in order, those behind `after` first; `next_cursor` is what to pass as `after`."""
        keys = collection_keys(collection)
        start = "-" if after is None else f"({after}"
        async with self._timed("list"):
            await self._drop_expired(collection)
            count, found, known = await self._answers(
                [
                    ("ZCARD", keys.ids),
                    ("ZRANGEBYLEX", keys.ids, start, "+", "LIMIT", 0, limit + 1),
                    ("GET", keys.sizes),
                ]
            )
            sizes = commands.sizes_from(known) if count and known else None
            if count and not known:
                sizes = await self._learn_sizes(collection)
        ids = [image_id.decode() for image_id in found]
        more = len(ids) > limit
        return Page(int(count), ids[:limit], ids[limit - 1] if more else None, sizes)

    async def _checked(self, command: Command, collection: str, sizes: DescriptorSizes) -> int:
        """The number that a script answers which checks the collection's sizes. Raises
        CollectionSizesError."""
        while True:
            (answer,) = await self._answers([command])
            if isinstance(answer, int):
                return answer
            if answer:
                raise CollectionSizesError(commands.sizes_from(answer))
            await self._learn_sizes(collection, sizes)

    async def _learn_sizes(
        self, collection: str, otherwise: DescriptorSizes | None = None
    ) -> DescriptorSizes | None:
        """Gives a gallery from before collections had sizes those of its first images; those
        `otherwise` where it lists none that is there."""
        keys = collection_keys(collection)
        sizes: DescriptorSizes | None = None
        start = 0
        while sizes is None:
            (ids,) = await self._answers([("ZRANGE", keys.ids, start, start + CHUNK - 1)])
            if not ids:
                break
            for header in await self._headers(collection, [i.decode() for i in ids]):
                more = header_sizes(header)
                sizes = joined(sizes, more) if sizes and more else sizes or more
            start += CHUNK
        sizes = sizes or otherwise
        if sizes is None:
            return None
        adopt = commands.adopt_sizes(collection, sizes)
        _, known = await self._answers([adopt, ("GET", keys.sizes)])
        return commands.sizes_from(known) if known else sizes

    async def _headers(self, collection: str, ids: Sequence[str]) -> list[bytes]:
        return await self._answers(
            [("GETRANGE", image_key(collection, i), 0, HEADER_BYTES - 1) for i in ids]
        )

    async def _drop_expired(self, collection: str) -> None:
        """The records go by themselves; their ids are removed from the lists here, in one step:
        an image that is registered again meanwhile must keep its place."""
        command = commands.expire(collection)
        while await self._answers([command]) == [commands.EXPIRED_AT_ONCE]:
            pass

    async def _answers(self, asked: Sequence[Command], *, again: bool = True) -> list[Any]:
        """The answers to commands that are sent together. A deletion is not tried `again`: a
        second time would not find what a first had deleted."""

        async def ask() -> list[Any]:
            pipeline = self._client.pipeline(transaction=False)
            for command in asked:
                pipeline.execute_command(*command)
            return await pipeline.execute()

        return await (self._steadily(ask) if again else ask())

    async def _steadily(self, work: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Does idempotent work; where the store is away, or another is primary now, again.

        redis-py does not try again itself: it would go to the same address, where Sentinels know
        of another by then.
        """
        for pause in _PAUSES:
            try:
                return await work()
            except AWAY:
                await asyncio.sleep(pause)
                await self._look_again()
        return await work()

    async def _memory_of_primaries(self) -> list[int]:
        found = await self._client.info("memory")
        return [found["used_memory"]]

    async def _look_again(self) -> None:
        """Find out where the store is now. Connections do so when they are made anew."""

    @asynccontextmanager
    async def _timed(self, operation: str) -> AsyncIterator[None]:
        """Waits for a connection, times an operation, and turns what redis-py raises into the
        contract's errors."""
        async with self._connections:
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    with STORE_SECONDS.labels(operation).time():
                        yield
            except FAILURES as error:
                failure = self.condition.failure(operation, error)
                if failure is None:
                    raise
                raise failure from error
        self.condition.success(operation)


def _chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
