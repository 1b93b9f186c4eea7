"""Gallery images in Redis or Valkey: redis-py (asyncio) behind the few operations we need.

Keys: `locore:image:COLLECTION|ID` holds a record; `locore:ids:{COLLECTION}`, a sorted set in which
all scores are 0, lists the ids in order; `locore:expiry:{COLLECTION}` has those that expire, by
time. In a cluster (cluster.py) the records of a collection so lie in all slots, and its two lists
in one: neither a collection nor an id may have braces or a bar in its name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import redis.asyncio as redis
import structlog
from redis import exceptions
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import Sentinel

from service.errors import StoreFullError, StoreUnavailableError
from service.gallery.record import HEADER_BYTES
from service.metrics import STORE_SECONDS, STORE_UP

log = structlog.get_logger(__name__)

CHUNK = 200
"""Keys of one command: a long one would hold up every other client of the store."""

AWAY = (
    # The Sentinels that know of no primary are a ConnectionError too.
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    OSError,
    # Of a cluster: slots without a node, an unknown one, or one that moves away as we ask.
    exceptions.RedisClusterException,
    exceptions.ClusterError,
    exceptions.AskError,
    exceptions.TryAgainError,
)
"""What redis-py raises where a store is away, or changes its primary."""

LONGEST_SECONDS = 20.0
"""Of one operation: a cluster that is all silent is asked for its slots by one request after the
other, each waiting for those before it."""

_PAUSES = (0.1, 0.2)
"""Seconds before work is tried again: long enough for a connection that broke, short of what a
request can wait for."""

_EXPIRED_AT_ONCE = 1000
# By the store's own clock: those of replicas differ.
_EXPIRE = f"""
local now = redis.call('TIME')[1]
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, {_EXPIRED_AT_ONCE})
if #gone > 0 then
    redis.call('ZREM', KEYS[1], unpack(gone))
    redis.call('ZREM', KEYS[2], unpack(gone))
end
return #gone
"""

# ARGV: seconds to live or nothing, then ids. Returns how many were not listed before.
_LIST = """
local expiry = ARGV[1] ~= '' and redis.call('TIME')[1] + ARGV[1]
local added = 0
for place = 2, #ARGV do
    added = added + redis.call('ZADD', KEYS[1], 0, ARGV[place])
    if expiry then
        redis.call('ZADD', KEYS[2], expiry, ARGV[place])
    else
        redis.call('ZREM', KEYS[2], ARGV[place])
    end
end
return added
"""

_REFUSALS = re.compile(r"(^|caused error: )\W*(MISCONF|NOREPLICAS)\b")
"""Answers of a store that is there and cannot do its work, as redis-py words them."""

Command = tuple[str | bytes | int, ...]
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Page:
    count: int
    ids: list[str]
    next_cursor: str | None


class GalleryStore:
    """The durable gallery. Every method raises StoreUnavailableError where the store is away.

    This one is for a single Redis, or for the one that is primary now (`sentinels` say which).
    With `log_changes` the log says when the store goes away, and why, and when it is back.
    """

    def __init__(
        self, client: redis.Redis | RedisCluster, sentinels: Sentinel | None = None
    ) -> None:
        self._client = client
        self._sentinels = sentinels
        self.log_changes = False
        self._away = False

    async def close(self) -> None:
        await self._client.aclose()
        if self._sentinels is not None:
            await self._sentinels.aclose()

    async def ping(self) -> None:
        async with self._timed("ping"):
            await self._steadily(self._client.ping)

    async def memory_bytes(self) -> int:
        """What the store takes now, buffers of clients included; replicas are not counted."""
        async with self._timed("ping"):
            return sum(await self._steadily(self._memory_of_primaries))

    async def put(self, collection: str, records: dict[str, bytes], ttl_seconds: int | None) -> int:
        """Store records by id, all or none; returns how many replaced an image.

        Raises StoreFullError where the store refuses writes for want of memory.
        """
        async with self._timed("put"):
            await self._drop_expired(collection)
            sets = [set_command(collection, i, r, ttl_seconds) for i, r in records.items()]
            commands = [list_command(collection, records, ttl_seconds), *sets]
            added, *_ = await self._answers(commands, atomic=True)
        return len(records) - int(added)

    async def fetch(self, collection: str, ids: Sequence[str]) -> list[bytes | None]:
        """The records of `ids`, None where there is none."""
        async with self._timed("fetch"):
            found = await self._answers(
                [("MGET", *(image_key(collection, i) for i in chunk)) for chunk in _chunks(ids)]
            )
            return [record for answer in found for record in answer]

    async def versions(self, collection: str, ids: Sequence[str]) -> list[bytes]:
        """The records' headers, empty where there is no record."""
        async with self._timed("versions"):
            return await self._answers(
                [("GETRANGE", image_key(collection, i), 0, HEADER_BYTES - 1) for i in ids]
            )

    async def delete(self, collection: str, image_id: str) -> bool:
        """False where there was no such image."""
        async with self._timed("delete"):
            unlist = [("ZREM", key, image_id) for key in list_keys(collection)]
            commands = [("DEL", image_key(collection, image_id)), *unlist]
            deleted, *_ = await self._answers(commands, atomic=True, again=False)
        return bool(deleted)

    async def page(self, collection: str, limit: int, after: str | None) -> Page:
        """Ids in order, those behind `after` first; `next_cursor` is what to pass as `after`."""
        key, _ = list_keys(collection)
        start = "-" if after is None else f"({after}"
        async with self._timed("list"):
            await self._drop_expired(collection)
            count, found = await self._answers(
                [("ZCARD", key), ("ZRANGEBYLEX", key, start, "+", "LIMIT", 0, limit + 1)]
            )
        ids = [image_id.decode() for image_id in found]
        more = len(ids) > limit
        return Page(int(count), ids[:limit], ids[limit - 1] if more else None)

    async def _drop_expired(self, collection: str) -> None:
        """The records go by themselves; their ids are removed from the lists here, in one step:
        an image that is registered again meanwhile must keep its place."""
        command = script_command(_EXPIRE, list_keys(collection))
        while await self._answers([command]) == [_EXPIRED_AT_ONCE]:
            pass

    async def _answers(
        self, commands: Sequence[Command], *, atomic: bool = False, again: bool = True
    ) -> list[Any]:
        """The answers to commands that are sent together, as one transaction where `atomic`. A
        deletion is not tried `again`: a second time would not find what a first had deleted."""

        async def ask() -> list[Any]:
            pipeline = self._client.pipeline(transaction=atomic)
            for command in commands:
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
        """Times an operation, and turns what redis-py raises into the contract's errors."""
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                with STORE_SECONDS.labels(operation).time():
                    yield
        except AWAY as error:
            STORE_UP.set(0)
            self._is_away(True, why=str(error))
            raise StoreUnavailableError("the gallery store does not answer") from error
        except exceptions.RedisError as error:
            if isinstance(error, exceptions.OutOfMemoryError):
                raise StoreFullError("the gallery store has no memory left") from error
            if _REFUSALS.search(str(error)):
                raise StoreUnavailableError("the gallery store refuses commands") from error
            raise
        STORE_UP.set(1)
        self._is_away(False)

    def _is_away(self, away: bool, **why: str) -> None:
        if self.log_changes and away != self._away:
            log.warning("store_away" if away else "store_back", **why)
        self._away = away


def image_key(collection: str, image_id: str) -> str:
    return f"locore:image:{collection}|{image_id}"


def list_keys(collection: str) -> tuple[str, str]:
    """The keys of a collection's ids and of their times of expiry, which are in one slot."""
    return f"locore:ids:{{{collection}}}", f"locore:expiry:{{{collection}}}"


def script_command(script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
    # Not by its digest: a replica that becomes primary does not know a script that it never ran.
    return ("EVAL", script, len(keys), *keys, *arguments)


def list_command(collection: str, ids: Iterable[str], ttl_seconds: int | None) -> Command:
    """Put ids on a collection's lists."""
    ttl = "" if ttl_seconds is None else ttl_seconds
    return script_command(_LIST, list_keys(collection), ttl, *ids)


def set_command(collection: str, image_id: str, record: bytes, ttl_seconds: int | None) -> Command:
    expiry: Command = () if ttl_seconds is None else ("EX", ttl_seconds)
    return ("SET", image_key(collection, image_id), record, *expiry)


def _chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
