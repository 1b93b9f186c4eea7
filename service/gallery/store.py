"""Gallery images in Redis or Valkey: redis-py (asyncio) behind the few operations we need.

Keys: `locore:{COLLECTION}:image:ID` holds a record; `locore:{COLLECTION}:ids`, a sorted set in
which all scores are 0, lists the ids in order; `locore:{COLLECTION}:expiry` has those that
expire, by time. The braces keep a collection in one slot of a cluster, so that
a registration is one transaction there too.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from service.errors import StoreFullError, StoreUnavailableError
from service.gallery.record import HEADER_BYTES
from service.metrics import STORE_SECONDS, STORE_UP

CHUNK = 200
"""Keys of one command: a long one would hold up every other client of the store."""

_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    OSError,
)


_EXPIRED_AT_ONCE = 1000
# By the store's own clock: those of replicas differ.
_EXPIRE = f"""
local now = redis.call('TIME')[1]
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, {_EXPIRED_AT_ONCE})
if #gone > 0 then
    redis.call('ZREM', KEYS[1], unpack(gone))
    redis.call('ZREM', KEYS[2], unpack(gone))
end
return #gone
"""

_REFUSALS = re.compile(r"(^|caused error: )\W*(MISCONF|CLUSTERDOWN|MASTERDOWN|NOREPLICAS)\b")
"""Answers of a store that is there and cannot do its work, as redis-py words them."""


@dataclass(frozen=True)
class Page:
    count: int
    ids: list[str]
    next_cursor: str | None


class GalleryStore:
    """The durable gallery. Every method raises StoreUnavailableError where the store is away."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._expire = client.register_script(_EXPIRE)

    @classmethod
    def connect(cls, url: str) -> GalleryStore:
        """Connects when first used. Raises ValueError for a URL that cannot be one."""
        return cls(
            redis.Redis.from_url(
                url,
                socket_timeout=5.0,
                socket_connect_timeout=2.0,
                health_check_interval=15,
                # Long enough for a connection that broke, short of what a request can wait for.
                retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), retries=2),
            )
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ping(self) -> None:
        async with _timed("ping"):
            await self._client.ping()

    async def put(self, collection: str, records: dict[str, bytes], ttl_seconds: int | None) -> int:
        """Store records by id, all or none; returns how many replaced an image.

        Raises StoreFullError where the store refuses writes for want of memory.
        """
        ids, expiry = _ids_key(collection), _expiry_key(collection)
        async with _timed("put"):
            await self._drop_expired(collection)
            now, _ = await self._client.time()
            transaction = self._client.pipeline(transaction=True)
            transaction.zadd(ids, dict.fromkeys(records, 0))
            if ttl_seconds is None:
                transaction.zrem(expiry, *records)
            else:
                transaction.zadd(expiry, dict.fromkeys(records, now + ttl_seconds))
            for image_id, record in records.items():
                transaction.set(_image_key(collection, image_id), record, ex=ttl_seconds)
            added, *_ = await transaction.execute()
        return len(records) - int(added)

    async def fetch(self, collection: str, ids: Sequence[str]) -> list[bytes | None]:
        """The records of `ids`, None where there is none."""
        async with _timed("fetch"):
            pipeline = self._client.pipeline(transaction=False)
            for chunk in _chunks(ids):
                pipeline.mget([_image_key(collection, image_id) for image_id in chunk])
            return [record for answer in await pipeline.execute() for record in answer]

    async def versions(self, collection: str, ids: Sequence[str]) -> list[bytes]:
        """The records' headers, empty where there is no record."""
        async with _timed("versions"):
            pipeline = self._client.pipeline(transaction=False)
            for image_id in ids:
                pipeline.getrange(_image_key(collection, image_id), 0, HEADER_BYTES - 1)
            return list(await pipeline.execute())

    async def delete(self, collection: str, image_id: str) -> bool:
        """False where there was no such image."""
        async with _timed("delete"):
            transaction = self._client.pipeline(transaction=True)
            transaction.delete(_image_key(collection, image_id))
            transaction.zrem(_ids_key(collection), image_id)
            transaction.zrem(_expiry_key(collection), image_id)
            deleted, *_ = await transaction.execute()
        return bool(deleted)

    async def page(self, collection: str, limit: int, after: str | None) -> Page:
        """Ids in order, those behind `after` first; `next_cursor` is what to pass as `after`."""
        key = _ids_key(collection)
        async with _timed("list"):
            await self._drop_expired(collection)
            pipeline = self._client.pipeline(transaction=False)
            pipeline.zcard(key)
            start = "-" if after is None else f"({after}"
            pipeline.zrangebylex(key, start, "+", start=0, num=limit + 1)
            count, found = await pipeline.execute()
        ids = [image_id.decode() for image_id in found]
        more = len(ids) > limit
        return Page(int(count), ids[:limit], ids[limit - 1] if more else None)

    async def _drop_expired(self, collection: str) -> None:
        """The records go by themselves; their ids are removed from the lists here, in one step:
        an image that is registered again meanwhile must keep its place."""
        keys = (_expiry_key(collection), _ids_key(collection))
        while await self._expire(keys=keys) == _EXPIRED_AT_ONCE:
            pass


def _image_key(collection: str, image_id: str) -> str:
    return f"locore:{{{collection}}}:image:{image_id}"


def _ids_key(collection: str) -> str:
    return f"locore:{{{collection}}}:ids"


def _expiry_key(collection: str) -> str:
    return f"locore:{{{collection}}}:expiry"


def _chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


@asynccontextmanager
async def _timed(operation: str) -> AsyncIterator[None]:
    """Times an operation, and turns what redis-py raises into the contract's errors."""
    try:
        with STORE_SECONDS.labels(operation).time():
            yield
    except _AWAY as error:
        STORE_UP.set(0)
        raise StoreUnavailableError("the gallery store does not answer") from error
    except exceptions.RedisError as error:
        if isinstance(error, exceptions.OutOfMemoryError):
            raise StoreFullError("the gallery store has no memory left") from error
        if _REFUSALS.search(str(error)):
            raise StoreUnavailableError("the gallery store refuses commands") from error
        raise
    STORE_UP.set(1)
